"""What a right answer is in the exercises on gradients: one NumPy reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils import data, parity
from utils.checks import Case, Exercise, Verdict


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def softplus_gradient(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient of log(1 + exp(w . x)) by w: sigmoid(w . x) x, of shape (d,)."""
    return x / (1 + np.exp(-(w @ x)))


def softplus_cases(rng: np.random.Generator) -> list[Case]:
    def case(d: int, about: str) -> Case:
        args = {"w": _normal(rng, d), "x": _normal(rng, d)}
        return Case(args, expected=softplus_gradient(**args), about=about)

    return [case(3, "three weights"), case(1, "a single weight"), case(20, "twenty weights")]


def softplus_mistake(case: Case, got: np.ndarray) -> str | None:
    w, x = case.args.values()
    s = 1 / (1 + np.exp(-(w @ x)))
    if np.allclose(got, s * w, atol=1e-4):
        return "this is the gradient by x; the weights w are asked for"
    if np.allclose(got, s * (1 - s) * x, atol=1e-4):
        return "this differentiates the sigmoid; the sigmoid is already the derivative of softplus"
    if np.allclose(got, x, atol=1e-4):
        return "the outer derivative, that of log(1 + exp(z)), is missing"
    return None


def cubic(x: list[float], a: list[float]) -> float:
    """Return the sum of a_k x_k^3, plus x_0 x_last: the function that the exercise gives."""
    return sum(a_k * v**3 for a_k, v in zip(a, x, strict=True)) + x[0] * x[-1]


def cubic_gradient(x: list[float], a: list[float]) -> np.ndarray:
    """Return its gradient by x, of shape (d,)."""
    slope = np.array([3 * a_k * v**2 for a_k, v in zip(a, x, strict=True)])
    slope[0] += x[-1]
    slope[-1] += x[0]
    return slope


def difference_cases(rng: np.random.Generator) -> list[Case]:
    def case(d: int, about: str) -> Case:
        a = rng.standard_normal(d).round(2).tolist()
        x = rng.uniform(1, 2, d).round(2).tolist()
        return Case({"x": x, "a": a, "h": 1e-4}, expected=cubic_gradient(x, a), about=about)

    return [case(3, "three variables"), case(1, "one variable"), case(8, "eight variables")]


def difference_mistake(case: Case, got: np.ndarray) -> str | None:
    x, a, h = case.args.values()
    right = case.expected
    if np.allclose(got, 2 * right, atol=1e-4):
        return "the two points are 2h apart, so divide by 2h"
    moved = [[v + h * (j == k) for j, v in enumerate(x)] for k in range(len(x))]
    forward = np.array([(cubic(each, a) - cubic(x, a)) / h for each in moved])
    if np.allclose(got, forward, atol=1e-9):
        return "this is the one-sided difference; its error is far larger"
    if np.allclose(got, right.sum(), atol=1e-3) and len(x) > 1:
        return "move one variable at a time and leave the others where they are"
    return None


def gradient_w1(W1, b1, W2, b2, x, y) -> np.ndarray:
    """Return the gradient by W1 of mean((tanh(x W1 + b1) W2 + b2 - y)^2), of shape (d, k)."""
    h = np.tanh(x @ W1 + b1)
    d_p = 2 * ((h @ W2 + b2)[:, 0] - y)[:, None] / len(y)
    return x.T @ (d_p @ W2.T * (1 - h**2))


def backward_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, k: int, about: str) -> Case:
        args = {
            "W1": _normal(rng, d, k) / np.float32(np.sqrt(d)),
            "b1": _normal(rng, k),
            "W2": _normal(rng, k, 1) / np.float32(np.sqrt(k)),
            "b2": _normal(rng, 1),
            "x": _normal(rng, n, d),
            "y": _normal(rng, n),
        }
        return Case(args, expected=gradient_w1(**args), about=about)

    return [
        case(6, 3, 4, "a small batch"),
        case(1, 5, 2, "a batch of one"),
        case(4, 4, 4, "all sizes equal, where a transposed matrix would go unnoticed"),
    ]


