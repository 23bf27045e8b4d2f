"""Exercises: declare them once for four tracks, run a learner's function, show the points.

A lesson's `checks.py` holds `EXERCISES`, a list of `Exercise`. Each makes its `Case`s from a random
generator, so that a grader can ask with other numbers than the notebook. Calling (`call`) and
judging (`judge`) are separate steps: only arrays pass from the one to the other.
"""

from __future__ import annotations

import html
import importlib.util
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils import wire
from utils.limits import limited
from utils.tables import table
from utils.tracks import ROOT, TRACKS, Track

MIME = "application/vnd.quartet.check+json"
SELF_CHECK_SEED = 0
# What the first call may use beyond the exercise's limit, since a framework compiles then: five
# times what the dearest official solution of a small limit took for it, on two slow cores.
COMPILE_SECONDS = 10
# What comparing a result may raise that is not of the kind that was asked for.
WRONG_KIND = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
CASES = "cases.bin"  # in a lesson's folder, instead of checks.py: see quartet/grading/release.py
NBGRADER = "NBGRADER_EXECUTION"  # set by nbgrader, to "autograde" or "validate"
MOST_LINES = 3  # of a traceback


@dataclass(frozen=True)
class Verdict:
    """How right one answer is, from 0 to 1, and what to tell who gave it."""

    score: float
    message: str = ""


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    `args` go in by position, NumPy arrays as the track's tensors, all else as it is. The result is
    compared with `expected`, or given to `judge` where more than one answer is right. `weight` is
    the case's share of the exercise's points; `about` says what it tries.
    """

    args: dict[str, Any]
    expected: Any = None
    judge: Callable[[Any], Verdict] | None = None
    weight: float = 1
    about: str = ""


@dataclass(frozen=True)
class Exercise:
    """A task stated once for all tracks.

    `cases` makes the cases from a random generator. `hints` is a ladder: one more step of it is
    shown after each failed attempt. `seconds` limits each call, as `limit` says. `mistake` may look
    at a case and a wrong result of the right kind and name the likely reason.
    """

    name: str
    points: float
    cases: Callable[[np.random.Generator], list[Case]]
    hints: tuple[str, ...]
    seconds: float = 5
    tolerance: float = 1e-5
    mistake: Callable[[Case, np.ndarray], str | None] = lambda case, got: None

    def limit(self, first: bool) -> float:
        """Return the time limit of a call: with COMPILE_SECONDS for the first one in a process."""
        return self.seconds + COMPILE_SECONDS if first else self.seconds


@dataclass(frozen=True)
class Answer:
    """What came of one call: a value (arrays and plain Python only), or why there is none.

    `unwritten`: the exercise is as it was handed out. `uncalled`: there was nothing to call.
    """

    value: Any = None
    problem: str = ""
    unwritten: bool = False
    uncalled: bool = False


@dataclass(frozen=True)
class Result:
    """The outcome of one exercise; a notebook shows it as HTML, a terminal as text."""

    exercise: str
    points: float
    max_points: float
    lines: tuple[tuple[bool, str], ...]
    hint: str = ""

    @property
    def passed(self) -> bool:
        return self.points == self.max_points

    def __repr__(self) -> str:
        marks = [f"  {'ok  ' if ok else 'FAIL'} {text}" for ok, text in self.lines]
        hint = [f"  Hint: {self.hint}"] if self.hint else []
        return "\n".join([self._headline(), *marks, *hint])

    def _headline(self) -> str:
        return f"{self.exercise}: {self.points:g} of {self.max_points:g} points"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        summary = {
            "exercise": self.exercise,
            "points": self.points,
            "max_points": self.max_points,
            "messages": [text for ok, text in self.lines if not ok],
        }
        return {"text/plain": repr(self), "text/html": _html(self), MIME: summary}


@dataclass
class Checker:
    """Checks the exercises of one lesson in one track, and remembers attempts for the hints."""

    lesson: str
    track: Track
    exercises: dict[str, Exercise]
    failures: Counter[str] = field(default_factory=Counter)
    results: dict[str, Result] = field(default_factory=dict)

    def __call__(self, name: str, function: Callable) -> Result | float:
        """Run a learner's function on the cases of an exercise and say how it went.

        Raises
        ------
        ValueError if the lesson has no exercise of that name.
        """
        if name not in self.exercises:
            known = ", ".join(self.exercises)
            raise ValueError(f"Lesson {self.lesson} has no exercise {name!r}. It has: {known}.")
        exercise, asked = self.exercises[name], []

        def ask(case: Case) -> Answer:
            asked.append(case)
            return call(function, case, self.track, exercise.limit(first=len(asked) == 1))

        result = run(exercise, ask, SELF_CHECK_SEED, self._next_hint(exercise))
        if result.hint:
            self.failures[name] += 1
        self.results[name] = result
        return result if NBGRADER not in os.environ else _for_nbgrader(result)

    def _next_hint(self, exercise: Exercise) -> str:
        step = min(self.failures[exercise.name], len(exercise.hints) - 1)
        return f"({step + 1} of {len(exercise.hints)}) {exercise.hints[step]}"

    def summary(self) -> Any:
        """Return a table of the points reached so far, exercise by exercise."""
        rows = [[name, *self._points(name)] for name in self.exercises]
        got, most = (sum(row[i] for row in rows) for i in (1, 2))
        shown = [[name, f"{a:g}", f"{b:g}"] for name, a, b in [*rows, ("**all**", got, most)]]
        return table(["exercise", "points", "of"], shown)

    def _points(self, name: str) -> tuple[float, float]:
        most = self.exercises[name].points
        return (self.results[name].points if name in self.results else 0), most


def _for_nbgrader(result: Result) -> float:
    """Return the points, which nbgrader takes as partial credit; raise if it is to count none.

    Raises
    ------
    AssertionError with the messages: if there are no points, or if nbgrader validates and some are
        missing.
    """
    if not result.points or (os.environ[NBGRADER] == "validate" and not result.passed):
        raise AssertionError(repr(result))
    print(repr(result))
    return float(result.points)


def load(lesson: str, track: str) -> Checker:
    """Return the checker for a lesson's exercises.

    Parameters
    ----------
    lesson : the lesson's folder name, such as "03_dense_layers".
    track : "keras", "pytorch", "tensorflow" or "jax".
    """
    return Checker(lesson, TRACKS[track], load_exercises(lesson))


def load_exercises(lesson: str) -> dict[str, Exercise]:
    """Return name -> exercise, as the lesson's checks.py declares them.

    A copy of the course that was handed out to a class has no checks.py, but a file of `CASES`.

    Raises
    ------
    FileNotFoundError if there is no such lesson or it has neither.
    """
    folder = ROOT / "lessons" / lesson
    path = folder / "checks.py"
    if not path.is_file() and (folder / CASES).is_file():
        return _handed_out(folder / CASES)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: is {lesson!r} the lesson's folder name?")
    spec = importlib.util.spec_from_file_location(f"checks_{lesson}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return {exercise.name: exercise for exercise in module.EXERCISES}


def _handed_out(path: Path) -> dict[str, Exercise]:
    """Return the exercises in a file of cases: always the same ones, from whatever seed."""
    with path.open("rb") as stream:
        found = wire.receive(stream.read)
    exercises = {}
    for name, about in found.items():
        cases = [Case(**each) for each in about.pop("cases")]
        exercises[name] = Exercise(name=name, cases=lambda rng, cases=cases: cases, **about)
    return exercises


def run(exercise: Exercise, ask: Callable[[Case], Answer], seed: int, hint: str = "") -> Result:
    """Ask for the answer to every case of an exercise and add up the points.

    Parameters
    ----------
    ask : calls the learner's function with the arguments of a case, here or in another process.
    seed : what the cases are made from; the notebook and the grader use different ones.
    hint : shown if an answer was given and it is not right.
    """
    cases = exercise.cases(np.random.default_rng(seed))
    if not cases:
        line = (False, "this answer is checked when it is handed in")
        return Result(exercise.name, 0, exercise.points, (line,))
    scored = []
    for case in cases:
        answer = ask(case)
        scored.append((case, answer, judge(exercise, case, answer)))
        if answer.unwritten or answer.uncalled or "time limit" in answer.problem:
            break  # the other cases would only say the same, or take as long again
    weights = sum(case.weight for case in cases)
    earned = sum(case.weight * verdict.score for case, _, verdict in scored)
    lines = tuple(_line(exercise, case, answer, verdict) for case, answer, verdict in scored)
    points = round(exercise.points * earned / weights, 2)
    attempted = not scored[-1][1].unwritten
    return Result(
        exercise=exercise.name,
        points=points,
        max_points=exercise.points,
        lines=lines,
        hint=hint if attempted and points < exercise.points else "",
    )


def call(
    function: Callable,
    case: Case,
    track: Track,
    seconds: float,
    deaf: Callable[[], None] = lambda: None,
) -> Answer:
    """Call a learner's function with native tensors; return its result as NumPy arrays.

    Never raises what the function raises: a problem comes back as text. `seconds` and `deaf` are
    those of `limits.limited`.
    """
    if not callable(function):
        return Answer(problem=f"this is not a function but {type(function).__name__}")
    args = [track.to_native(a) if isinstance(a, np.ndarray) else a for a in case.args.values()]
    try:
        return Answer(value=limited(lambda: _to_plain(function(*args), track), seconds, deaf))
    except NotImplementedError:
        return Answer(
            problem="it is not written yet: replace the stub by your code", unwritten=True
        )
    except TimeoutError as error:
        return Answer(problem=str(error))
    except (Exception, SystemExit) as error:
        return Answer(problem=_describe(error, function))


def _to_plain(value: Any, track: Track) -> Any:
    """Turn tensors into NumPy arrays, also inside of tuples and lists; leave None and text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_to_plain(item, track) for item in value)
    return np.asarray(track.to_numpy(value))


