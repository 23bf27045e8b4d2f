"""What a right answer is in the exercises on dense layers: one NumPy reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils import data
from utils.checks import Case, Exercise, Verdict


def dense_forward(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return max(0, x W + b): (n, d_in), (d_in, d_out), (d_out,) -> (n, d_out)."""
    return np.maximum(x @ W + b, 0)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def dense_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d_in: int, d_out: int, about: str) -> Case:
        W = _normal(rng, d_in, d_out) / np.float32(np.sqrt(d_in))  # keeps the outputs near 1
        args = {"x": _normal(rng, n, d_in), "W": W, "b": _normal(rng, d_out)}
        return Case(args, expected=dense_forward(**args), about=about)

    return [
        case(6, 3, 4, "a small batch"),
        case(1, 5, 20, "a batch of one"),
        case(5, 5, 5, "a square matrix, where a transposed W would go unnoticed"),
        case(100, 784, 128, "the size of the lesson"),
    ]


def dense_mistake(case: Case, got: np.ndarray) -> str | None:
    """Name the usual wrong turns by what they would have given."""
    x, W, b = case.args.values()
    wrong = {
        "the ReLU is missing: no output may be negative": x @ W + b,
        "the bias is missing": np.maximum(x @ W, 0),
        "the bias must be added before the ReLU": np.maximum(x @ W, 0) + b,
        "W is used transposed": np.maximum(x @ W.T + b, 0) if W.shape[0] == W.shape[1] else np.nan,
    }
    if got.shape == (W.shape[1], len(x)) and got.shape != case.expected.shape:
        return "did you multiply x by W, in that order?"
    for reason, values in wrong.items():
        if np.shape(values) == got.shape and np.allclose(values, got, atol=1e-4):
            return reason
    return None


def parameter_count(sizes: list[int], bias: bool) -> int:
    """Return how many numbers a stack of dense layers learns."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return sum(d_in * d_out + bias * d_out for d_in, d_out in pairs)


def count_cases(rng: np.random.Generator) -> list[Case]:
    deep = [int(size) for size in rng.integers(2, 50, 6)]
    stacks = {
        "the lesson's network": ([784, 128, 10], True),
        "a single layer": ([10, 1], True),
        "a deep stack": (deep, True),
        "no biases": (deep, False),
    }
    return [
        Case({"sizes": s, "bias": b}, expected=parameter_count(s, b), about=about)
        for about, (s, b) in stacks.items()
    ]


def count_mistake(case: Case, got: np.ndarray) -> str | None:
    sizes, bias = case.args.values()
    if got == parameter_count(sizes, False) and bias:
        return "the biases are missing, one for each output of each layer"
    if got == parameter_count(sizes, True) and not bias:
        return "these layers have no bias"
    return None


def cross_entropy_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the gradient of the mean cross-entropy: (softmax(z) - onehot(y)) / n, of shape (n, k).

    Source: differentiate -log softmax(z)_y with respect to each z_k.
    """
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    return (probabilities - np.eye(logits.shape[1])[labels]) / len(logits)


def gradient_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, scale: float, about: str, weight: float = 1) -> Case:
        args = {"logits": _normal(rng, n, k) * np.float32(scale), "labels": rng.integers(0, k, n)}
        return Case(args, expected=cross_entropy_gradient(**args), about=about, weight=weight)

    return [
        case(1, 3, 1, "one example"),
        case(6, 4, 1, "a batch"),
        case(4, 3, 200, "logits so large that exp overflows"),
    ]


def gradient_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    n = len(right)
    if np.isnan(got).any():
        return "exp of a large logit overflows: subtract each row's largest logit first"
    if n > 1 and np.allclose(got, right * n, atol=1e-4):
        return "the loss is the mean over the batch, so divide by the number of examples"
    if np.allclose(got, -right, atol=1e-4):
        return "the sign is reversed"
    if any(np.allclose(got.sum(axis=1), total, atol=1e-4) for total in (1, 1 / n)):
        return "these are the probabilities: subtract 1 at the true class"
    return None


