"""What a right answer is in the exercises on engines: one NumPy reference for all tracks."""

from __future__ import annotations

import json

import numpy as np

from utils import parity
from utils.checks import Case, Exercise, Verdict


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def masked_softmax(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the softmax over the places where mask is true, 0 elsewhere: (n, k) -> (n, k)."""
    largest = np.max(scores, axis=-1, keepdims=True, where=mask, initial=-np.inf)
    powers = np.exp(np.where(mask, scores - largest, -np.inf))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


def softmax_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, about: str, scale: float = 1, empty: bool = False) -> Case:
        mask = rng.random((n, k)) < 0.6
        mask[:, 0] = True
        scores = _normal(rng, n, k) * np.float32(scale)
        scores[0, -1], mask[0, -1] = 3 * scale, False  # what may not be seen can be the largest
        if empty:
            mask[-1] = False
        args = {"scores": scores, "mask": mask}
        return Case(args, expected=masked_softmax(**args), about=about)

    return [
        case(4, 6, "a small batch"),
        case(1, 5, "a batch of one"),
        case(5, 5, "a square of scores"),
        case(4, 6, "scores so large that exp overflows", scale=200),
        case(3, 4, "a row in which nothing may be seen", empty=True),
    ]


def softmax_mistake(case: Case, got: np.ndarray) -> str | None:
    scores, mask = case.args.values()
    plain = masked_softmax(scores, np.ones_like(mask))
    if np.isnan(got).any():
        return (
            "is a row divided by a total of 0?"
            if (~mask).all(axis=1).any()
            else "exp of a large score overflows: subtract each row's largest score first"
        )
    if np.allclose(got, plain, atol=1e-4):
        return "the mask is not used"
    if np.allclose(got, plain * mask, atol=1e-4):
        return "the weights that are left must add up to 1: mask before you divide by the total"
    if (~mask).all(axis=1).any() and not np.allclose(got[-1], 0):
        return "the row in which nothing may be seen must be all zeros"
    return None


def _layer(kind: str, name: str, module: str = "keras.layers") -> dict:
    config = {"name": name, "trainable": True}
    package = None if module.startswith("keras") else f"their>{kind}"
    return {"module": module, "class_name": kind, "config": config, "registered_name": package}


def _model(name: str, layers: list[dict], module: str = "keras") -> dict:
    config = {"name": name, "trainable": True, "layers": layers}
    return {"module": module, "class_name": "Sequential", "config": config}


def config_cases(rng: np.random.Generator) -> list[Case]:
    n = int(rng.integers(10, 99))
    dense, relu = _layer("Dense", f"dense_{n}"), _layer("ReLU", "re_lu")
    bare = _layer("Lambda", f"lambda_{n}")
    norm = _layer("RMSNorm", f"norm_{n}", module="their_code")
    unnamed = _layer("Attend", f"attend_{n}", module="builtins")
    inner = _model("inner", [dense, norm, _model("core", [bare, relu], "keras.models")])
    stacks = {
        "layers of Keras only": ([dense, relu], []),
        "a Lambda layer": ([dense, bare, relu], [bare]),
        "somebody's own layer": ([norm, dense], [norm]),
        "both, the order kept": ([bare, dense, unnamed, norm], [bare, unnamed, norm]),
        "models inside a model": ([relu, inner, unnamed], [norm, bare, unnamed]),
    }
    return [
        Case(
            {"text": json.dumps(_model(f"model_{n}", stack))},
            judge=NamesJudge([layer["config"]["name"] for layer in wanted]),
            about=about,
        )
        for about, (stack, wanted) in stacks.items()
    ]


class NamesJudge:
    """Judges a list of names: all of them, in their order, and no others."""

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple):
            return Verdict(0, f"got {type(value).__name__}, expected a list of names")
        got = [str(name) for name in value]
        if got == self.wanted:
            return Verdict(1)
        missing = [name for name in self.wanted if name not in got]
        extra = [name for name in got if name not in self.wanted]
        why = "the order is another"
        if missing:
            why = f"missing: {', '.join(missing)} (did you look inside models, and for Lambda?)"
        elif extra:
            why = f"these do open: {', '.join(extra)}"
        return Verdict(0, f"got {got}, expected {self.wanted}: {why}")


def maximum_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, about: str) -> Case:
        x = _normal(rng, n, k)
        return Case({"x": x}, expected=np.maximum.accumulate(x, axis=1), about=about)

    return [
        case(3, 5, "a small batch"),
        case(1, 7, "a batch of one"),
        case(4, 4, "a square, where the wrong axis would go unnoticed"),
    ]


def maximum_mistake(case: Case, got: np.ndarray) -> str | None:
    (x,) = case.args.values()
    if np.allclose(got, np.maximum.accumulate(x, axis=0)):
        return "the maximum runs down the columns: take axis 1"
    if np.allclose(got, x):
        return "the tensor came back unchanged"
    return None


RATE, EPSILON = 0.1, 1e-3


def trained_through_norm(x: np.ndarray, y: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return W after one step on mean((r(x W) - y)^2), r(h) = h / sqrt(mean(h^2) + epsilon).

    Source: with s = sqrt(mean(h^2) + epsilon) and g the gradient of the loss by r, the gradient by
    h is g / s - h sum(g h) / (k s^3), row by row.
    """
    x, y, W = (a.astype(np.float64) for a in (x, y, W))
    h = x @ W
    s = np.sqrt((h**2).mean(axis=1, keepdims=True) + EPSILON)
    g = 2 * (h / s - y) / y.size
    by_h = g / s - h * (g * h).sum(axis=1, keepdims=True) / (h.shape[1] * s**3)
    return W - RATE * x.T @ by_h


def norm_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, k: int, about: str) -> Case:
        args = {"x": _normal(rng, n, d), "y": _normal(rng, n, k), "W": _normal(rng, d, k)}
        return Case(args, expected=trained_through_norm(**args), about=about)

    return [
        case(6, 3, 4, "a small batch"),
        case(2, 5, 3, "two examples"),
        case(4, 4, 4, "a square of everything"),
    ]


