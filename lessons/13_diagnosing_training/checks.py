"""What a right answer is in the exercises on diagnosis: NumPy references, and small real runs."""

from __future__ import annotations

from functools import cache

import numpy as np

from utils import data, parity
from utils.checks import Case, Exercise, Verdict

FAULTS = ("healthy", "rate too high", "rate too low", "labels", "dead units", "overfitting")


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def update_ratio(before: np.ndarray, after: np.ndarray) -> float:
    """Return the length of the change over the length before: two (d_in, d_out) -> ()."""
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def ratio_cases(rng: np.random.Generator) -> list[Case]:
    def case(d_in: int, d_out: int, step: float, about: str) -> Case:
        before = _normal(rng, d_in, d_out)
        after = before * np.float32(1 - step) + np.float32(step) * _normal(rng, d_in, d_out)
        args = {"before": before, "after": after}
        return Case(args, expected=update_ratio(**args), about=about)

    return [
        case(5, 3, 0.1, "a small matrix"),
        case(1, 1, 0.5, "a single weight"),
        case(784, 64, 0.01, "the size of the lesson"),
        case(4, 4, 2.0, "a step longer than the matrix"),
    ]


def ratio_mistake(case: Case, got: np.ndarray) -> str | None:
    before, after = case.args.values()
    change = after - before
    wrong = {
        "divide by the length before the step, not after it": np.linalg.norm(change)
        / np.linalg.norm(after),
        "this is the ratio of the squares: the root is missing": update_ratio(before, after) ** 2,
        "take the length of the change, not the change of the length": abs(
            np.linalg.norm(after) - np.linalg.norm(before)
        )
        / np.linalg.norm(before),
        "this is the length of the change alone": np.linalg.norm(change),
        "this adds absolute values; the norm is the root of the sum of squares": np.abs(
            change
        ).sum()
        / np.abs(before).sum(),
    }
    return next((why for why, value in wrong.items() if np.allclose(value, got, rtol=1e-4)), None)


def dead_share(outputs: np.ndarray) -> float:
    """Return the share of units whose output is zero for every example: (n, units) -> ()."""
    return float((outputs <= 0).all(axis=0).mean())


def dead_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, units: int, dead: int, about: str) -> Case:
        outputs = np.maximum(_normal(rng, n, units) - np.float32(0.5), 0)
        outputs[rng.integers(n, size=units), np.arange(units)] += np.float32(0.1)  # all alive
        outputs[:, rng.permutation(units)[:dead]] = 0
        return Case({"outputs": outputs}, expected=dead_share(outputs), about=about)

    return [
        case(100, 64, 20, "a layer with some dead units"),
        case(50, 16, 0, "no dead unit, though most outputs are zero"),
        case(1, 8, 3, "a batch of one"),
        case(12, 12, 4, "as many units as examples"),
        case(30, 10, 10, "all dead"),
    ]


def dead_mistake(case: Case, got: np.ndarray) -> str | None:
    silent = case.args["outputs"] <= 0
    wrong = {
        "this is the share of zeros: a unit is dead if it is zero for *all* examples": silent,
        "this counts units that are zero for *some* example": silent.any(axis=0),
        "this looks at examples: which axis holds the units?": silent.all(axis=1),
        "this is the share of the living": ~silent.all(axis=0),
    }
    for why, values in wrong.items():
        if np.isclose(values.mean(), got):
            return why
    if np.isclose(silent.all(axis=0).sum(), got):
        return "this is the number of dead units, and the share was asked for"
    return None


