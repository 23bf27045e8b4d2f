"""Judge a submission: choose the inputs, have the learner's functions called, count the points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from quartet.grading.session import Process, Session, start
from quartet.grading.submission import Submission
from utils.checks import Answer, Case, Exercise, Result, run


@dataclass(frozen=True)
class Grade:
    """The results of one submission, exercise by exercise, and what was mended or went wrong."""

    lesson: str
    track: str
    results: tuple[Result, ...]
    remarks: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        return sum(result.points for result in self.results)

    @property
    def max_points(self) -> float:
        return sum(result.max_points for result in self.results)


def grade(
    submission: Submission,
    exercises: Mapping[str, Exercise],
    folder: Path,
    seed: int,
    start: Callable[[str, Path], Process] = start,
    on_exercise: Callable[[], None] = lambda: None,
) -> Grade:
    """Return the grade of a submission; whatever its code does, this returns.

    Parameters
    ----------
    folder : where the learner's process runs.
    seed : what the inputs are made from.
    start : starts the learner's process, in a sandbox or not.
    on_exercise : called after each exercise.
    """
    session, results = Session(submission, folder, start), []
    try:
        for exercise in exercises.values():
            results.append(_result(session, exercise, seed))
            on_exercise()
    finally:
        session.close()
    return Grade(submission.lesson, submission.track, tuple(results), submission.remarks)


def _result(session: Session, exercise: Exercise, seed: int) -> Result:
    def ask(case: Case) -> Answer:
        return session.ask(exercise, case)

    return run(exercise, ask, seed)
