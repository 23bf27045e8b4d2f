"""What a right answer is in the exercises on tensors: one NumPy reference for all tracks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.checks import Case, Exercise


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def _first_that_fits(got: np.ndarray, wrong: dict[str, Callable[[], np.ndarray]]) -> str | None:
    for reason, values in wrong.items():
        with np.errstate(all="ignore"):
            value = np.asarray(values())
        if value.shape == got.shape and np.allclose(value, got, atol=1e-4, equal_nan=True):
            return reason
    return None


def bytes_cases(rng: np.random.Generator) -> list[Case]:
    n, m, d = (int(size) for size in rng.integers(2, 50, 3))
    shapes = {
        "every one with every one": ((n, 1, d), (m, d), 4),
        "a column and a row": ((n, 1), (m,), 8),
        "a scalar": ((), (n, m), 4),
        "the shorter one first": ((d,), (n, m, 1), 1),
    }
    return [
        Case(
            {"left": left, "right": right, "itemsize": size},
            expected=int(np.prod(np.broadcast_shapes(left, right))) * size,
            about=about,
        )
        for about, (left, right, size) in shapes.items()
    ]


def bytes_mistake(case: Case, got: np.ndarray) -> str | None:
    left, right, size = case.args.values()
    return _first_that_fits(
        got,
        {
            "this is the number of elements: multiply by itemsize": lambda: case.expected // size,
            "these are the bytes of both inputs, not those of the result": lambda: (
                int(np.prod(left) + np.prod(right)) * size
            ),
        },
    )


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances: (n, d), (m, d) -> (n, m)."""
    return ((_wide(a)[:, None] - _wide(b)) ** 2).sum(axis=-1)


def distance_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, m: int, d: int, shift: float, about: str) -> Case:
        args = {"a": _normal(rng, n, d) + np.float32(shift)}
        args["b"] = _normal(rng, m, d) + np.float32(shift)
        return Case(args, expected=distances(**args), about=about)

    return [
        case(5, 3, 4, 0, "a few points"),
        case(1, 1, 2, 0, "one point each"),
        case(4, 4, 4, 0, "square shapes"),
        case(6, 5, 8, 1000, "far from the origin"),
    ]


def distance_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    wrong = {
        "the root is too much: squared distances are asked": lambda: np.sqrt(right),
        "rows and columns are exchanged": lambda: right.T,
    }
    far = abs(case.args["a"].mean()) > 100 and got.shape == right.shape
    last = "digits are lost: subtract first, then square" if far else None
    return _first_that_fits(got, wrong) or last


def standardize(x: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and standard deviation 1; constant ones become zeros."""
    centered = _wide(x) - _wide(x).mean(axis=0)
    spread = centered.std(axis=0)
    return centered / np.where(spread > 0, spread, 1)


def standardize_cases(rng: np.random.Generator) -> list[Case]:
    constant = _normal(rng, 6, 3)
    constant[:, 1] = 2
    inputs = {
        "a table": _normal(rng, 8, 3) * 2 + 1,
        "square": _normal(rng, 4, 4),
        "a constant column": constant,
        "a single row": _normal(rng, 1, 3),
    }
    return [Case({"x": x}, expected=standardize(x), about=about) for about, x in inputs.items()]


def standardize_mistake(case: Case, got: np.ndarray) -> str | None:
    x = _wide(case.args["x"])
    if np.isnan(got).any():
        return "a constant column has the deviation 0, and 0/0 is NaN"
    return _first_that_fits(
        got,
        {
            "divide the variance by n, not by n - 1": lambda: (x - x.mean(0)) / x.std(0, ddof=1),
            "divide by the deviation, not by the variance": lambda: (x - x.mean(0)) / x.var(0),
            "this standardizes everything at once: give the axis": lambda: (x - x.mean()) / x.std(),
        },
    )


def pick_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, about: str) -> Case:
        scores, labels = _normal(rng, n, k), rng.integers(0, k, n)
        return Case({"scores": scores, "labels": labels}, scores[np.arange(n), labels], about=about)

    return [case(6, 4, "a batch"), case(1, 3, "one row"), case(5, 5, "a square")]


def pick_mistake(case: Case, got: np.ndarray) -> str | None:
    if got.shape == (len(case.expected),) * 2:
        return "each label was used in each row: one number for each row is asked"
    wrong = {"these are the largest scores": lambda: case.args["scores"].max(axis=1)}
    return _first_that_fits(got, wrong)


def error_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, noise: float, about: str) -> Case:
        target = _normal(rng, n)
        predicted = (target + noise * _normal(rng, n))[:, None].astype(np.float32)
        expected = ((_wide(predicted)[:, 0] - target) ** 2).mean()
        return Case({"predicted": predicted, "target": target}, expected, about=about)

    return [case(20, 0.5, "a batch"), case(7, 0, "perfect"), case(1, 1, "a batch of one")]


def error_mistake(case: Case, got: np.ndarray) -> str | None:
    predicted, target = case.args.values()
    wrong = {
        "(n, 1) minus (n,) is (n, n): each meets each": lambda: ((predicted - target) ** 2).mean(),
        "this is the sum, not the mean": lambda: case.expected * len(target),
    }
    return _first_that_fits(got, wrong)


def move_centers(X: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return each label's mean row; a center without a row stays."""
    moved = _wide(centers)
    for label in np.unique(labels):
        moved[label] = _wide(X)[labels == label].mean(axis=0)
    return moved


def centers_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, used: int, about: str) -> Case:
        args = {"X": _normal(rng, n, 3), "labels": rng.integers(0, used, n)}
        args["centers"] = _normal(rng, k, 3)
        return Case(args, expected=move_centers(**args), about=about)

    return [
        case(60, 3, 3, "three groups"),
        case(9, 1, 1, "one group"),
        case(20, 4, 3, "an empty group"),
        case(1, 2, 1, "one row"),
    ]