def sweep_losses(X: np.ndarray, y: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return the loss before each step: (n, d), (n,), (steps,) -> (steps,), in float64.

    Softmax regression from zero weights, whole-batch gradient descent, one rate for each step.
    """
    x, onehot = X.astype(np.float64), np.eye(int(y.max()) + 1)[y]
    W, losses = np.zeros((X.shape[1], onehot.shape[1])), []
    for rate in rates:
        logits = x @ W
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses.append(-np.log((p * onehot).sum(axis=1)).mean())
        W -= rate * x.T @ (p - onehot) / len(x)
    return np.array(losses)


def sweep_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, k: int, steps: int, about: str) -> Case:
        y = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])  # every class is there
        X = _normal(rng, n, d) + np.float32(2) * _normal(rng, k, d)[y]
        rates = np.geomspace(1e-3, 0.3, steps).astype(np.float32)
        args = {"X": X, "y": y, "rates": rates}
        return Case(args, expected=sweep_losses(**args), about=about)

    return [
        case(30, 4, 3, 12, "a small problem"),
        case(2, 3, 2, 5, "two examples"),
        case(40, 6, 4, 1, "one step only: log of the number of classes"),
    ]


def sweep_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    rates = case.args["rates"]
    if len(right) > 1 and np.allclose(got[:-1], right[1:], atol=1e-5):
        return "this is the loss *after* each step; the loss before it was asked for"
    fixed = case.args | {"rates": np.full_like(rates, rates[0])}
    if len(right) > 1 and np.allclose(got, sweep_losses(**fixed), atol=1e-5):
        return "the first rate was used for all steps"
    running = np.cumsum(right) / np.arange(1, len(right) + 1)
    if len(right) > 1 and np.allclose(got, running, atol=1e-5):
        return "this is the mean of all losses so far"
    return None


def good_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return a third of the rate at the middle of the five neighbors of lowest mean loss."""
    means = np.convolve(losses.astype(np.float64), np.ones(5) / 5, "valid")
    return float(rates[2 + int(means.argmin())] / 3)


def rate_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, best: float, about: str, lucky: bool = False) -> Case:
        rates = np.geomspace(1e-4, 10, n).astype(np.float32)
        away = np.log10(rates / best)
        losses = np.where(away < 0, np.minimum(0.5 + 0.6 * away**2, 2.3), 0.5 + 3 * away**2)
        losses = (losses + 0.02 * rng.random(n)).astype(np.float32)
        if lucky:
            losses[n // 6] = 0.01
        args = {"rates": rates, "losses": losses}
        return Case(args, expected=good_rate(**args), about=about)

    return [
        case(60, 0.1, "a sweep as in the lesson"),
        case(60, 1.0, "a single lucky batch at a tiny rate", lucky=True),
        case(5, 0.03, "five losses only"),
        case(40, 1e-4, "the lowest losses at the very left"),
    ]


def rate_mistake(case: Case, got: np.ndarray) -> str | None:
    rates, losses = case.args.values()
    if np.isclose(got, 3 * case.expected, rtol=1e-4):
        return "this is the rate of the lowest point; a third of it was asked for"
    if np.isclose(got, rates[losses.argmin()] / 3, rtol=1e-4):
        return "one lucky batch decides: take the mean of five neighbors first"
    means = np.convolve(losses, np.ones(5) / 5, "valid")
    if np.isclose(got, rates[means.argmin()] / 3, rtol=1e-4):
        return "the mean of five belongs to the middle one, two places further on"
    return None


def shuffle_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, order: np.ndarray, about: str) -> Case:
        X, y = _normal(rng, n, 3), np.arange(n)
        judge = ShuffleJudge(X[order], y[order], X)
        return Case({"X": X, "y": y, "order": order}, judge=judge, about=about)

    swap = np.arange(6)
    swap[[1, 4]] = 4, 1
    return [
        case(6, np.roll(np.arange(6), 2), "six examples, moved on by two"),
        case(6, swap, "two examples change places"),
        case(50, np.roll(rng.permutation(50), 1), "fifty examples"),
        case(1, np.arange(1), "a single example"),
    ]


class ShuffleJudge:
    """Judges (X, y): every example with its own label, in the order that was asked for."""

    def __init__(self, X: np.ndarray, y: np.ndarray, before: np.ndarray) -> None:
        self.X, self.y, self.before = X, y, before

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or len(value) != 2:
            return Verdict(0, "return two things: X and y")
        X, y = (np.asarray(part) for part in value)
        if X.shape != self.X.shape or y.shape != self.y.shape:
            return Verdict(0, f"got shapes {X.shape} and {y.shape}")
        apart = int((self.before[y] != X).any(axis=1).sum())
        if apart:
            return Verdict(0, f"{apart} of {len(y)} examples lost their label")
        if not np.array_equal(y, self.y):
            return Verdict(0, "each has its own label, but not in the order that was asked for")
        return Verdict(1)


@cache
def _clothes() -> tuple[np.ndarray, np.ndarray]:
    clothes = data.load("fashion_mnist")
    X = clothes["x_train"].reshape(-1, 784).astype(np.float32) / 255
    return X, clothes["y_train"].astype(np.int64)


def _accuracy(weights: list[tuple[np.ndarray, np.ndarray]], X: np.ndarray, y: np.ndarray) -> float:
    (W1, b1), (W2, b2) = weights
    return float(((np.maximum(X @ W1 + b1, 0) @ W2 + b2).argmax(axis=1) == y).mean())


def _step(weights: list, x: np.ndarray, onehot: np.ndarray, rate: float) -> tuple[list, float]:
    """Return the weights after one step, and the update ratio of the first matrix."""
    (W1, b1), (W2, b2) = weights
    hidden = np.maximum(x @ W1 + b1, 0)
    logits = hidden @ W2 + b2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    d = (p / p.sum(axis=1, keepdims=True) - onehot) / len(x)
    back = (d @ W2.T) * (hidden > 0)
    g1, rate = x.T @ back, np.float32(rate)
    ratio = float(rate * np.linalg.norm(g1) / np.linalg.norm(W1))
    first = (W1 - rate * g1, b1 - rate * back.sum(axis=0))
    return [first, (W2 - rate * hidden.T @ d, b2 - rate * d.sum(axis=0))], ratio