def _describe(error: BaseException, function: Callable) -> str:
    """Say what was raised and in which lines of the learner's own code."""
    own = getattr(getattr(function, "__code__", None), "co_filename", "")
    return f"it raised {type(error).__name__}: {_short(str(error))}{own_lines(error, own)}"


def own_lines(error: BaseException, file: str = "") -> str:
    """Return the traceback cut to the lines of cells and of a file, in brackets; "" if there are
    none. The innermost is the last; those of functions that were called say which."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file or "ipykernel_" in frame.filename or "<ipython" in frame.filename
    ]
    lines = [
        f"line {frame.lineno}{f' of {_short(frame.name, 40)}' if depth else ''}: "
        f"`{_short(frame.line or '', 100)}`"
        for depth, frame in list(enumerate(frames))[-MOST_LINES:]
    ]
    return f" ({', then '.join(lines)})" if lines else ""


def judge(exercise: Exercise, case: Case, answer: Answer) -> Verdict:
    """Compare one answer with what is right; needs nothing of the learner's code."""
    if answer.problem:
        return Verdict(0, answer.problem)
    if answer.value is None:
        return Verdict(0, "it returned None: is there a `return` at its end?")
    try:
        return case.judge(answer.value) if case.judge else _compare(exercise, case, answer.value)
    except WRONG_KIND as error:
        return Verdict(0, f"its result is of the wrong kind: {_short(str(error))}")


