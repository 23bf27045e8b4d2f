"""Checks: points, messages and hints for right, wrong and crashing answers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from utils import checks
from utils.checks import Case, Checker, Exercise, Verdict
from utils.tracks import TRACKS

NUMPY = type("NumPyTrack", (), {"to_native": staticmethod(np.array), "to_numpy": np.asarray})()


def double_cases(rng: np.random.Generator) -> list[Case]:
    small, large = rng.standard_normal((2, 3)), rng.standard_normal((4, 3)) + 100
    return [
        Case({"x": small, "by": 2.0}, expected=small * 2.0, about="small"),
        Case({"x": large, "by": 3.0}, expected=large * 3.0, about="large", weight=3),
    ]


SCALE = Exercise(
    name="scale",
    points=4,
    cases=double_cases,
    hints=("first", "second"),
    mistake=lambda case, got: "you added" if np.allclose(got, case.args["x"] + 2) else None,
)


@pytest.fixture
def check() -> Checker:
    return Checker("00_test", NUMPY, {"scale": SCALE})


def asked(exercise: Exercise, function: Callable) -> Callable[[Case], checks.Answer]:
    """Return what `checks.run` asks: the function itself, called here."""
    return lambda case: checks.call(function, case, NUMPY, exercise.seconds)


def text(result: checks.Result) -> str:
    return repr(result)


def test_a_right_answer_gets_all_points_and_no_hint(check: Checker) -> None:
    result = check("scale", lambda x, by: x * by)
    assert result.passed and result.points == 4 and not result.hint


def test_a_wrong_answer_is_told_the_call_the_value_and_the_likely_mistake(check: Checker) -> None:
    result = check("scale", lambda x, by: x + 2)
    assert result.points == 0
    assert "called scale(x: (2, 3) float64, by: 2.0)" in text(result)
    assert "expected" in text(result) and "you added" in text(result)


def test_a_wrong_shape_names_both_shapes(check: Checker) -> None:
    assert "got shape (3, 2), expected (2, 3)" in text(check("scale", lambda x, by: (x * by).T))


def test_a_partly_right_answer_gets_its_share(check: Checker) -> None:
    result = check("scale", lambda x, by: x * 3)
    assert result.points == 3 and "ok   large" in text(result) and "FAIL small" in text(result)


def test_a_crash_names_the_error_and_the_line(check: Checker) -> None:
    def crash(x, by):
        return x @ by.missing

    result = check("scale", crash)
    assert "it raised AttributeError" in text(result) and "return x @ by.missing" in text(result)
    assert result.points == 0 and "Hint: (1 of 2) first" in text(result)


@pytest.mark.parametrize("how", [SystemExit, KeyError, RecursionError, MemoryError])
def test_no_exception_escapes(check: Checker, how: type[BaseException]) -> None:
    def leave(x, by):
        raise how("done")

    assert f"it raised {how.__name__}" in text(check("scale", leave))


def test_none_asks_for_a_return(check: Checker) -> None:
    assert "is there a `return`" in text(check("scale", lambda x, by: None))


def test_the_stub_is_not_an_attempt(check: Checker) -> None:
    def stub(x, by):
        raise NotImplementedError

    result = check("scale", stub)
    assert "not written yet" in text(result) and not result.hint and check.failures["scale"] == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a text", "got a str"),
        ((1, 2), "got a tuple"),
        (np.full((2, 3), np.nan), "NaN or infinity"),
        (np.full((2, 3), "a"), "wrong kind"),
        (object(), "shape ()"),
    ],
)
def test_odd_results_get_a_message(check: Checker, value: object, message: str) -> None:
    assert message in text(check("scale", lambda x, by: value))


def test_something_else_than_a_function(check: Checker) -> None:
    assert "not a function but int" in text(check("scale", 3))


def test_the_hints_climb_one_step_for_each_failure(check: Checker) -> None:
    hints = [check("scale", lambda x, by: x).hint for _ in range(3)]
    assert hints == ["(1 of 2) first", "(2 of 2) second", "(2 of 2) second"]


def test_an_unknown_exercise_lists_the_known_ones(check: Checker) -> None:
    with pytest.raises(ValueError, match="has no exercise 'scales'. It has: scale."):
        check("scales", abs)


def test_the_arguments_are_copies(check: Checker) -> None:
    def in_place(x, by):
        x *= by
        return x

    assert check("scale", in_place).passed and check("scale", in_place).passed


def test_html_escapes_what_the_learner_controls(check: Checker) -> None:
    def hostile(x, by):
        raise ValueError("<script>alert(1)</script>")

    bundle = check("scale", hostile)._repr_mimebundle_()
    assert "<script>" not in bundle["text/html"] and "&lt;script&gt;" in bundle["text/html"]
    assert bundle[checks.MIME]["points"] == 0 and bundle[checks.MIME]["messages"]


def test_the_summary_adds_up(check: Checker) -> None:
    check("scale", lambda x, by: x * 3)
    assert "| **all** | 3 | 4 |" in check.summary().data


def test_a_judge_may_give_part_of_the_points() -> None:
    judged = Exercise(
        "half", 2, lambda rng: [Case({"x": 1}, judge=lambda v: Verdict(0.5, "half"))], ("hint",)
    )
    assert checks.run(judged, asked(judged, lambda x: 1), seed=0).points == 1


def test_an_unknown_lesson_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="99_nothing"):
        checks.load_exercises("99_nothing")


# What the exercises of lesson 03 say to the usual mistakes, by NumPy: name -> (answer, message).
MISTAKES = {
    "no relu": ("dense_forward", lambda x, W, b: x @ W + b, "the ReLU is missing"),
    "no bias": ("dense_forward", lambda x, W, b: np.maximum(x @ W, 0), "the bias is missing"),
    "late bias": ("dense_forward", lambda x, W, b: np.maximum(x @ W, 0) + b, "before the ReLU"),
    "swapped": ("dense_forward", lambda x, W, b: W.T @ x.T, "in that order"),
    "biases forgotten": (
        "parameter_count",
        lambda sizes, bias: sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True)),
        "the biases are missing",
    ),
    "sum for mean": (
        "cross_entropy_gradient",
        lambda z, y: np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(z.shape[1])[y],
        "divide by the number of examples",
    ),
    "overflow": (
        "cross_entropy_gradient",
        lambda z, y: (np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(z.shape[1])[y]) / len(z),
        "subtract each row's largest logit",
    ),
    "mixed pixels": (
        "class_scores",
        lambda images, W, b: images.reshape(784, -1).T @ W + b,
        "which axis holds the examples",
    ),
    "one layer only": ("deeper", lambda X, y, Z: (np.zeros(2000), [(784, 10)]), "need three"),
    "labels only": ("deeper", lambda X, y, Z: np.zeros(2000), "return two things"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("which", MISTAKES)
def test_lesson_03_names_the_usual_mistakes(which: str) -> None:
    name, answer, message = MISTAKES[which]
    exercise = checks.load_exercises("03_dense_layers")[name]
    result = checks.run(exercise, asked(exercise, answer), seed=1)
    assert message in text(result) and not result.passed


def test_a_missing_relu_never_earns_a_point() -> None:
    """Each case has an output that the ReLU changes, whatever the seed."""
    exercise = checks.load_exercises("03_dense_layers")["dense_forward"]
    for seed in range(100):
        assert checks.run(exercise, asked(exercise, lambda x, W, b: x @ W + b), seed).points == 0


@pytest.mark.parametrize("track", TRACKS)
def test_arrays_survive_the_way_through_each_framework(track: str) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    native = TRACKS[track].to_native(array)
    assert not isinstance(native, np.ndarray)
    back = TRACKS[track].to_numpy(native)
    assert back.dtype == np.float32 and np.array_equal(back, array)


def test_checks_do_not_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building loads every checks.py, so importing the module must stay quick."""
    import subprocess

    code = "import sys, utils.checks; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(2), "return 2 things"),
        ((np.zeros(2),), "return 2 things"),
        ((np.zeros(2), np.zeros(2)), "got shapes [(2,), (2,)], expected [(2,), ()]"),
        ((np.array([np.nan, 0]), np.zeros(())), "got NaN or infinity: too fast?"),
        ((np.ones(2), np.ones(())), None),
    ],
)
def test_what_is_no_tuple_of_finite_arrays_is_told(value: object, said: str | None) -> None:
    found = checks.misfit(value, (np.zeros(2), np.zeros(())), "too fast?")
    assert (found and found.message) == said and (found is None or found.score == 0)
