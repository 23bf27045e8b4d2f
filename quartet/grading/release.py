"""Make what a teacher hands out: the course without references, solutions and lesson sources."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from quartet import QuartetError
from quartet.build import serialize, write
from quartet.grading import worker
from quartet.run import find_notebooks
from utils import checks, wire
from utils.tracks import ROOT

FOLDERS = ("notebooks", "utils", "quartet", "data", "config", "tools", "docs")
FILES = "START.ipynb README.md LICENSE Makefile pyproject.toml constraints.txt environment.yml"
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*_full.npz", "*.mine*")


def release(
    names: Iterable[str], out: Path, self_check: bool = False, root: Path = ROOT
) -> list[Path]:
    """Write a copy of the course that holds no answers, and return its exercise notebooks.

    Parameters
    ----------
    names : the lessons whose exercises are handed out.
    out : a new folder, from which `make lab` works as from the whole course.
    self_check : hand out the inputs and results of the notebooks' own check cells, so that they
        answer. Without it, they say that the answer is checked when it is handed in.

    Raises
    ------
    QuartetError if the folder is there already, or there is no such lesson.
    """
    solutions = find_notebooks(names, (), "solution", root)
    if out.exists() and any(out.iterdir()):
        raise QuartetError(f"{out} is not empty. Name a new folder, or empty it.")
    for folder in FOLDERS:
        shutil.copytree(root / folder, out / folder, ignore=LEFT_BEHIND)
    for name in FILES.split():
        shutil.copy(root / name, out / name)
    for path in sorted(root.glob("lessons/*/recorded.json")):  # the other tracks' numbers
        write(out / path.relative_to(root), path.read_text(encoding="utf-8"))
    for lesson in sorted({path.stem for path in solutions}):
        shown = cases(lesson) if self_check else outline(lesson)
        (out / "lessons" / lesson).mkdir(parents=True, exist_ok=True)
        (out / "lessons" / lesson / checks.CASES).write_bytes(shown)
    written = [out / "exercises" / path.parent.name / path.name for path in solutions]
    for path in written:
        write(path, serialize(worker.handed_out(path.stem, path.parent.name)))
    return written


def cases(lesson: str) -> bytes:
    """Return a lesson's exercises with the cases of the self-check, but not what makes them."""
    exercises = checks.load_exercises(lesson)
    return _packed({name: _about(each, _shown(each)) for name, each in exercises.items()})


def outline(lesson: str) -> bytes:
    """Return a lesson's exercises without any case: names, points, hints and time limits."""
    exercises = checks.load_exercises(lesson)
    return _packed({name: _about(each, []) for name, each in exercises.items()})


def _about(exercise: checks.Exercise, shown: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("points", "hints", "seconds", "tolerance")
    return {name: getattr(exercise, name) for name in names} | {"cases": shown}


def _shown(exercise: checks.Exercise) -> list[dict[str, Any]]:
    """Return the cases of the self-check; none if a judge decides, which is an answer in itself."""
    made = exercise.cases(np.random.default_rng(checks.SELF_CHECK_SEED))
    if any(case.judge for case in made):
        return []
    names = ("args", "expected", "weight", "about")
    return [{name: getattr(case, name) for name in names} for case in made]


def _packed(exercises: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    wire.send(stream, exercises)
    return stream.getvalue()