def small_run(seed: int, rate: float = 0.1, bias: float = 0, shuffled: float = 0, n: int = 1000):
    """Train 784-16-10 on n pictures in NumPy; return the evidence that `diagnose` gets.

    Returns training and validation accuracy (epochs,), update ratio (steps,), dead share before.
    """
    rng = np.random.default_rng(seed)
    X, y = _clothes()
    rows = rng.permutation(len(X))
    X_val, y_val = X[rows[-400:]], y[rows[-400:]]
    X, y = X[rows[:n]], y[rows[:n]].copy()
    moved = rng.permutation(n)[: round(shuffled * n)]
    y[moved] = y[rng.permutation(moved)]
    weights = parity.dense_weights([784, 16, 10], seed)
    weights[0][1][:] = bias
    dead = dead_share(np.maximum(X_val @ weights[0][0] + weights[0][1], 0))
    onehot, epochs, batch = np.eye(10, dtype=np.float32)[y], 10000 // n, min(n, 50)
    training, validation, ratios = [], [], []
    for order in parity.batch_order(n, batch, epochs, seed):
        for rows in order:
            weights, ratio = _step(weights, X[rows], onehot[rows], rate)
            ratios.append(ratio)
        training.append(_accuracy(weights, X, y))
        validation.append(_accuracy(weights, X_val, y_val))
    arrays = (np.array(v, np.float32) for v in (training, validation, ratios))
    return dict(zip(("training", "validation", "ratio"), arrays, strict=True)) | {"dead": dead}


KNOBS = {
    "healthy": {},
    "rate too high": {"rate": 1.0},
    "rate too low": {"rate": 0.0005},
    "labels": {"shuffled": 0.55},
    "dead units": {"bias": -2.5},
    "overfitting": {"n": 100, "rate": 0.2},
}


def diagnose_cases(rng: np.random.Generator) -> list[Case]:
    seeds = rng.integers(1000, size=len(FAULTS))
    cases = [
        Case(small_run(int(seed), **KNOBS[fault]), judge=FaultJudge(fault), about=f"run {i}")
        for i, (fault, seed) in enumerate(zip(FAULTS, seeds, strict=True), 1)
    ]
    return [cases[i] for i in rng.permutation(len(cases))]


class FaultJudge:
    """Judges the name of a fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, str) or value not in FAULTS:
            return Verdict(0, f"got {str(value)[:40]!r}, expected one of {', '.join(FAULTS)}")
        if value == self.fault:
            return Verdict(1, f"right, {value}")
        return Verdict(0, f"you say {value!r}; look at the numbers of this run once more")


EXERCISES = [
    Exercise(
        name="update_ratio",
        points=1,
        cases=ratio_cases,
        hints=(
            "The change is after minus before; its length is a norm.",
            "A norm is the root of the sum of squares over all elements.",
            "norm(after - before) / norm(before).",
        ),
        seconds=20,
        tolerance=1e-4,
        mistake=ratio_mistake,
    ),
    Exercise(
        name="dead_share",
        points=2,
        cases=dead_cases,
        hints=(
            "First make a table of truth values: is this output zero?",
            "A unit is a column; it is dead if *all* of its column is true.",
            "all(axis=0) over the examples, then the mean over the units.",
        ),
        seconds=20,
        mistake=dead_mistake,
    ),
    Exercise(
        name="sweep_losses",
        points=2,
        cases=sweep_cases,
        hints=(
            "One model, one loop over the rates: loss, gradient, step.",
            "Keep the loss of each step as a number, before the weights change.",
            "The rate of a step is rates[i]: give it to the optimizer or to your own update.",
        ),
        seconds=60,
        tolerance=1e-4,
        mistake=sweep_mistake,
    ),
    Exercise(
        name="good_rate",
        points=2,
        cases=rate_cases,
        hints=(
            "The mean of five neighbors: add five shifted slices and divide by five.",
            "losses[0:n-4], losses[1:n-3], ..., losses[4:n] are the five slices.",
            "The k-th mean has its middle at place k + 2.",
        ),
        seconds=20,  # a first compilation on a busy machine
        tolerance=1e-4,
        mistake=rate_mistake,
    ),
    Exercise(
        name="shuffle_together",
        points=1,
        cases=shuffle_cases,
        hints=(
            "Follow one example by hand: where does X[order] put it, where does its label go?",
            "argsort of an order is the way back; an order that is its own way back hides this.",
            "Use the same order for both.",
        ),
        seconds=20,
    ),
    Exercise(
        name="diagnose",
        points=2,
        cases=diagnose_cases,
        hints=(
            "Ask for the causes first: units that were dead before training, the size of updates.",
            "Then compare the two accuracies at the end: which one is higher, by how much?",
            "Ratios: healthy runs are near 0.01, ten times more or fifty times less is a fault.",
        ),
    ),
]
