"""What a right answer is in the exercises on control flow: one NumPy reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils.checks import Case, Exercise


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def last_states(x: np.ndarray, lengths: np.ndarray, U: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return each row's state after its real steps: (n, T, d), (n,), (d, d), (d,) -> (n, d)."""
    h = np.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = np.where((lengths > t)[:, None], np.tanh(x[:, t] + h @ U + b), h)
    return h


def states_cases(rng: np.random.Generator) -> list[Case]:
    def case(lengths: list[int], steps: int, d: int, about: str) -> Case:
        args = {
            "x": _normal(rng, len(lengths), steps, d),
            "lengths": np.array(lengths, np.int64),
            "U": _normal(rng, d, d) / np.float32(2 * np.sqrt(d)),
            "b": _normal(rng, d) / np.float32(4),
        }
        return Case(args, expected=last_states(**args), about=about)

    return [
        case([4], 4, 3, "one row without padding"),
        case([2, 5, 1], 5, 4, "three rows of unequal lengths"),
        case([1, 4, 4, 3], 4, 4, "as many rows as steps and units"),
        case([int(n) for n in rng.integers(1, 13, 20)], 12, 8, "a batch"),
    ]


def states_mistake(case: Case, got: np.ndarray) -> str | None:
    """Name the usual wrong turns by what they would have given."""
    x, lengths, U, b = case.args.values()
    everything = np.full_like(lengths, x.shape[1])
    blank = np.where((np.arange(x.shape[1]) < lengths[:, None])[:, :, None], x, 0)
    wrong = {
        "the padding is read, too: where t >= length the state must stay": (x, everything, U, b),
        "padding set to zero still moves the state: keep the old one": (blank, everything, U, b),
        "U is used transposed": (x, lengths, U.T, b),
        "the bias is missing": (x, lengths, U, 0 * b),
        "the loop stops one step early": (x, lengths - 1, U, b),
    }
    for reason, args in wrong.items():
        if np.allclose(got, last_states(*args), atol=1e-4):
            return reason
    return None


def padded_places(lengths: list[int], bounds: list[int]) -> int:
    """Return how many places are padding if each length goes up to the next bound."""
    return sum(min(b for b in bounds if b >= n) - n for n in lengths)


def padding_cases(rng: np.random.Generator) -> list[Case]:
    many = [int(n) for n in rng.integers(3, 41, 50)]
    asked = {
        "one bound": ([3, 7, 10], [10]),
        "a length that is a bound": ([10, 11, 20], [10, 20]),
        "the lesson's buckets": (many, [10, 20, 40]),
    }
    return [
        Case({"lengths": n, "bounds": b}, expected=padded_places(n, b), about=about)
        for about, (n, b) in asked.items()
    ]


def padding_mistake(case: Case, got: np.ndarray) -> str | None:
    lengths, bounds = case.args.values()
    if got == sum(bounds[-1] - n for n in lengths):
        return "all went to the last bound: take the smallest one that is long enough"
    if got == sum(min(b for b in [*bounds, np.inf] if b > n) - n for n in lengths):
        return "a sequence as long as a bound fits into it"
    if got == sum(min(b for b in bounds if b >= n) for n in lengths):
        return "these are all places: take away the real ones"
    return None


def words_read(z: np.ndarray, lengths: np.ndarray, sure: float) -> np.ndarray:
    """Return how many words each row reads: (n, T), (n,), a number -> (n,) int."""
    reached = (np.abs(z) >= sure) & (np.arange(z.shape[1]) < lengths[:, None])
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, lengths)


def read_cases(rng: np.random.Generator) -> list[Case]:
    def case(z: list[list[float]] | np.ndarray, lengths: list[int], about: str) -> Case:
        z, lengths = np.array(z, np.float32), np.array(lengths, np.int64)
        args = {"z": z, "lengths": lengths, "sure": 2.05}
        return Case(args, expected=words_read(**args), about=about)

    many = (rng.integers(-24, 25, (30, 12)) / 8).astype(np.float32)  # eighths: none is 2.05
    return [
        case([[0.5, 1, 3, 4]], [4], "one row that stops on the way"),
        case([[0.5, -3, 1], [1, 1, 1]], [3, 3], "sure of the other side, and never sure"),
        case([[1, 1, 5, 5]], [2], "an answer that stands in the padding"),
        case(many, [int(n) for n in rng.integers(1, 13, 30)], "a batch"),
    ]


def read_mistake(case: Case, got: np.ndarray) -> str | None:
    z, lengths, sure = case.args.values()
    right = case.expected
    if np.array_equal(got, right - 1):
        return "these are positions from 0: the first word counts as 1"
    if np.array_equal(got, words_read(np.maximum(z, 0), lengths, sure)):
        return "a large negative answer is sure, too"
    if np.array_equal(got, words_read(z, 0 * lengths + z.shape[1], sure)):
        return "the padding was looked at: only the first `lengths` columns are words"
    reached = (np.abs(z) >= sure) & (np.arange(z.shape[1]) < lengths[:, None])
    if np.array_equal(got, reached.argmax(axis=1) + 1):
        return "a row that is never sure reads all of its words; argmax gives 0 there"
    if np.array_equal(got, np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, z.shape[1])):
        return "a row that is never sure ends with its own length, not with the last column"
    return None