def norm_mistake(case: Case, got: np.ndarray) -> str | None:
    x, y, W = (a.astype(np.float64) for a in case.args.values())
    if np.allclose(got, W, atol=1e-6):
        return "the weights have not moved: no gradient came through the layer"
    h = x @ W
    s = np.sqrt((h**2).mean(axis=1, keepdims=True) + EPSILON)
    cut = W - RATE * x.T @ (2 * (h / s - y) / y.size / s)
    if np.allclose(got, cut, atol=1e-4):
        return "the root mean square is a constant for your gradient: compute it with keras.ops"
    return None


def own_loop(x, y, W1, b1, W2, b2, steps: int, rate: float) -> np.ndarray:
    """Return the losses of gradient descent on mean((tanh(x W1 + b1) W2 + b2 - y)^2)."""
    x, y, W1, b1, W2, b2 = (a.astype(np.float64) for a in (x, y, W1, b1, W2, b2))
    losses = []
    for _ in range(steps):
        hidden = np.tanh(x @ W1 + b1)
        gap = hidden @ W2 + b2 - y
        losses.append((gap**2).mean())
        d_out = 2 * gap / len(x)
        d_hidden = d_out @ W2.T * (1 - hidden**2)
        W1, b1 = W1 - rate * x.T @ d_hidden, b1 - rate * d_hidden.sum(axis=0)
        W2, b2 = W2 - rate * hidden.T @ d_out, b2 - rate * d_out.sum(axis=0)
    return np.array(losses)


def loop_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, h: int, steps: int, rate: float, about: str) -> Case:
        (W1, _), (W2, _) = parity.dense_weights([d, h, 1], int(rng.integers(1000)))
        x = _normal(rng, n, d)
        weights = {"W1": W1, "b1": 0.1 * _normal(rng, h), "W2": W2, "b2": _normal(rng, 1)}
        args = {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True))} | weights
        args |= {"steps": steps, "rate": rate}
        return Case(args, expected=own_loop(**args), about=about)

    return [
        case(20, 3, 5, 1, 0.1, "one step: the loss at the start"),
        case(20, 3, 5, 30, 0.1, "thirty steps"),
        case(1, 2, 2, 5, 0.05, "a single example"),
    ]


def loop_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    steps, rate = case.args["steps"], case.args["rate"]
    if steps > 1 and np.allclose(got, right[0], atol=1e-5):
        return "the loss never changes: do the new weights reach the model?"
    longer = own_loop(**(case.args | {"steps": steps + 1}))
    if np.allclose(got, longer[1:], atol=1e-5):
        return "these are the losses after each step, not before it"
    if np.allclose(got, own_loop(**(case.args | {"rate": -rate})), atol=1e-5):
        return "the loss climbs: subtract the gradient"
    if np.allclose(got, own_loop(**(case.args | {"rate": rate / 2})), atol=1e-5):
        return "the step is half as long as asked: is a 2 of the square lost?"
    return None


EXERCISES = [
    Exercise(
        name="masked_softmax",
        points=2,
        cases=softmax_cases,
        hints=(
            "The softmax is exp(score) over the sum of all exp(score); masked places count 0.",
            "Subtract each row's largest *visible* score first: ops.where picks what is visible.",
            "Where the total is 0, divide by 1 instead: ops.where(total == 0, 1.0, total).",
        ),
        mistake=softmax_mistake,
    ),
    Exercise(
        name="stay_at_home",
        points=2,
        cases=config_cases,
        hints=(
            'json.loads(text)["config"]["layers"] is the list of layers.',
            'Keep a layer\'s name if its module is not "keras.layers" or its class is "Lambda".',
            "A model inside looks like the whole: call your function on it again.",
        ),
    ),
    Exercise(
        name="running_maximum",
        points=1,
        cases=maximum_cases,
        hints=(
            "Three steps: over, compute, back.",
            "from_dlpack of the other library takes your tensor as it is.",
            "Back again it is from_dlpack, or for Keras convert_to_tensor.",
        ),
        mistake=maximum_mistake,
    ),
    Exercise(
        name="trained_through_norm",
        points=2,
        cases=norm_cases,
        seconds=30,
        hints=(
            "Read the message of the error: who is asked for numbers that are not there yet?",
            "Every np. in `call` has a twin in keras.ops.",
            "ops.mean, ops.square and ops.sqrt; axis and keepdims stay as they are.",
        ),
        mistake=norm_mistake,
    ),
    Exercise(
        name="own_loop",
        points=3,
        cases=loop_cases,
        seconds=30,
        tolerance=1e-4,
        hints=(
            "Make the model with regressor(W1, b1, W2, b2), then repeat: loss, gradient, step.",
            "model.trainable_variables are the weights, and the gradients come in their order.",
            "Keep each loss before its step; all examples go into every step.",
        ),
        mistake=loop_mistake,
    ),
]
