"""What a right answer is in the exercises on ONNX and porting: one NumPy reference for all."""

from __future__ import annotations

import numpy as np

from utils.checks import Case, Exercise


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def channels_last_rows(W: np.ndarray, c: int, h: int, w: int) -> np.ndarray:
    """Return the matrix behind a channels-last flatten: (d_out, c h w) -> (h w c, d_out)."""
    return W.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(h * w * c, -1)


def rows_cases(rng: np.random.Generator) -> list[Case]:
    def case(d_out: int, c: int, h: int, w: int, about: str) -> Case:
        args = {"W": _normal(rng, d_out, c * h * w), "c": c, "h": h, "w": w}
        return Case(args, expected=channels_last_rows(**args), about=about)

    return [
        case(10, 4, 7, 7, "the network of the lesson"),
        case(5, 3, 2, 4, "pictures that are not square"),
        case(1, 3, 3, 3, "one output, and as many channels as pixels in a row"),
        case(6, 1, 3, 2, "one channel, where both orders are the same"),
    ]


def rows_mistake(case: Case, got: np.ndarray) -> str | None:
    W, c, h, w = case.args.values()
    boxes = W.reshape(-1, c, h, w)
    wrong = {
        "transposed only: the rows still stand channel by channel": W.T,
        "reshaped only: a reshape never changes the order of numbers": W.reshape(c * h * w, -1),
        "height and width have changed places": boxes.transpose(3, 2, 1, 0),
        "W arrives channels first: reshape it to (d_out, c, h, w)": W.reshape(
            -1, h, w, c
        ).transpose(1, 2, 3, 0),
    }
    for reason, values in wrong.items():
        if np.allclose(values.reshape(got.shape), got, atol=1e-5):
            return reason
    return None


def lstm_for_onnx(W: np.ndarray, b_input: np.ndarray, b_hidden: np.ndarray) -> np.ndarray:
    """Return columns in the order i, o, f, g with the summed bias as last row.

    Source of the order: the LSTM operator of the ONNX specification, W[iofc].
    """
    whole = np.vstack([W.T, b_input + b_hidden])
    i, f, g, o = np.split(whole, 4, axis=1)
    return np.hstack([i, o, f, g])


def lstm_cases(rng: np.random.Generator) -> list[Case]:
    def case(d: int, u: int, about: str) -> Case:
        W = _normal(rng, 4 * u, d)
        args = {"W": W, "b_input": _normal(rng, 4 * u), "b_hidden": _normal(rng, 4 * u)}
        return Case(args, expected=lstm_for_onnx(**args), about=about)

    return [
        case(3, 2, "three inputs, two units"),
        case(8, 2, "a square matrix, where a transposed W would go unnoticed"),
        case(1, 1, "one input, one unit"),
    ]


def lstm_mistake(case: Case, got: np.ndarray) -> str | None:
    W, b_input, b_hidden = case.args.values()
    right = case.expected
    i, o, f, g = np.split(right, 4, axis=1)
    if np.allclose(got, np.hstack([i, f, g, o]), atol=1e-5):
        return "the gates still stand in the order i, f, g, o"
    if np.allclose(got, np.hstack([i, f, o, g]), atol=1e-5):
        return "this is the order i, f, o, g: the output gate comes second"
    if np.allclose(got[:-1], right[:-1], atol=1e-5):
        order = np.hstack([i, f, g, o])[-1]
        if np.allclose(got[-1], order, atol=1e-5):
            return "the matrices are in order, the bias is not"
        return "the matrices are right; the bias must be the sum of both, in the same order"
    if len(W) == W.shape[1] and np.allclose(np.sort(got[:-1].ravel()), np.sort(W.ravel())):
        return "all numbers of W are there: are its rows columns now?"
    return None