def root(a: float, tolerance: float) -> np.ndarray:
    """Return Newton's square root of a, from 1, until its square is within the tolerance of a."""
    h = np.float32(1)
    while abs(h * h - np.float32(a)) > tolerance:
        h = (h + np.float32(a) / h) / 2
    return np.float32(h)


def root_cases(rng: np.random.Generator) -> list[Case]:
    asked = {
        "less than 1": 0.25,
        "more than 1": 9.0,
        "1 itself": 1.0,
        "a random number": round(float(rng.uniform(2, 50)), 2),
    }
    return [
        Case({"a": a, "tolerance": 0.01}, expected=root(a, 0.01), about=about)
        for about, a in asked.items()
    ]


def root_mistake(case: Case, got: np.ndarray) -> str | None:
    a, tolerance = case.args.values()
    if got == 1 and abs(1 - a) > tolerance:
        return "the loop ended before its first step: what is h * h - a at h = 1?"
    if got.size == 1 and abs(float(got) ** 2 - a) > tolerance:
        return "the square is not within the tolerance of a"
    return None


def act_weights(p: np.ndarray, epsilon: float) -> np.ndarray:
    """Return what each step counts: (n, T), a number -> (n, T).

    Source: Graves (2016), Adaptive Computation Time for Recurrent Neural Networks, section 2.
    """
    weights = np.zeros_like(p)
    for row, out in zip(p, weights, strict=True):
        left = np.float32(1)
        for t, probability in enumerate(row):
            if 1 - left + probability >= 1 - epsilon or t == len(row) - 1:
                out[t] = left
                break
            out[t] = probability
            left -= probability
    return weights


def ponder(y: np.ndarray, p: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the mean output of each row: (n, T, d), (n, T), a number -> (n, d)."""
    return (act_weights(p, epsilon)[:, :, None] * y).sum(axis=1)


def ponder_cases(rng: np.random.Generator) -> list[Case]:
    def case(p: list[list[float]] | np.ndarray, d: int, about: str) -> Case:
        p = np.array(p, np.float32)
        args = {"y": _normal(rng, *p.shape, d), "p": p, "epsilon": 0.01}
        return Case(args, expected=ponder(**args), about=about)

    many = rng.integers(1, 40, (20, 8)) / 64  # 64ths add up without rounding, and none to 0.99
    return [
        case([[0.5, 0.25, 0.375, 0.875]], 2, "one row that stops at its third step"),
        case([[1, 0.5, 0.5]], 3, "one that stops at once"),
        case([[0.125, 0.125, 0.25]], 2, "one that never gets there"),
        case(many, 4, "a batch"),
    ]


def ponder_mistake(case: Case, got: np.ndarray) -> str | None:
    y, p, epsilon = case.args.values()
    right = act_weights(p, epsilon)

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights[:, :, None] * y).sum(axis=1)

    used = right > 0
    wrong = {
        "every step counts its p here: stop once the sum is reached": p,
        "the last step counts what is left of 1, not its own p": np.where(used, p, 0),
        "the last column takes what is left if the sum never gets there": np.where(
            used.all(axis=1, keepdims=True) & (p.sum(axis=1, keepdims=True) < 1 - epsilon), p, right
        ),
    }
    for reason, weights in wrong.items():
        if np.allclose(got, mean(weights), atol=1e-4):
            return reason
    return None


EXERCISES = [
    Exercise(
        name="last_states",
        points=2,
        cases=states_cases,
        seconds=30,  # the first call may compile
        hints=(
            "Go through the columns t = 0, 1, ... and compute the new state of all rows at once.",
            "Row i takes the new state if t < lengths[i], and keeps the old one if not.",
            "where((lengths > t)[:, None], new, h) has the shapes (n, 1), (n, d) and (n, d).",
        ),
        mistake=states_mistake,
    ),
    Exercise(
        name="padded_places",
        points=1,
        cases=padding_cases,
        hints=(
            "For one length n, which bounds are long enough? Take the smallest of them.",
            "min(b for b in bounds if b >= n) is that bound; it has b - n places of padding.",
        ),
        mistake=padding_mistake,
    ),
    Exercise(
        name="words_read",
        points=2,
        cases=read_cases,
        seconds=30,  # the first call may compile
        hints=(
            "Make a table (n, T) of truth values: sure here, and a word at all.",
            "argmax over a row of truth values is the position of its first true one.",
            "Where a row has no true value, argmax says 0: use `any` to put its length there.",
        ),
        mistake=read_mistake,
    ),
    Exercise(
        name="root",
        points=2,
        cases=root_cases,
        seconds=30,  # the first call may compile
        hints=(
            "Compute h * h - a for h = 1 and a = 9. Does the loop go on?",
            "The square may lie on either side of a.",
            "Compare the absolute value of the difference with the tolerance.",
        ),
        mistake=root_mistake,
    ),
    Exercise(
        name="ponder",
        points=3,
        cases=ponder_cases,
        seconds=30,  # the first call may compile
        hints=(
            "Let `total` be the cumulated sum of p over time, and `before` = total - p.",
            "A step runs if before < 1 - epsilon. It is the last if also total >= 1 - epsilon, "
            "or if it stands in the last column.",
            "The weights are 1 - before at the last step, p at the others that run, and else 0.",
        ),
        mistake=ponder_mistake,
    ),
]