def backward_mistake(case: Case, got: np.ndarray) -> str | None:
    W1, b1, W2, b2, x, y = case.args.values()
    z = x @ W1 + b1
    d_h = 2 * ((np.tanh(z) @ W2 + b2)[:, 0] - y)[:, None] / len(y) @ W2.T
    if np.allclose(got, x.T @ (d_h * (1 - z**2)), atol=1e-4):
        return "still the planted bug: what is the derivative of tanh, in terms of its result?"
    if np.allclose(got, x.T @ d_h, atol=1e-4):
        return "the derivative of tanh is missing"
    return None


def logistic_hvp(w, v, X, y) -> np.ndarray:
    """Return H v for the loss mean(log(1 + exp(-y Xw))): X^T (s (1 - s) (X v)) / n."""
    s = 1 / (1 + np.exp(-y * (X @ w)))
    return X.T @ (s * (1 - s) * (X @ v)) / len(y)


def hvp_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, about: str) -> Case:
        args = {
            "w": _normal(rng, d),
            "v": _normal(rng, d),
            "X": _normal(rng, n, d) / np.float32(np.sqrt(d)),
            "y": rng.choice([-1, 1], n).astype(np.float32),
        }
        return Case(args, expected=logistic_hvp(**args), about=about)

    return [
        case(5, 3, "three weights"),
        case(1, 4, "a batch of one"),
        case(20, 40_000, "40,000 weights: the Hessian would take 6.4 GB"),
    ]


def hvp_mistake(case: Case, got: np.ndarray) -> str | None:
    w, v, X, y = case.args.values()
    s = 1 / (1 + np.exp(-y * (X @ w)))
    gradient = -X.T @ (y * (1 - s)) / len(y)
    if np.allclose(got, gradient, atol=1e-5):
        return "this is the gradient; take its derivative along v"
    if np.allclose(got, gradient * v, atol=1e-5):
        return "this multiplies the gradient by v; take the gradient's derivative along v"
    if np.allclose(got, logistic_hvp(w, v, X, y) * len(y), atol=1e-5) and len(y) > 1:
        return "the loss is a mean: divide by the number of rows"
    return None


GOOD, FAIR, STEPS = 0.095, 0.120, 200  # training loss; the solutions reach about 0.07


