"""Every solution passes its check, in every track (test_untouched: and no untouched exercise)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quartet.executed import executed
from quartet.grading import release, worker
from quartet.source import lesson_names
from utils import checks
from utils.tracks import ROOT, TRACKS

LESSONS = lesson_names()
CASES = [(lesson, track) for lesson in LESSONS for track in TRACKS]


def results(folder: str, track: str, lesson: str) -> dict[str, dict[str, Any]]:
    """Return exercise -> what its check cell in an executed notebook carries."""
    notebook = executed(ROOT / folder / track / f"{lesson}.ipynb")
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    found = [o.data[checks.MIME] for o in outputs if checks.MIME in o.get("data", {})]
    return {entry["exercise"]: entry for entry in found}


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "track"), CASES)
def test_solutions_pass(lesson: str, track: str) -> None:
    found = results("solutions", track, lesson)
    for name, exercise in checks.load_exercises(lesson).items():
        assert found[name]["points"] == exercise.points, found[name]["messages"]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_grader_gives_a_solution_all_points_and_can_hand_the_lesson_out(lesson: str) -> None:
    # One track each, in turn: what differs from the notebook's own check is the way of the cases.
    track = list(TRACKS)[LESSONS.index(lesson) % len(TRACKS)]
    solved = worker.solution(lesson, track).read_bytes()
    grade = worker.grade(solved, lesson, track, seed=2**31, sandbox=False)
    short = [each for each in grade["results"] if each["points"] < each["max_points"]]
    assert not grade["problem"] and not short
    assert release.cases(lesson) and release.outline(lesson)


def inputs(exercise: checks.Exercise, seed: int) -> list[bytes]:
    """Return the bytes of every argument of every case made from a seed."""
    cases = exercise.cases(np.random.default_rng(seed))
    return [np.asarray(value).tobytes() for case in cases for value in case.args.values()]


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_exercise_has_hints_and_other_numbers_for_another_seed(lesson: str) -> None:
    for exercise in checks.load_exercises(lesson).values():
        assert len(exercise.hints) >= 2 and all(exercise.hints)
        assert inputs(exercise, 1) == inputs(exercise, 1) != inputs(exercise, 2), exercise.name


def test_lesson_03_is_worth_ten_points() -> None:
    exercises = checks.load_exercises("03_dense_layers").values()
    assert len(exercises) == 5 and sum(exercise.points for exercise in exercises) == 10