def centers_mistake(case: Case, got: np.ndarray) -> str | None:
    X, labels, centers = case.args.values()
    if np.isnan(got).any():
        return "an empty group has no mean: 0/0 is NaN"
    empty = ~np.isin(np.arange(len(centers)), labels)
    if got.shape == centers.shape and empty.any() and not got[empty].any():
        return "an empty group keeps its center, it does not go to zero"
    member = np.eye(len(centers))[labels]
    return _first_that_fits(got, {"these are sums, not means": lambda: member.T @ X})


EXERCISES = [
    Exercise(
        name="broadcast_bytes",
        points=1,
        cases=bytes_cases,
        hints=(
            "Write the shapes under each other, aligned at the right.",
            "A missing axis counts as 1; of two lengths the one that is not 1 wins.",
            "Multiply all lengths of the result, and the size of one number.",
        ),
        mistake=bytes_mistake,
    ),
    Exercise(
        name="pairwise_distances",
        points=2,
        cases=distance_cases,
        hints=(
            "The difference needs three axes: (n, m, d).",
            "a[:, None] has the shape (n, 1, d).",
            "Subtract, square, and sum over the last axis.",
        ),
        mistake=distance_mistake,
    ),
    Exercise(
        name="standardize",
        points=2,
        cases=standardize_cases,
        tolerance=1e-4,
        hints=(
            "Mean and deviation are taken over axis 0.",
            "Where the deviation is 0, divide by something else.",
            "`where(spread > 0, spread, 1)` is a safe divisor.",
        ),
        mistake=standardize_mistake,
    ),
    Exercise(
        name="pick",
        points=1,
        cases=pick_cases,
        hints=(
            "Row i needs column labels[i].",
            "Look for your framework's gather, or take_along_axis.",
            "Give the labels an axis of length 1, gather along axis 1, take the axis away.",
        ),
        mistake=pick_mistake,
    ),
    Exercise(
        name="mean_squared_error",
        points=2,
        cases=error_cases,
        hints=(
            "Print the shape of the difference.",
            "(n, 1) and (n,) broadcast to (n, n).",
            "Take the column out of the predictions: predicted[:, 0].",
        ),
        mistake=error_mistake,
    ),
    Exercise(
        name="move_centers",
        points=2,
        cases=centers_cases,
        hints=(
            "A one-hot table of the labels, transposed, times X gives the sum of each group.",
            "The column sums of that table are the sizes of the groups.",
            "Divide by at least 1, and take the old center where the size is 0.",
        ),
        mistake=centers_mistake,
    ),
]
