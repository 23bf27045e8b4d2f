"""Grade one submission: what a thread, or a worker of a cluster, is given and gives back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from quartet import QuartetError
from quartet.exercises import original
from quartet.grading import judge, submission
from quartet.grading.session import Process, start_clean, start_locked
from utils import checks
from utils.tracks import ROOT


def grade(data: bytes, lesson: str, track: str, seed: int, sandbox: bool = True) -> dict[str, Any]:
    """Return the grade of a notebook as JSON values; whatever its code does, this returns.

    Parameters
    ----------
    data : the notebook's file.
    seed : what the inputs are made from.
    sandbox : False runs the learner's code with all rights of whoever grades.

    Returns
    -------
    `results` with points and messages of each exercise, `remarks` on what was mended, `answers`
    with the learner's code, `problem` where there is no grade, and `seconds`.

    Raises
    ------
    QuartetError if there is no sandbox to be had.
    """
    begin = time.perf_counter()
    exercises = checks.load_exercises(lesson)
    start: Callable[[str, Path], Process] = start_locked if sandbox else start_clean
    try:
        handed_in = submission.parse(data, "the notebook")
        mine = submission.assemble(handed_in, handed_out(lesson, track))
        with tempfile.TemporaryDirectory(prefix="quartet-") as folder:
            graded = judge.grade(mine, exercises, Path(folder), seed, start)
    except submission.Unreadable as error:
        return refuse(lesson, str(error))
    except QuartetError:
        raise
    except Exception as error:  # one submission must not keep the others from being graded
        return refuse(lesson, f"the grader itself failed on it: {error!r}")
    results = [_plain(result) for result in graded.results]
    about = {"results": results, "remarks": list(graded.remarks), "answers": mine.answers}
    return about | {"problem": "", "seconds": round(time.perf_counter() - begin, 2)}


def handed_out(lesson: str, track: str) -> nbformat.NotebookNode:
    """Return an exercise notebook as it was handed out."""
    return original(nbformat.read(solution(lesson, track), as_version=4))


def solution(lesson: str, track: str) -> Path:
    """Return where the solution notebook is."""
    return ROOT / "solutions" / track / f"{lesson}.ipynb"


def refuse(lesson: str, problem: str) -> dict[str, Any]:
    """Return a grade of no points for a notebook that cannot be graded, as `grade` does."""
    empty = [
        {"exercise": each.name, "points": 0, "max_points": each.points, "lines": []}
        for each in checks.load_exercises(lesson).values()
    ]
    return {"results": empty, "remarks": [], "answers": {}, "problem": problem, "seconds": 0.0}


def _plain(result: checks.Result) -> dict[str, Any]:
    return {
        "exercise": result.exercise,
        "points": result.points,
        "max_points": result.max_points,
        "lines": [[ok, text] for ok, text in result.lines],
    }
