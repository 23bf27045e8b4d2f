"""What a right answer is in the exercises on graphs: one reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils.checks import Case, Exercise, Verdict


def trace_counts(signatures: list[str], limit: int) -> list[int]:
    """Return how many calls were traced, found and run eagerly."""
    kept = list(dict.fromkeys(signatures))[:limit]
    found = sum(signature in kept for signature in signatures) - len(kept)
    return [len(kept), found, len(signatures) - len(kept) - found]


def trace_cases(rng: np.random.Generator) -> list[Case]:
    def case(rows: list[int], limit: int, about: str) -> Case:
        args = {"signatures": [f"float32[{n},3]" for n in rows], "limit": limit}
        return Case(args, judge=TraceJudge(**args), about=about)

    some = [int(n) for n in rng.integers(10, 16, 20)]
    return [
        case([int(rng.integers(10, 99))] * 5, 8, "five calls of one shape"),
        case(some, 8, "up to six shapes, and room for all"),
        case(some, 2, "up to six shapes, and room for two"),
        case([], 8, "no call at all"),
    ]


class TraceJudge:
    """Judges [traced, found, eager] and names the usual wrong turns."""

    def __init__(self, signatures: list[str], limit: int) -> None:
        self.signatures, self.limit = signatures, limit

    def __call__(self, value: object) -> Verdict:
        got = [int(number) for number in np.ravel(value)]
        expected = trace_counts(self.signatures, self.limit)
        if got == expected:
            return Verdict(1)
        problem = f"got {got}, expected {expected}"
        why = self._why(got, expected) if len(got) == 3 else "return three numbers"
        return Verdict(0, f"{problem}: {why}" if why else problem)

    def _why(self, got: list[int], expected: list[int]) -> str | None:
        calls, different = len(self.signatures), len(set(self.signatures))
        if got[0] == calls > expected[0]:
            return "a signature that was met before has a graph already"
        if got[0] == different > self.limit:
            return "once `limit` graphs are there, no more are made"
        return None if sum(got) == calls else f"each of the {calls} calls is one of the three"


def calls_to_pay(
    first_eager: int, later_eager: int, first_compiled: int, later_compiled: int
) -> int:
    """Return the smallest number of calls for which the compiled ones take less in all, or -1."""
    if first_compiled < first_eager:
        return 1
    gain = later_eager - later_compiled
    return 2 + (first_compiled - first_eager) // gain if gain > 0 else -1


def pay_cases(rng: np.random.Generator) -> list[Case]:
    later = int(rng.integers(200, 400))

    def case(first_eager: int, first: int, gain: int, about: str) -> Case:
        args = {
            "first_eager": first_eager,
            "later_eager": later,
            "first_compiled": first,
            "later_compiled": later - gain,
        }
        return Case(args, expected=calls_to_pay(**args), about=about)

    return [
        case(500, 900_000 + later, 90, "a compilation of a second"),
        case(later, later + 100, 50, "a draw after three calls: less means less"),
        case(500, 900_000, -20, "a graph that is slower"),
        case(900_000, 500, 100, "a first call that is cheaper, since it was cached"),
        case(500, 900_000, 0, "no gain at all"),
    ]


def pay_mistake(case: Case, got: np.ndarray) -> str | None:
    first_eager, later_eager, first, later = case.args.values()
    if case.expected == -1:
        return "later calls gain nothing, so the first call is never paid back"
    if got == case.expected - 1:
        return "after that many calls it is not yet *less*; mind that the first call is one of them"
    if later_eager > later and got in (first // (later_eager - later), case.expected + 1):
        return "only the difference of the first calls has to be earned, and by the later ones"
    return None


def leap(x: np.ndarray) -> np.ndarray:
    """Return x if its sum is positive, else its square: (n,) -> (n,)."""
    return x if x.sum() > 0 else x**2


def leap_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, sign: int, about: str) -> Case:
        x = (np.abs(rng.standard_normal(n)) * sign).astype(np.float32)
        x[: n // 3] *= -1  # not all of one sign; the sum keeps its own
        x[-1] += sign * n
        return Case({"x": x}, expected=leap(x), about=about)

    return [case(6, 1, "a positive sum"), case(6, -1, "a negative sum"), case(1, -1, "one number")]


def leap_mistake(case: Case, got: np.ndarray) -> str | None:
    x = case.args["x"]
    if np.allclose(got, np.where(x > 0, x, x**2), atol=1e-5):
        return "the sum of all decides, not each number for itself"
    if np.allclose(got, x if case.expected is not x else x**2, atol=1e-5):
        return "the other way was taken"
    return None


def scaled(x: np.ndarray, factors: list[float]) -> np.ndarray:
    """Return one row for each factor: (n,), k numbers -> (k, n)."""
    return np.outer(np.asarray(factors, np.float32), x)


def scaled_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, about: str) -> Case:
        factors = [float(np.float32(f)) for f in rng.standard_normal(k)]
        args = {"x": rng.standard_normal(n).astype(np.float32), "factors": factors}
        return Case(args, expected=scaled(**args), about=about)

    return [case(5, 3, "three factors"), case(4, 4, "as many factors as numbers")]


def scaled_mistake(case: Case, got: np.ndarray) -> str | None:
    x, factors = case.args.values()
    if np.allclose(got, np.outer([factors[0]] * len(factors), x), atol=1e-5):
        return "every row has the first factor: it is a constant of the graph, not an input"
    if np.allclose(got, np.outer([factors[-1]] * len(factors), x), atol=1e-5):
        return "every row has the last factor"
    return None


def products_in_tower(depth: int) -> int:
    """Return one product for each round and one more for each third, from the first."""
    return depth + -(-depth // 3)


def tower_cases(rng: np.random.Generator) -> list[Case]:
    depths = {"one round": 1, "some rounds": int(rng.integers(4, 9))}
    depths |= {"more rounds": int(rng.integers(10, 30))}
    return [
        Case({"depth": depth}, expected=products_in_tower(depth), about=about)
        for about, depth in depths.items()
    ]


def tower_mistake(case: Case, got: np.ndarray) -> str | None:
    depth = case.args["depth"]
    if got == depth:
        return "that is the depth; the graph holds more products"
    if got > case.expected:
        return "count only matrix products, not every operation"
    return None


EXERCISES = [
    Exercise(
        name="trace_counts",
        points=2,
        cases=trace_cases,
        hints=(
            "Go through the calls in order and keep a set of the signatures that have a graph.",
            "Ask first whether the signature is in the set, then whether the set is full.",
        ),
    ),
    Exercise(
        name="calls_to_pay",
        points=2,
        cases=pay_cases,
        hints=(
            "After n calls the eager function has taken first + (n - 1) * later.",
            "Set the two totals against each other: what must the later calls earn, and how fast?",
            "With a gain of g for each later call, the debt d is earned once (n - 1) * g > d.",
        ),
        mistake=pay_mistake,
    ),
    Exercise(
        name="leap",
        points=2,
        cases=leap_cases,
        seconds=30,
        hints=(
            "The graph must hold both ways, and choose when the numbers are there.",
            "Your framework has a `cond` (two functions) and a `where` (two results).",
            "The condition is one number: the sum of all of x, compared with 0.",
        ),
        mistake=leap_mistake,
    ),
    Exercise(
        name="scaled",
        points=2,
        cases=scaled_cases,
        seconds=30,
        hints=(
            "What a graph reads from outside while it is traced is a constant in it.",
            "Give the traced function a second argument, and hand the factor in as a tensor.",
        ),
        mistake=scaled_mistake,
    ),
    Exercise(
        name="products_in_tower",
        points=2,
        cases=tower_cases,
        seconds=30,
        hints=(
            "Trace the tower first; the lesson's section on what a graph holds shows how.",
            "Go through the operations of the graph and count those of one kind.",
            "Print the kinds once: the matrix product has a name of its own.",
        ),
        mistake=tower_mistake,
    ),
]
