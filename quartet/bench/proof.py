"""Measure `make test` against that of an earlier commit, side by side on one machine."""

from __future__ import annotations

import heapq
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from quartet import QuartetError
from quartet.build import write
from quartet.proof.order import BYTES_FOR_ALL, BYTES_PER_WORKER, scope
from quartet.proof.plugin import known
from quartet.source import lesson_names
from utils.tracks import ROOT

MEASURED = (sys.executable, "-m", "quartet.bench.measured")
MOST_ROUNDS = 2  # a round takes as long as three proofs
WORKERS = (1, 2, 4, 8)
TRIED = (2, 1)  # numbers of workers, beside the one that is usual here
GIB = 2**30


def proof(
    against: str, rounds: int, progress: Progress, folder: Path = ROOT / "build" / "proof"
) -> dict[str, Any]:
    """Run `make test` in fresh clones of an earlier commit and of the present one, in turns.

    It takes hours. What was measured is kept, so that a run that was stopped goes on from there.

    Parameters
    ----------
    against : the earlier commit.
    folder : for the clones, and for what each proof printed.

    Returns
    -------
    `runs`: for each commit, and for the present one with two workers and with one, wall `seconds`,
    `processor_seconds` and `peak_mib` of all its processes, and whether it `passed`, round by
    round. `plan`: what more workers would need.

    Raises
    ------
    QuartetError if a commit cannot be set up.
    """
    now = _output(("git", "-C", ROOT, "rev-parse", "--short", "HEAD"), "no commit").strip()
    folder = folder / f"{against}-{now}"
    clones = {commit: _clone(commit, folder) for commit in (against, now)}
    runs = {against: (clones[against], {}), now: (clones[now], {})}
    runs |= {f"{now}, JOBS={n}": (clones[now], {"JOBS": str(n)}) for n in TRIED}
    found = measure(runs, min(rounds, MOST_ROUNDS), progress, folder)
    needs = plan(known(clones[now]), lesson_names(clones[now]))
    for clone in clones.values():
        shutil.rmtree(clone)
    return {"runs": [{"run": name} | each for name, each in found.items()], "plan": needs}


def measure(
    runs: dict[str, tuple[Path, dict[str, str]]], rounds: int, progress: Progress, folder: Path
) -> dict[str, dict[str, list]]:
    """Return for each run, a clone and the variables it is proved with, what its proofs took."""
    kept = folder / "measured.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    task = progress.add_task("proofs", total=rounds * len(runs))
    for turn in range(1, rounds + 1):
        for name, (clone, env) in runs.items():
            mine = found.setdefault(name, {})
            if len(mine.get("seconds", ())) < turn:
                for key, value in prove(clone, env, folder / f"{name}, round {turn}.log").items():
                    mine.setdefault(key, []).append(value)
                write(kept, json.dumps(found) + "\n")
            progress.advance(task)
    return found


def plan(costs: dict[str, float], lessons: Iterable[str]) -> list[dict[str, float]]:
    """Return for numbers of workers their memory, and how long the busiest of them is at work.

    Each takes the dearest scope that is left, as `make test` does once it knows the costs.

    Parameters
    ----------
    costs : processor seconds of each test.
    """
    scopes: dict[str, float] = defaultdict(float)
    for nodeid, seconds in costs.items():
        scopes[scope(nodeid, lessons)] += seconds
    found = []
    for workers in WORKERS:
        busy = [0.0] * workers
        for seconds in sorted(scopes.values(), reverse=True):
            heapq.heappush(busy, heapq.heappop(busy) + seconds)
        gib = (BYTES_FOR_ALL + workers * BYTES_PER_WORKER) // GIB
        found.append({"workers": workers, "gib": gib, "processor_seconds": round(max(busy))})
    return found


def _clone(commit: str, folder: Path) -> Path:
    """Return a clone of a commit with an environment of its own."""
    clone = folder / commit
    if not clone.is_dir():
        _output(("git", "clone", "--quiet", ROOT, clone), f"{ROOT} cannot be cloned")
        _output(("git", "-C", clone, "checkout", "--quiet", commit), f"{commit} is no commit")
    setup = (sys.executable, clone / "tools" / "setup_env.py", "dev")
    _output(setup, f"{commit} cannot be set up")
    return clone


def prove(clone: Path, env: dict[str, str], log: Path) -> dict[str, Any]:
    """Run `make test` in a clone, with caches of its own that are empty; return what it took."""
    for left in (".quartet", ".cache"):
        shutil.rmtree(clone / left, ignore_errors=True)
    env = os.environ | {"XDG_CACHE_HOME": str(clone / ".cache")} | env
    command = [*MEASURED, str(clone), "make", "test"]
    with log.open("w", encoding="utf-8") as said:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=said, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"passed": done.returncode == 0}


def _output(command: tuple[Any, ...], trouble: str) -> str:
    """Return what a command prints.

    Raises
    ------
    QuartetError if it fails: the trouble, and the end of what it printed.
    """
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise QuartetError(f"{trouble}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
