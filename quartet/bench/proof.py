"""Measure `make test` against that of an earlier commit, side by side on one machine."""

from __future__ import annotations

import heapq
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from quartet import QuartetError
from quartet.proof.order import BYTES_FOR_ALL, BYTES_PER_WORKER, unit
from quartet.proof.plugin import known
from quartet.source import lesson_names
from utils.tracks import ROOT

MEASURED = (sys.executable, "-m", "quartet.bench.measured")
MOST_ROUNDS = 2  # a round takes as long as three proofs
WORKERS = (1, 2, 4, 8)
TRIED = 2  # how many workers the measured runs have
GIB = 2**30


def proof(against: str, rounds: int, progress: Progress) -> dict[str, Any]:
    """Run `make test` in fresh clones of an earlier commit and of the present one, in turns.

    Parameters
    ----------
    against : the earlier commit.

    Returns
    -------
    `runs`: for each commit, and for the present one with a single worker, wall `seconds`,
    `processor_seconds` and `peak_mib` of all its processes, round by round. `plan`: what more
    workers would need.

    Raises
    ------
    QuartetError if a commit cannot be set up, or a proof fails.
    """
    now = _output(("git", "-C", ROOT, "rev-parse", "--short", "HEAD"), "no commit").strip()
    runs = [(against, against, TRIED), (now, now, TRIED), (f"{now}, one worker", now, 1)]
    found = [{"run": n, "seconds": [], "processor_seconds": [], "peak_mib": []} for n, *_ in runs]
    with tempfile.TemporaryDirectory(prefix="quartet-") as folder:
        clones = {commit: _clone(commit, Path(folder)) for commit in (against, now)}
        rounds = min(rounds, MOST_ROUNDS)
        task = progress.add_task("proofs", total=rounds * len(found))
        for _ in range(rounds):
            for each, (_, commit, workers) in zip(found, runs, strict=True):
                for key, value in _prove(clones[commit], workers).items():
                    each[key].append(value)
                progress.advance(task)
        return {"runs": found, "plan": plan(known(clones[now]), lesson_names(clones[now]))}


def plan(costs: dict[str, float], lessons: Iterable[str]) -> list[dict[str, float]]:
    """Return for numbers of workers their memory, and how long the busiest of them is at work.

    Each takes the dearest unit that is left, as `make test` hands them out once it knows the costs.

    Parameters
    ----------
    costs : processor seconds of each test.
    """
    units: dict[str, float] = defaultdict(float)
    for nodeid, seconds in costs.items():
        units[unit(nodeid, lessons)] += seconds
    found = []
    for workers in WORKERS:
        busy = [0.0] * workers
        for seconds in sorted(units.values(), reverse=True):
            heapq.heappush(busy, heapq.heappop(busy) + seconds)
        gib = (BYTES_FOR_ALL + workers * BYTES_PER_WORKER) // GIB
        found.append({"workers": workers, "gib": gib, "processor_seconds": round(max(busy))})
    return found


def _clone(commit: str, folder: Path) -> Path:
    """Return a fresh clone of a commit with an environment of its own."""
    clone = folder / commit
    _output(("git", "clone", "--quiet", ROOT, clone), f"{ROOT} cannot be cloned")
    _output(("git", "-C", clone, "checkout", "--quiet", commit), f"{commit} is no commit")
    setup = (sys.executable, clone / "tools" / "setup_env.py", "dev")
    _output(setup, f"{commit} cannot be set up")
    return clone


def _prove(clone: Path, workers: int) -> dict[str, float]:
    """Run `make test` in a clone, with caches of its own that are empty; return what it took."""
    for left in (".quartet", ".cache"):
        shutil.rmtree(clone / left, ignore_errors=True)
    env = {"XDG_CACHE_HOME": str(clone / ".cache"), "JOBS": str(workers)}
    said = _output((*MEASURED, clone, "make", "test"), f"the proof fails in {clone.name}", env)
    return json.loads(said.splitlines()[-1])


def _output(command: tuple[Any, ...], trouble: str, env: dict[str, str] | None = None) -> str:
    """Return what a command prints.

    Raises
    ------
    QuartetError if it fails: the trouble, and the end of what it printed.
    """
    words, env = [str(word) for word in command], os.environ | (env or {})
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    if done.returncode:
        raise QuartetError(f"{trouble}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
