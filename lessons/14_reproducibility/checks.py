"""What a right answer is in the exercises on reproducibility: one reference for all tracks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from utils.checks import Case, Exercise, Verdict


def differing_bits(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many elements of two float32 arrays have different bits."""
    return int((a.view(np.int32) != b.view(np.int32)).sum())


def bits_cases(rng: np.random.Generator) -> list[Case]:
    def case(a: np.ndarray, b: np.ndarray, about: str) -> Case:
        return Case({"a": a, "b": b}, expected=differing_bits(a, b), about=about)

    a = rng.standard_normal((20, 30)).astype(np.float32)
    some = rng.random(a.shape) < 0.2
    zeros = np.zeros(8, np.float32)
    signed = np.where(rng.permutation(8) < 3, np.float32(-0.0), np.float32(0.0))
    holes = np.where(rng.random(a.shape) < 0.1, np.float32("nan"), a)
    return [
        case(a, a.copy(), "equal arrays"),
        case(a, np.where(some, np.nextafter(a, np.float32(9)), a), "one bit here and there"),
        case(zeros, signed, "zeros with a sign"),
        case(holes, holes.copy(), "the same NaN in both"),
        case(a[:1, :1], a[:1, :1] + 1, "a single number"),
    ]


def bits_mistake(case: Case, got: np.ndarray) -> str | None:
    a, b = case.args["a"], case.args["b"]
    if got == (a != b).sum():
        return "this compares values: 0.0 == -0.0, and NaN != NaN. Compare the bits"
    if got == (~np.isclose(a, b)).sum():
        return "close is not equal: here one bit counts"
    if got == a.size - case.expected:
        return "these are the equal ones"
    return None


def best_interval(save_seconds: float, failure_seconds: float) -> float:
    """Return the T that makes c / T + T / (2 M) smallest: sqrt(2 c M), after Young (1974)."""
    return math.sqrt(2 * save_seconds * failure_seconds)


def interval_cases(rng: np.random.Generator) -> list[Case]:
    drawn = [float(f"{value:.3g}") for value in (rng.uniform(1, 60), rng.uniform(1e4, 1e6))]
    pairs = {
        "five seconds, once in a day": (5.0, 86400.0),
        "a minute, once in two hours": (60.0, 7200.0),
        "other numbers": drawn,
    }
    return [
        Case({"save_seconds": c, "failure_seconds": m}, expected=best_interval(c, m), about=about)
        for about, (c, m) in pairs.items()
    ]


def interval_mistake(case: Case, got: np.ndarray) -> str | None:
    c, m = case.args.values()
    if np.isclose(got, math.sqrt(c * m)):
        return "the lost work is half an interval on average, so a 2 stands under the root"
    if np.isclose(got, 2 * c * m):
        return "the derivative is -c / T² + 1 / (2 M): the root is missing"
    if np.isclose(got, math.sqrt(2 * c / m)):
        return "this is the share of time that is lost; the interval itself was asked for"
    return None


class OrdersJudge:
    """Judges rows of permutations, one for each (seed, epoch)."""

    def __init__(self, n: int, pairs: list[tuple[int, int]]) -> None:
        self.n, self.pairs = n, pairs

    def __call__(self, value: Any) -> Verdict:
        rows = np.asarray(value)
        if rows.shape != (len(self.pairs), self.n):
            shape = (len(self.pairs), self.n)
            return Verdict(0, f"got shape {rows.shape}, expected {shape}: one row for each pair")
        if not all(np.array_equal(np.sort(row), np.arange(self.n)) for row in rows):
            return Verdict(0, f"a row is no permutation of the numbers from 0 to {self.n - 1}")
        for i, one in enumerate(self.pairs):
            for j in range(i):
                if problem := self._problem(one, self.pairs[j], np.array_equal(rows[i], rows[j])):
                    return Verdict(0, problem)
        return Verdict(1)

    @staticmethod
    def _problem(one: tuple[int, int], other: tuple[int, int], same: bool) -> str | None:
        if one == other and not same:
            return f"the pair {one} gave two different rows: something else than the pair decides"
        if one != other and same:
            why = ": their sums are equal" if sum(one) == sum(other) else ""
            return f"the pairs {other} and {one} gave the same row{why}"
        return None