def fold_norm(
    W: np.ndarray,
    b: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> np.ndarray:
    """Return W' with b' below it, so that x W' + b' is the normalized x W + b.

    Source: (z - mean) / sqrt(variance + epsilon) * scale + offset, with z = x W + b, sorted by x.
    """
    factor = scale / np.sqrt(variance + epsilon)
    return np.vstack([W * factor, (b - mean) * factor + offset])


def fold_cases(rng: np.random.Generator) -> list[Case]:
    def case(d_in: int, d_out: int, epsilon: float, about: str) -> Case:
        args = {"W": _normal(rng, d_in, d_out), "b": _normal(rng, d_out)}
        args |= {"scale": 1 + 0.2 * _normal(rng, d_out), "offset": _normal(rng, d_out)}
        args["mean"] = _normal(rng, d_out)
        args["variance"] = rng.uniform(0.05, 0.5, d_out).astype(np.float32)
        args["epsilon"] = epsilon
        return Case(args, expected=fold_norm(**args), about=about)

    return [
        case(4, 3, 1e-3, "four inputs, three outputs"),
        case(3, 3, 1e-5, "a square matrix"),
        case(5, 1, 0.1, "one output, and a large epsilon"),
    ]


def fold_mistake(case: Case, got: np.ndarray) -> str | None:
    W, b, scale, offset, mean, variance, epsilon = case.args.values()
    factor = scale / np.sqrt(variance + epsilon)
    wrong = {
        "epsilon is missing": fold_norm(W, b, scale, offset, mean, variance, 0),
        "epsilon is added to the variance, inside the root": fold_norm(
            W, b, scale, offset, mean, (np.sqrt(variance) + epsilon) ** 2, 0
        ),
        "the root is missing: divide by the standard deviation": fold_norm(
            W, b, scale, offset, mean, (variance + epsilon) ** 2, 0
        ),
        "b is normalized, too: subtract the mean from it": np.vstack(
            [W * factor, b * factor + offset]
        ),
        "b has to be multiplied by the factor as well": np.vstack(
            [W * factor, b - mean * factor + offset]
        ),
    }
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-5):
            return reason
    if W.shape[0] == W.shape[1] and np.allclose(got[:-1], W * factor[:, None], atol=1e-5):
        return "the factor belongs to an output, and outputs are columns of W"
    return None


def first_parting(seen: np.ndarray, wanted: np.ndarray, tolerance: float) -> int:
    """Return the index of the first layer that differs, -1 if none; NaN differs from all."""
    agree = [bool(np.all(np.abs(a - b) <= tolerance)) for a, b in zip(seen, wanted, strict=True)]
    return agree.index(False) if False in agree else -1


def parting_cases(rng: np.random.Generator) -> list[Case]:
    def case(layer: int, change: float, about: str, weight: float = 1) -> Case:
        wanted = _normal(rng, 4, 5, 3)
        seen = wanted + 1e-6 * _normal(rng, 4, 5, 3)
        if layer >= 0:
            seen[layer, 2, 1] += np.float32(change)
            seen[layer + 1 :] += 1  # what follows a wrong layer is wrong
        args = {"seen": seen, "wanted": wanted, "tolerance": 1e-4}
        return Case(args, expected=first_parting(**args), about=about, weight=weight)

    return [
        case(2, 0.5, "one number too large, in layer 2", 0.5),
        case(1, -0.5, "one number too small, in layer 1"),
        case(0, -0.5, "one number too small, in layer 0", 0.5),
        case(1, np.nan, "one NaN in layer 1"),
        case(3, np.nan, "one NaN in the last layer", 0.5),
        case(2, 3e-4, "one number a little over the tolerance, in layer 2", 0.5),
        case(-1, 0, "rounding only", 0.5),
    ]


def parting_mistake(case: Case, got: np.ndarray) -> str | None:
    seen = case.args["seen"]
    if got == case.expected:
        return None
    if np.isnan(seen).any():
        return "a comparison with NaN is always false: ask what agrees, not what differs"
    if case.expected == -1:
        return "differences below the tolerance are rounding"
    layer = int(case.expected)
    if np.abs(seen[layer] - case.args["wanted"][layer]).mean() < case.args["tolerance"]:
        return "one number over the tolerance is enough: ask all of them, not their mean"
    return "a number that is too small differs as well: take the absolute value"