def momentum_cases(rng: np.random.Generator) -> list[Case]:
    concrete = data.load("concrete")
    names = [n for n in concrete.arrays if n not in ("compressive_strength", "mix_id")]
    table = np.column_stack([concrete[n] for n in names] + [concrete["compressive_strength"]])
    mixes = np.unique(concrete["mix_id"])
    test = np.isin(concrete["mix_id"], rng.choice(mixes, len(mixes) // 4, replace=False))
    rows = (table - table[~test].mean(axis=0)) / table[~test].std(axis=0)
    rows = rows.astype(np.float32)
    (W1, b1), (W2, b2) = parity.dense_weights([8, 16, 1], 2)
    X, y = np.ascontiguousarray(rows[~test, :8]), np.ascontiguousarray(rows[~test, 8])
    args = {"W1": W1, "b1": b1, "W2": W2, "b2": b2, "X": X, "y": y, "steps": STEPS}
    return [Case(args, judge=MomentumJudge(args), about=f"{STEPS} steps on the concrete table")]


class MomentumJudge:
    """Judges the final W1, b1, W2, b2 by the training loss that they have."""

    def __init__(self, args: dict) -> None:
        self.args = args

    def __call__(self, value: object) -> Verdict:
        shapes = [self.args[name].shape for name in ("W1", "b1", "W2", "b2")]
        if not isinstance(value, tuple) or [np.shape(p) for p in value] != shapes:
            return Verdict(0, f"return W1, b1, W2, b2 with the shapes {shapes}")
        W1, b1, W2, b2 = value
        p = (np.tanh(self.args["X"] @ W1 + b1) @ W2 + b2)[:, 0]
        loss = float(np.mean((p - self.args["y"]) ** 2))
        if loss <= GOOD:
            return Verdict(1, f"training loss {loss:.3f}, at most {GOOD} asked")
        return Verdict(0.5 if loss <= FAIR else 0, f"training loss {loss:.3f}, expected {GOOD}")


def best_step(points: list[float], steps: list[float]) -> float:
    """Return the step with the smallest median error for sin at float32 points."""
    x = np.array(points, np.float32)
    exact = np.cos(x.astype(np.float64))
    errors = []
    for h in np.array(steps, np.float32):
        slope = (np.sin(x + h) - np.sin(x - h)) / (2 * h)
        errors.append(np.median(np.abs(slope - exact)))
    return steps[int(np.argmin(errors))]


def step_cases(rng: np.random.Generator) -> list[Case]:
    def case(steps: list[float], about: str) -> Case:
        args = {"points": rng.uniform(0.2, 3, 400).tolist(), "steps": steps}
        return Case(args, expected=best_step(**args), about=about)

    return [
        case([10.0**k for k in range(-6, 0)], "steps in rising order"),
        case([1e-2, 1e-7, 1e-4, 3e-1], "steps in no order"),
    ]


def step_mistake(case: Case, got: np.ndarray) -> str | None:
    if np.isclose(got, min(case.args["steps"])):
        return "the smallest step is not the best one: rounding divides by it"
    if got < case.expected / 2:
        return "so small a step is best in float64: are the points float32, and also the step?"
    return None


EXERCISES = [
    Exercise(
        name="softplus_gradient",
        points=1,
        cases=softplus_cases,
        hints=(
            "Write z = w . x. The chain rule: derivative of log(1 + exp(z)) by z, times z by w.",
            "The derivative of log(1 + exp(z)) is exp(z) / (1 + exp(z)), the sigmoid of z.",
            "The derivative of w . x by w is x.",
        ),
        mistake=softplus_mistake,
    ),
    Exercise(
        name="central_difference",
        points=2,
        cases=difference_cases,
        hints=(
            "For each k, make two copies of x, and move x[k] up by h in one, down in the other.",
            "The slope is the difference of the two values of `cubic`, divided by 2h.",
            "[v + h * (j == k) for j, v in enumerate(x)] is x with its k-th entry moved.",
        ),
        mistake=difference_mistake,
        tolerance=1e-6,
    ),
    Exercise(
        name="gradient_w1",
        points=2,
        cases=backward_cases,
        hints=(
            "Compare with finite differences at weights of 0.01, then of 1. When is it wrong?",
            "For tiny inputs tanh(z) is nearly z. Which line mistakes one for the other?",
            "The derivative of tanh at z is 1 - tanh(z)^2 = 1 - h^2.",
        ),
        mistake=backward_mistake,
    ),
    Exercise(
        name="logistic_hvp",
        points=2,
        cases=hvp_cases,
        seconds=20,
        hints=(
            "H v is the derivative of the gradient along v: no matrix is needed.",
            "Forward mode over the gradient function does it in one call.",
            "On paper: with s = sigmoid(y Xw), H v = X^T (s (1 - s) (X v)) / n, from the right.",
        ),
        mistake=hvp_mistake,
    ),
    Exercise(
        name="momentum_fit",
        points=2,
        cases=momentum_cases,
        seconds=120,
        hints=(
            "Keep a velocity for each parameter, all zero at first.",
            "Each step: velocity = 0.9 * velocity + gradient; parameter -= rate * velocity.",
            "With 0.9, a rate of about 0.2 is stable and fast enough.",
        ),
    ),
    Exercise(
        name="best_step",
        points=1,
        cases=step_cases,
        hints=(
            "Turn points and step into float32 before anything else.",
            "The exact slope is the cosine, in float64; take the median error for each h.",
            "Return the entry of `steps` with the smallest median error.",
        ),
        mistake=step_mistake,
    ),
]