def orders_cases(rng: np.random.Generator) -> list[Case]:
    seed = int(rng.integers(10, 1000))
    sets = {
        "the same pair again": [(seed, 3), (seed, 0), (seed, 3)],
        "several epochs": [(seed, epoch) for epoch in range(5)],
        "another seed, another epoch": [(seed, 1), (seed + 1, 0), (1, seed), (0, seed + 1)],
        "a late epoch": [(seed, 10_000), (seed, 0), (seed, 10_000)],
    }
    return [
        Case({"n": 60, "pairs": pairs}, judge=OrdersJudge(60, pairs), about=about)
        for about, pairs in sets.items()
    ]


def go_on(W: np.ndarray, velocity: np.ndarray, step: int, grads: np.ndarray) -> np.ndarray:
    """Return W after the steps that are left: v = 0.9 v + g, W = W - 0.1 / (1 + step) v."""
    for i, g in enumerate(grads):
        velocity = 0.9 * velocity + g
        W = W - 0.1 / (1 + step + i) * velocity
    return W


def go_on_cases(rng: np.random.Generator) -> list[Case]:
    def case(d: int, step: int, left: int, about: str) -> Case:
        W, velocity = rng.standard_normal((2, d)).astype(np.float32)
        grads = rng.standard_normal((left, d)).astype(np.float32)
        args = {"W": W, "velocity": velocity, "step": step, "grads": grads}
        return Case(args, expected=go_on(**args), about=about)

    return [
        case(4, 10, 5, "stopped after ten steps"),
        case(3, 1, 1, "one step before, one after"),
        case(6, 50, 20, "stopped late"),
    ]


def go_on_mistake(case: Case, got: np.ndarray) -> str | None:
    W, velocity, step, grads = case.args.values()
    wrong = {
        "the velocity begins again at zero": go_on(W, velocity * 0, step, grads),
        "the rate begins again with step 0": go_on(W, velocity, 0, grads),
        "velocity and rate both begin again": go_on(W, velocity * 0, 0, grads),
        "the rate is one step off: `step` steps are already taken": go_on(
            W, velocity, step + 1, grads
        ),
    }
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-5):
            return reason
    return None