def through_int8(W: np.ndarray) -> np.ndarray:
    """Return W after 8 bits and back, a scale for each column: (d_in, d_out) -> same."""
    scale = np.abs(W).max(axis=0) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.rint(W / scale) * scale


def int8_cases(rng: np.random.Generator) -> list[Case]:
    def case(W: np.ndarray, about: str) -> Case:
        return Case({"W": W}, expected=through_int8(W), about=about)

    sizes = np.array([0.01, 1, 100], np.float32)
    dead = _normal(rng, 6, 4)
    dead[:, 2] = 0
    return [
        case(_normal(rng, 8, 3), "a plain matrix"),
        case(_normal(rng, 8, 3) * sizes, "columns of very different sizes"),
        case(dead, "a column of zeros"),
        case(_normal(rng, 1, 5), "one row"),
    ]


def int8_mistake(case: Case, got: np.ndarray) -> str | None:
    W = case.args["W"]
    whole = np.abs(W).max() / 127
    safe = np.where(np.abs(W).max(axis=0) == 0, 1, np.abs(W).max(axis=0)) / 127
    rows = np.abs(W).max(axis=1, keepdims=True) / 127
    wrong = {
        "this is one scale for the whole matrix; each column has its own": np.rint(W / whole)
        * whole,
        "these are the integers: multiply by the scale again": np.rint(W / safe),
        "this cuts the digits off: take the nearest integer": np.trunc(W / safe) * safe,
        "these are scales of the rows; a column belongs to one output": np.rint(W / rows) * rows,
    }
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-5):
            return reason
    return None


EXERCISES = [
    Exercise(
        name="channels_last_rows",
        points=2,
        seconds=20,
        cases=rows_cases,
        hints=(
            "Three steps: give each row its shape as a picture, change the axes, flatten again.",
            "Each row of W is a picture (c, h, w), so W is (d_out, c, h, w) after a reshape.",
            "Bring the axes into the order h, w, c, d_out, then reshape to (h * w * c, d_out).",
        ),
        mistake=rows_mistake,
    ),
    Exercise(
        name="lstm_for_onnx",
        points=2,
        seconds=20,
        cases=lstm_cases,
        hints=(
            "Transpose W, cut it into four parts along its columns, and put them together again.",
            "The parts arrive as i, f, g, o, and leave as i, o, f, g.",
            "In an LSTM both biases of a gate are only added: one row with their sum is enough.",
        ),
        mistake=lstm_mistake,
    ),
    Exercise(
        name="fold_norm",
        points=2,
        seconds=20,
        cases=fold_cases,
        hints=(
            "Write (x W + b - mean) * factor + offset, and sort: what is multiplied by x?",
            "factor = scale / sqrt(variance + epsilon), one number for each output.",
            "W' = W * factor, column by column; b' = (b - mean) * factor + offset.",
        ),
        mistake=fold_mistake,
    ),
    Exercise(
        name="first_parting",
        points=2,
        seconds=20,
        cases=parting_cases,
        hints=(
            "Which differences does `a - b > tolerance` see, and which not?",
            "NaN > 1 is False, and so is NaN <= 1. Which of the two questions is the safe one?",
            "A layer agrees if *all* absolute differences are at most the tolerance.",
        ),
        mistake=parting_mistake,
    ),
    Exercise(
        name="through_int8",
        points=2,
        seconds=20,
        cases=int8_cases,
        hints=(
            "The scale is the largest absolute value of each column, divided by 127.",
            "Divide by the scale, round to the nearest integer, multiply by the scale.",
            "Where the scale is 0, take 1: zero divided by anything is zero then.",
        ),
        mistake=int8_mistake,
    ),
]
