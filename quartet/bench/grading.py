"""Grade the same class by nbgrader's autograde and by `quartet grade`, one after the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from rich.progress import Progress

from quartet import QuartetError
from quartet.bench.measure import MIB
from quartet.exercises import is_answer
from quartet.grading.store import NAME, Row, Store
from quartet.grading.worker import handed_out, solution
from quartet.run import memory
from quartet.warm import client
from utils.tracks import TRACKS

CLASS = 30  # submissions a track
MANY = 1000  # small ones
FOLDER = "class"  # the assignment's name in nbgrader
BARS = {"keras": 8, "pytorch": 5, "tensorflow": 8, "jax": 3}  # times nbgrader's throughput
# What submissions hand in at the exercise whose turn it is; None: the solution.
ANSWERS = {
    "right": None,
    "right, too": None,
    "wrong": "def {name}(*values):\n    return values[0]",
    "broken": "def {name}(*values):\n    return values[0] + undefined",
    "empty": "",
}
PLAIN = {"QUARTET_WARM": "0", "QUARTET_JIT_CACHE": "0"}
WARM = {"QUARTET_WARM": "1"}


def classes(lesson: str, size: int, progress: Progress) -> list[dict[str, Any]]:
    """Grade a class of each track both ways.

    Returns
    -------
    For each track and grader: `seconds` of the whole command, from a cold start;
    `peak_mib` of its processes; `points` of each learner.

    Raises
    ------
    QuartetError if a command fails.
    """
    found = []
    for track in progress.track(TRACKS, description="classes graded"):
        with tempfile.TemporaryDirectory(prefix="quartet-") as name:
            root = Path(name)
            _hand_in(root, lesson, track, size)
            for grader, once in (("nbgrader", _nbgrader), ("quartet", _quartet)):
                about = {"lesson": lesson, "track": track, "grader": grader}
                found.append(about | once(root))
    return found


def _hand_in(root: Path, lesson: str, track: str, size: int) -> None:
    """Make a course of nbgrader with an assignment and what a class hands in."""
    source = root / "source" / FOLDER
    source.mkdir(parents=True)
    shutil.copy(solution(lesson, track), source)
    _spent("nbgrader", "generate_assignment", FOLDER, root=root, told=PLAIN)
    released = nbformat.read(root / "release" / FOLDER / f"{lesson}.ipynb", as_version=4)
    solved = {cell.id: cell.source for cell in nbformat.read(source / f"{lesson}.ipynb", 4).cells}
    kinds = list(ANSWERS)
    for number in range(size):
        folder = root / "submitted" / f"learner_{number:02}" / FOLDER
        folder.mkdir(parents=True)
        notebook = _answered(released, solved, kinds[number % len(kinds)], number)
        nbformat.write(notebook, folder / f"{lesson}.ipynb")


def _answered(
    released: nbformat.NotebookNode, solved: Mapping[str, str], kind: str, number: int
) -> nbformat.NotebookNode:
    """Return the notebook with each answer right but one, which is of the kind."""
    notebook = nbformat.from_dict(released)
    cells = [cell for cell in notebook.cells if is_answer(cell)]
    for cell in cells:
        cell.source = solved[cell.metadata.nbgrader.grade_id]
    chosen = cells[number % len(cells)]
    if ANSWERS[kind] is not None:
        chosen.source = ANSWERS[kind].format(name=chosen.metadata.nbgrader.grade_id)
    return notebook


def _nbgrader(root: Path) -> dict[str, Any]:
    from nbgrader.api import Gradebook

    patient = "--ExecutePreprocessor.timeout=120"
    spent = _spent("nbgrader", "autograde", FOLDER, patient, root=root, told=PLAIN)
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
        points = {each.student.id: each.score for each in book.assignment_submissions(FOLDER)}
    return spent | {"points": points}


def _quartet(root: Path) -> dict[str, Any]:
    spent = _spent("quartet", *_grade(root), root=root, told=WARM)
    return spent | {"points": {row.learner: _points(row) for row in Store(root / "graded").rows()}}


def _points(row: Row) -> float:
    return sum(result["points"] for result in row.grade["results"])


def _grade(root: Path) -> tuple[str, ...]:
    return "grade", str(root / "submitted"), "--out", str(root / "graded")


def thousand(lesson: str, track: str, size: int) -> dict[str, Any]:
    """Grade many small submissions; kill the command when half of them are done, and resume.

    Returns
    -------
    How many there were, were `kept` by the command that was killed, were `lost` or graded `twice`
    in the end; `seconds` of both commands; `peak_mib` of all their processes; and of the grading
    process alone, when a tenth was done (`early_mib`) and at its peak (`late_mib`).

    Raises
    ------
    QuartetError if the command fails.
    """
    with tempfile.TemporaryDirectory(prefix="quartet-") as name:
        root = Path(name)
        _hand_in_small(root, lesson, track, size)
        Store(root / "graded")  # so that what is done can be counted from the start
        with _Command("quartet", *_grade(root), root=root, told=WARM) as first:
            while first.alive() and _done(root) < size // 2:
                time.sleep(0.1)
        kept = {row.key: row.grade for row in _rows(root)}
        with _Command("quartet", *_grade(root), root=root, told=WARM) as second:
            while second.alive() and _done(root) < len(kept) + size // 10:
                time.sleep(0.1)
            early = second.own_peak
            second.finish()
        done = {row.key: row.grade for row in _rows(root)}
    return {
        "submissions": size,
        "kept": len(kept),
        "lost": size - len(done),
        "twice": sum(done[key] != grade for key, grade in kept.items()),
        "seconds": round(first.seconds + second.seconds, 1),
        "peak_mib": round(max(first.peak, second.peak) / MIB),
        "early_mib": round(early / MIB),
        "late_mib": round(second.own_peak / MIB),
    }


def _hand_in_small(root: Path, lesson: str, track: str, size: int) -> None:
    """Write notebooks with one exercise answered, every other one by a name that is missing."""
    solved = {cell.id: cell.source for cell in nbformat.read(solution(lesson, track), 4).cells}
    notebook = handed_out(lesson, track)
    cell = next(each for each in notebook.cells if is_answer(each))
    for number in range(size):
        folder = root / "submitted" / f"learner_{number:04}"
        folder.mkdir(parents=True)
        cell.source = solved[cell.id] if number % 2 else "undefined"
        nbformat.write(notebook, folder / f"{lesson}.ipynb")


def _rows(root: Path) -> list[Row]:
    return Store(root / "graded").rows()


def _done(root: Path) -> int:
    with contextlib.closing(sqlite3.connect(root / "graded" / NAME)) as connection:
        return connection.execute("SELECT count(*) FROM submission").fetchone()[0]


def _spent(*command: str, root: Path, told: Mapping[str, str]) -> dict[str, Any]:
    """Run a command from a cold start; return its seconds and its peak memory."""
    with _Command(*command, root=root, told=told) as run:
        run.finish()
    return {"seconds": round(run.seconds, 2), "peak_mib": round(run.peak / MIB)}


class _Command:
    """A command of this environment, from a cold start, and the memory in bytes that it takes.

    `peak` counts it, what it started, and the warm processes; `own_peak` it alone.
    """

    def __init__(self, *command: str, root: Path, told: Mapping[str, str]) -> None:
        for status in client.running():
            with contextlib.suppress(OSError):  # it has ended by itself since
                client.stop(status.socket)
        self.name = " ".join(command[:2])
        self.peak = self.own_peak = 0
        self.seconds = 0.0
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._begin = time.perf_counter()
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            cwd=root, env=os.environ | told,
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Command:
        self._watcher.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._process.kill()
        self._process.wait()
        self.seconds = time.perf_counter() - self._begin
        self._watcher.join()
        self._said.close()

    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> None:
        """Wait for it; QuartetError if it failed."""
        if self._process.wait():
            self._said.seek(0)
            raise QuartetError(f"{self.name} failed: {self._said.read()[-1500:]}")

    def _watch(self) -> None:
        pid = self._process.pid
        while self.alive():
            warm = [status.pid for status in client.running()]
            self.peak = max(self.peak, sum(memory(each) for each in (pid, *warm)))
            with contextlib.suppress(psutil.Error):
                self.own_peak = max(self.own_peak, psutil.Process(pid).memory_info().rss)
            time.sleep(0.5)