def what_differs(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the sorted paths at which two nested dictionaries differ."""
    paths = []
    for key in a.keys() | b.keys():
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            paths += [f"{key}/{path}" for path in what_differs(old, new)]
        elif key not in a or key not in b or old != new:
            paths.append(key)
    return sorted(paths)


class PathsJudge:
    """Judges a list of paths: all of them, in order."""

    def __init__(self, expected: list[str]) -> None:
        self.expected = expected

    def __call__(self, value: Any) -> Verdict:
        if not isinstance(value, tuple) or not all(isinstance(path, str) for path in value):
            return Verdict(0, "return a list of texts")
        if list(value) == self.expected:
            return Verdict(1)
        missing = sorted(set(self.expected) - set(value))
        extra = sorted(set(value) - set(self.expected))
        if missing or extra:
            return Verdict(0, f"missing: {missing}, not expected: {extra}")
        return Verdict(0, f"got {list(value)}, expected {self.expected}: sorted, each once")


def differs_cases(rng: np.random.Generator) -> list[Case]:
    seed = int(rng.integers(1, 1000))
    versions = {"numpy": "2.4.6", "python": "3.11.7"}
    base = {"data": "ab12", "settings": {"seed": seed, "steps": 96}, "versions": versions}

    def case(about: str, a: dict[str, Any], b: dict[str, Any]) -> Case:
        texts = {"a": json.dumps(a), "b": json.dumps(b)}
        return Case(texts, judge=PathsJudge(what_differs(a, b)), about=about)

    newer = base | {"versions": versions | {"numpy": "3.0.0"}, "data": "cd34"}
    deep = {"machine": {"gpu": {"kind": "none", "count": 0}}}
    return [
        case("equal manifests", base, dict(base)),
        case("two differences", base, newer),
        case("a key that one lacks", base, {k: v for k, v in base.items() if k != "data"}),
        case("a value of None is not a missing key", base | {"commit": None}, base),
        case("deeper", deep, {"machine": {"gpu": {"kind": "none", "count": 2}}}),
        case("a dictionary against a text", base, base | {"versions": "unknown"}),
    ]


class SumsJudge:
    """Judges sums of rows that hold the same numbers: equal to the bit, and right."""

    def __init__(self, truth: float) -> None:
        self.truth = truth

    def __call__(self, value: Any) -> Verdict:
        sums = np.asarray(value)
        if sums.ndim != 1 or len(sums) != ROWS:
            return Verdict(0, f"got shape {sums.shape}, expected ({ROWS},): one sum for each row")
        gap = float(np.abs(sums.astype(np.float64) - self.truth).max())
        if not gap <= 0.01:
            why = "did an integer overflow?" if gap > 100 else "scale before you round"
            return Verdict(0, f"a sum is off by {gap:.3g}, allowed is 0.01: {why}")
        distinct = len(np.unique(sums))
        if distinct > 1:
            return Verdict(0, f"{distinct} different sums in {ROWS} rows: the order still matters")
        return Verdict(1)


ROWS = 40


def sums_cases(rng: np.random.Generator) -> list[Case]:
    def case(numbers: np.ndarray, about: str) -> Case:
        numbers = numbers.astype(np.float32)
        x = np.stack([rng.permutation(numbers) for _ in range(ROWS)])
        return Case({"x": x}, judge=SumsJudge(math.fsum(numbers)), about=about)

    normal = rng.standard_normal(1000).clip(-8, 8)
    return [
        case(normal, "normal numbers"),
        case(rng.uniform(-8, 8, 1000), "numbers between -8 and 8"),
        case(rng.uniform(7, 8, 1000), "large sums, where integers might overflow"),
    ]


EXERCISES = [
    Exercise(
        name="differing_bits",
        points=2,
        cases=bits_cases,
        seconds=30,
        hints=(
            "A float32 has 32 bits, and so has an int32: look at the same memory as integers.",
            "The word is view or bitcast, not a cast: 1.0 must become 1065353216, not 1.",
            "Compare the two integer tensors with !=, and count.",
        ),
        mistake=bits_mistake,
    ),
    Exercise(
        name="best_interval",
        points=1,
        cases=interval_cases,
        hints=(
            "Write the loss as f(T) = c / T + T / (2 M).",
            "f'(T) = -c / T² + 1 / (2 M). Where is it zero?",
            "T² = 2 c M.",
        ),
        mistake=interval_mistake,
    ),
    Exercise(
        name="orders",
        points=2,
        cases=orders_cases,
        seconds=30,
        hints=(
            "Make a new generator (or key) for each pair; never use a global one.",
            "seed + epoch is the same for (5, 1) and (6, 0). Both numbers must go in separately.",
            "NumPy mixes a list: np.random.default_rng([seed, epoch]), or np.random.SeedSequence.",
        ),
    ),
    Exercise(
        name="go_on",
        points=2,
        cases=go_on_cases,
        seconds=30,
        hints=(
            "Which of the arguments does the function never use?",
            "The velocity remembers all gradients so far: it must not begin again at zero.",
            "The rate of the first step that is left is 0.1 / (1 + step).",
        ),
        mistake=go_on_mistake,
    ),
    Exercise(
        name="what_differs",
        points=1,
        cases=differs_cases,
        hints=(
            "Load both with json.loads, and go through the keys of both: a.keys() | b.keys().",
            "For two dictionaries, a function inside calls itself and puts the key in front.",
            "A missing key and a value of None are two things: ask `key in a`.",
        ),
    ),
    Exercise(
        name="steady_sums",
        points=2,
        cases=sums_cases,
        seconds=30,
        hints=(
            "Integers add without rounding, in any order.",
            "Multiply by a power of two, round, turn into integers, add, and divide again.",
            "Every number is below 8 and there are 1,000: with 2**17 an int32 does not overflow.",
        ),
    ),
]
