"""Run notebooks of exercises without a kernel: a process is forked for each, and says its results.

The process has imported the track's framework and run nothing, as a new kernel has. A notebook that
takes less than a second is not worth a kernel of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from quartet import compiled
from utils.tracks import ROOT, TRACKS

# A notebook's cells share a namespace, and its checker has all results.
FORKS = """
import importlib, json, linecache, os, sys, traceback
import nbformat

def results(path):
    notebook, names = nbformat.read(path, as_version=4), {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            file, lines = f"<{path} {cell.id}>", cell.source.splitlines(keepends=True)
            linecache.cache[file] = len(cell.source), None, lines, file  # what traces code reads it
            exec(compile(cell.source, file, "exec"), names)
    return {
        name: [result.points, [text for right, text in result.lines if not right]]
        for name, result in names["check"].results.items()
    }

def in_a_fork(path, answers):
    if os.fork():
        return os.wait()
    try:
        found = results(path)
    except BaseException:
        found = {"error": traceback.format_exc()}
    with open(answers, "a") as file:
        print(json.dumps([path, found]), file=file)
    os._exit(0)

answers, modules, *paths = sys.argv[1:]
for module in modules.split():
    importlib.import_module(module)
for path in paths:
    in_a_fork(path, answers)
"""


def results(kind: str, track: str, lessons: list[str], folder: Path, **variables: str) -> Any:
    """Return lesson -> exercise -> points and messages, as the notebooks' own checks give them.

    Parameters
    ----------
    kind : "exercises" or "solutions".
    folder : an empty one, for the answers.
    variables : of the environment, beside this process's own.

    Raises
    ------
    AssertionError if a notebook raises or ends its process.
    """
    paths, answers = {f"{lesson}.ipynb": lesson for lesson in lessons}, folder / "answers"
    command = [sys.executable, "-c", FORKS, answers, " ".join(TRACKS[track].modules), *paths]
    env = os.environ | {"MPLBACKEND": "agg"} | compiled.settings() | variables
    done = subprocess.run(command, cwd=ROOT / kind / track, env=env, capture_output=True, text=True)
    assert answers.is_file(), done.stderr[-2000:]
    said = dict(map(json.loads, answers.read_text(encoding="utf-8").splitlines()))
    assert set(said) == set(paths), done.stderr[-2000:]
    for path, found in said.items():
        assert "error" not in found, f"{kind}/{track}/{path}: {found['error']}"
    return {paths[path]: found for path, found in said.items()}