def misfit(value: Any, expected: tuple[np.ndarray, ...], likely: str) -> Verdict | None:
    """Return a verdict where a value is not as many finite arrays of the expected shapes.

    likely: what is said of NaN and infinity, such as their usual cause.
    """
    if not isinstance(value, tuple) or len(value) != len(expected):
        return Verdict(0, f"return {len(expected)} things")
    shapes = [np.shape(each) for each in value], [np.shape(each) for each in expected]
    if shapes[0] != shapes[1]:
        return Verdict(0, f"got shapes {shapes[0]}, expected {shapes[1]}")
    if not all(np.all(np.isfinite(each)) for each in value):
        return Verdict(0, f"got NaN or infinity: {likely}")
    return None


def _compare(exercise: Exercise, case: Case, value: Any) -> Verdict:
    expected = np.asarray(case.expected)
    if isinstance(value, (tuple, str)):
        return Verdict(0, f"got a {type(value).__name__}, expected an array {expected.shape}")
    if value.shape != expected.shape:
        problem = f"got shape {value.shape}, expected {expected.shape}"
    elif not np.all(np.isfinite(value)):
        problem = "got NaN or infinity among the values"
    elif np.iscomplexobj(value) and not np.iscomplexobj(expected):
        problem = f"got complex numbers ({value.dtype}), expected {expected.dtype}"
    elif np.allclose(value, expected, rtol=exercise.tolerance, atol=exercise.tolerance):
        return Verdict(1)
    else:
        problem = _worst(value, expected)
    why = _why(exercise, case, value)
    return Verdict(0, f"{problem}: {why}" if why else problem)


def _why(exercise: Exercise, case: Case, value: np.ndarray) -> str | None:
    try:
        return exercise.mistake(case, value)
    except WRONG_KIND:
        return None  # it compares with values of the right shape, and this shape did not fit


def _worst(value: np.ndarray, expected: np.ndarray) -> str:
    """Name the element that is furthest off, with both values."""
    gap = np.abs(np.subtract(value, expected, dtype=np.float64))
    at = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    where = f" at index {at}" if at else ""
    got, right = float(value[at]), float(expected[at])  # truth values have no digits
    digits = 9 if f"{got:.6g}" == f"{right:.6g}" else 6
    return f"got {got:.{digits}g}{where}, expected {right:.{digits}g}"


def _line(exercise: Exercise, case: Case, answer: Answer, verdict: Verdict) -> tuple[bool, str]:
    """Return whether a case is fully right, and its line of text."""
    about = f"{case.about}: " if case.about else ""
    if verdict.score == 1:
        return True, about + (verdict.message or "right")
    if answer.unwritten or answer.uncalled:
        return False, verdict.message
    args = ", ".join(f"{name}: {_show(value)}" for name, value in case.args.items())
    return False, f"{about}called {exercise.name}({args}); {verdict.message}"


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return _short(repr(value), 60)


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _html(result: Result) -> str:
    color = "#009E73" if result.passed else "#D55E00"
    rows = "".join(
        f"<li>{'✓' if ok else '✗'} {html.escape(text)}</li>" for ok, text in result.lines
    )
    hint = f"<p><b>Hint</b> {html.escape(result.hint)}</p>" if result.hint else ""
    return (
        f'<div style="border-left: 4px solid {color}; padding: 0.3em 1em">'
        f"<b>{html.escape(result._headline())}</b>"
        f'<ul style="list-style: none; padding-left: 0">{rows}</ul>{hint}</div>'
    )