def class_scores(images: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return one row of scores for each picture: (n, 28, 28), (784, 10), (10,) -> (n, 10)."""
    return images.reshape(len(images), -1) @ W + b


def scores_cases(rng: np.random.Generator) -> list[Case]:
    pictures = data.load("fashion_mnist")["x_test"]

    def case(n: int, about: str) -> Case:
        images = pictures[rng.choice(len(pictures), n, replace=False)].astype(np.float32) / 255
        args = {
            "images": images,
            "W": _normal(rng, 784, 10) / np.float32(28),
            "b": _normal(rng, 10),
        }
        return Case(args, expected=class_scores(**args), about=about)

    return [case(2, "two pictures"), case(50, "a batch")]


def scores_mistake(case: Case, got: np.ndarray) -> str | None:
    images, W, b = case.args.values()
    if np.allclose(got, images.reshape(784, -1).T @ W + b, atol=1e-4):
        return "each row mixes pixels of several pictures: which axis holds the examples?"
    return None


MATRICES = 3  # two hidden layers need three weight matrices
GOOD, FAIR = 0.83, 0.78  # test accuracy; the solutions reach 0.84 to 0.85


def deeper_cases(rng: np.random.Generator) -> list[Case]:
    clothes = data.load("fashion_mnist")
    x_train, x_test = (
        clothes[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test")
    )
    shuffle = rng.permutation(len(x_test))
    args = {
        "X_train": x_train,
        "y_train": clothes["y_train"].astype(np.int64),
        "X_test": x_test[shuffle],
    }
    return [Case(args, judge=DeeperJudge(clothes["y_test"][shuffle]), about="on Fashion-MNIST")]


class DeeperJudge:
    """Judges (labels, shapes): half of the points from 78 % on, all of them from 83 %."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or len(value) != 2:
            return Verdict(0, "return two things: the predicted labels and the weights' shapes")
        labels, shapes = value
        if np.shape(labels) != self.truth.shape:
            expected = self.truth.shape
            return Verdict(0, f"labels: got shape {np.shape(labels)}, expected {expected}")
        matrices = [tuple(int(n) for n in s) for s in shapes if len(s) == 2]
        if len(matrices) < MATRICES:
            return Verdict(0, f"got weight matrices {matrices}: two hidden layers need three")
        accuracy = float(np.mean(np.asarray(labels) == self.truth))
        reached = f"test accuracy {accuracy:.3f}"
        if accuracy >= GOOD:
            return Verdict(1, f"{reached}, at least {GOOD} asked")
        return Verdict(0.5 if accuracy >= FAIR else 0, f"{reached}, expected at least {GOOD}")


EXERCISES = [
    Exercise(
        name="dense_forward",
        points=2,
        cases=dense_cases,
        hints=(
            "One product, one sum, one maximum with zero.",
            "The product is x times W; the shapes say so: (n, d_in) times (d_in, d_out).",
            "b has shape (d_out,), and adding it to (n, d_out) adds it to every row.",
        ),
        mistake=dense_mistake,
    ),
    Exercise(
        name="parameter_count",
        points=1,
        cases=count_cases,
        hints=(
            "Write down the shapes of W and b for each neighboring pair of sizes.",
            "A layer from a to b has a * b weights, and b biases if it has any.",
            "zip(sizes[:-1], sizes[1:]) gives the neighboring pairs.",
        ),
        mistake=count_mistake,
    ),
    Exercise(
        name="cross_entropy_gradient",
        points=3,
        cases=gradient_cases,
        hints=(
            "For one example, the derivative with respect to z_k is p_k, less 1 if k is true.",
            "Make a one-hot row of each label; the gradient is (softmax - onehot) / n.",
            "softmax does not change if each row's largest logit is subtracted first.",
        ),
        mistake=gradient_mistake,
    ),
    Exercise(
        name="class_scores",
        points=2,
        cases=scores_cases,
        hints=(
            "Print the shape after each line, then print what is *in* one row.",
            "A reshape keeps the order of the numbers: the first axis must stay the examples.",
            "Reshape to (number of images, -1), and no transpose is needed.",
        ),
        mistake=scores_mistake,
    ),
    Exercise(
        name="deeper",
        points=2,
        cases=deeper_cases,
        seconds=120,
        hints=(
            "Take the lesson's network and put a second hidden layer behind the first.",
            "Adam with its default rate and five to ten epochs in batches of 100 gets there.",
            "Labels are the argmax over the ten logits of each row of X_test.",
        ),
    ),
]
