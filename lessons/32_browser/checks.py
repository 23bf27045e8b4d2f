"""What a right answer is in the exercises on browsers: one NumPy reference for all tracks."""

from __future__ import annotations

import json
import math

import numpy as np

from utils.checks import Case, Exercise, Verdict

WIDTH = {"float32": 4, "int32": 4, "uint8": 1}


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def canvas_pixels(rgba: np.ndarray) -> np.ndarray:
    """Return the ink of each block, 0 to 255: (side, side, 4) bytes -> (28, 28)."""
    step = len(rgba) // 28
    ink = 255 - rgba[..., :3].astype(np.float32).mean(axis=2)
    return ink.reshape(28, step, 28, step).mean(axis=(1, 3))


def canvas_cases(rng: np.random.Generator) -> list[Case]:
    def case(rgba: np.ndarray, about: str) -> Case:
        return Case({"rgba": rgba}, expected=canvas_pixels(rgba), about=about)

    white = np.full((56, 56, 4), 255, np.uint8)
    bar = white.copy()
    bar[8:50, 10:16, :3] = 0
    noise = rng.integers(0, 256, (84, 84, 4)).astype(np.uint8)
    small = rng.integers(0, 256, (28, 28, 4)).astype(np.uint8)
    return [
        case(white, "white paper"),
        case(bar, "an upright black bar"),
        case(noise, "colors, and an alpha that is not 255"),
        case(small, "a canvas that has 28 by 28 pixels already"),
    ]


def canvas_mistake(case: Case, got: np.ndarray) -> str | None:
    rgba = case.args["rgba"]
    right, step = case.expected, len(rgba) // 28
    ink = 255 - rgba.astype(np.float32)
    wrong = {
        "ink must be high: subtract the gray from 255": 255 - right,
        "the model expects 0 to 255, it divides by itself": right / 255,
        "rows and columns have changed places": right.T,
        "alpha is no color: leave it out of the mean": ink.mean(axis=2)
        .reshape(28, step, 28, step)
        .mean(axis=(1, 3)),
        "take the mean of each block, not one pixel of it": ink[::step, ::step, :3].mean(axis=2),
    }
    if got.shape != (28, 28):
        return None
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-2):
            return reason
    if got.max() <= 255 and np.abs(got - right).max() > 80:
        return "did bytes overflow? turn them into float32 before you add or subtract"
    return None


def page_softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(z) / sum(exp(z)) of each row, computed in float64."""
    z = logits.astype(np.float64)
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def softmax_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, scale: float, shift: float, about: str, weight: float = 1) -> Case:
        logits = _normal(rng, n, k) * np.float32(scale) + np.float32(shift)
        expected = page_softmax(logits)
        return Case({"logits": logits}, expected=expected, about=about, weight=weight)

    return [
        case(1, 10, 1, 0, "one picture"),
        case(4, 4, 1, 0, "as many pictures as classes"),
        case(5, 10, 3, 120, "logits above 88", weight=2),
        case(5, 10, 3, -120, "logits below -104", weight=2),
    ]


def softmax_mistake(case: Case, got: np.ndarray) -> str | None:
    if not np.isfinite(got).all():
        return "exp overflows, or all of it is zero: subtract each row's largest logit first"
    z = case.args["logits"].astype(np.float64)
    columns = np.exp(z - z.max(axis=0)) / np.exp(z - z.max(axis=0)).sum(axis=0)
    if got.shape == z.shape and np.allclose(got, columns, atol=1e-4):
        return "each row must add up to 1, not each column"
    return None


def seconds_waited(files: list[tuple[int, bool]], megabits: float, visits: int) -> float:
    """Return the seconds of all downloads: what is kept travels once."""
    return sum(size * (1 if kept else visits) for size, kept in files) * 8 / (megabits * 1e6)


def waited_cases(rng: np.random.Generator) -> list[Case]:
    sizes = [int(n) for n in rng.integers(10_000, 4_000_000, 4)]

    def case(files: list[tuple[int, bool]], megabits: float, visits: int, about: str) -> Case:
        args = {"files": files, "megabits": megabits, "visits": visits}
        return Case(args, expected=seconds_waited(**args), about=about)

    return [
        case([(1_000_000, False)], 8.0, 1, "one file, one visit"),
        case([(s, True) for s in sizes], 50.0, 5, "all of it may be kept"),
        case([(s, i % 2 == 0) for i, s in enumerate(sizes)], 16.0, 3, "some may be kept"),
        case([], 16.0, 3, "no file at all"),
    ]


def waited_mistake(case: Case, got: np.ndarray) -> str | None:
    files, megabits, visits = case.args.values()
    right = case.expected
    if right == 0:
        return None
    wrong = {
        "a byte has eight bits": right / 8,
        "multiply by eight, do not divide: the sizes are bytes, the line carries bits": right / 64,
        "a megabit is a million bits, not 1,048,576": right * 1e6 / 2**20,
        "what may be kept travels on the first visit only": sum(s for s, _ in files)
        * visits
        * 8
        / (megabits * 1e6),
    }
    matches = (reason for reason, value in wrong.items() if np.isclose(value, got, rtol=1e-6))
    return next((reason for reason in matches if not np.isclose(got, right)), None)


def byte_ranges(manifest: str) -> list[tuple[int, int]]:
    """Return (begin, end) of each weight in the file."""
    ranges, begin = [], 0
    for entry in json.loads(manifest):
        stored = entry.get("quantization", entry)["dtype"]
        end = begin + math.prod(entry["shape"]) * WIDTH[stored]
        ranges.append((begin, end))
        begin = end
    return ranges


def ranges_cases(rng: np.random.Generator) -> list[Case]:
    def entry(name: str, shape: list[int], dtype: str = "float32", small: bool = False) -> dict:
        how = {"quantization": {"dtype": "uint8", "scale": 0.01, "min": -1.0}} if small else {}
        return {"name": name, "shape": shape, "dtype": dtype} | how

    a, b, c = (int(n) for n in rng.integers(3, 40, 3))
    plain = [entry("W1", [a, b]), entry("b1", [b]), entry("W2", [b, c]), entry("b2", [c])]
    mixed = [entry("W1", [a, b], small=True), entry("b1", [b]), entry("W2", [b, c], small=True)]
    constants = [entry("shape", [2], "int32"), entry("one", []), entry("mask", [a], "uint8")]
    about = {
        "four float32 weights": plain,
        "two of three made smaller": mixed,
        "a scalar, whole numbers and bytes": constants,
        "a kernel of four axes": [entry("conv", [3, 3, 1, c]), entry("b", [c])],
    }
    return [
        Case({"manifest": m}, expected=np.array(byte_ranges(m)), about=text)
        for text, m in zip(about, map(json.dumps, about.values()), strict=True)
    ]


def ranges_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    if got.shape != right.shape:
        return None
    manifest = json.loads(case.args["manifest"])
    whole = json.dumps([e | {"quantization": {"dtype": e["dtype"]}} for e in manifest])
    lengths = right[:, 1] - right[:, 0]
    if np.array_equal(got[:, 1] - got[:, 0], lengths) and not np.array_equal(got, right):
        return "the lengths are right: each weight begins where the one before it ends"
    if np.array_equal(got, byte_ranges(whole)) and not np.array_equal(got, right):
        return "the file holds the stored numbers: their type stands in `quantization`"
    if np.array_equal(got[:, 1], got[:, 0] + lengths - 1):
        return "the end is the byte where the next weight begins"
    return None


def packed(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return the bytes of the kernel's transpose, row by row, then those of the bias."""
    return np.frombuffer(kernel.T.tobytes() + bias.tobytes(), np.uint8)


def packed_cases(rng: np.random.Generator) -> list[Case]:
    def case(d_out: int, d_in: int, about: str) -> Case:
        args = {"kernel": _normal(rng, d_out, d_in), "bias": _normal(rng, d_out)}
        return Case(args, expected=packed(**args), about=about)

    return [
        case(3, 5, "three outputs"),
        case(4, 4, "a square kernel, where no shape tells"),
        case(10, 128, "the last layer of the lesson"),
    ]


def packed_mistake(case: Case, got: np.ndarray) -> str | None:
    kernel, bias = case.args.values()
    if got.shape != case.expected.shape:
        return None
    wrong = {
        "the kernel's bytes are in the order of (d_out, d_in): a reshape moves no number": (
            kernel,
            bias,
        ),
        "the kernel comes first, then the bias": (bias, kernel.T),
    }
    for reason, parts in wrong.items():
        if np.array_equal(got, np.frombuffer(b"".join(p.tobytes() for p in parts), np.uint8)):
            return reason
    return None


class ColumnsJudge:
    """Judges (steps, scale, zero): whole steps, zero exact, each column within half a step."""

    def __init__(self, W: np.ndarray) -> None:
        self.W = W

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, (tuple, list)) or len(value) != 3:
            return Verdict(0, "return three things: steps, scale, zero")
        steps, scale, zero = (np.asarray(part, np.float64) for part in value)
        d_out = self.W.shape[1]
        if steps.shape != self.W.shape or scale.shape != (d_out,) or zero.shape != (d_out,):
            shapes = steps.shape, scale.shape, zero.shape
            return Verdict(
                0, f"got shapes {shapes}, expected {self.W.shape}, {(d_out,)}, {(d_out,)}"
            )
        if not all(np.isfinite(part).all() for part in (steps, scale, zero)):
            return Verdict(0, "NaN or infinity: a column of zeros has a range of 0")
        for name, part in (("steps", steps), ("zero", zero)):
            if np.any(part != np.round(part)) or part.min() < 0 or part.max() > 255:
                return Verdict(0, f"{name} must be whole numbers from 0 to 255")
        return self._judge(steps, scale, zero)

    def _judge(self, steps: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Verdict:
        spread = np.maximum(self.W.max(axis=0), 0) - np.minimum(self.W.min(axis=0), 0)
        filled = spread > 0
        if np.any(np.abs(scale - spread / 255)[filled] > 1e-3 * spread[filled] / 255):
            return Verdict(0, "a step must be 1/255 of its own column's range, zero included")
        error = np.abs((steps - zero) * scale - self.W)
        # An end of the range may lie beyond the last step, since zero has to fall on one.
        inside = (steps > 0) & (steps < 255)
        worst = np.where(inside, error / np.maximum(scale, 1e-30), 0)[:, filled].max(initial=0)
        if worst > 0.51 or np.any(error[:, filled] > 1.01 * scale[filled]):
            return Verdict(0, f"W comes back with errors of {worst:.2f} steps, 0.5 at most asked")
        if np.any(error[:, ~filled] > 0):
            return Verdict(0, "a column of zeros must come back as zeros")
        return Verdict(1, "every column comes back within half a step of its own")


def columns_cases(rng: np.random.Generator) -> list[Case]:
    def case(W: np.ndarray, about: str) -> Case:
        return Case({"W": W}, judge=ColumnsJudge(W), about=about)

    uneven = _normal(rng, 40, 6) * np.float32(10.0) ** np.arange(-3, 3, dtype=np.float32)
    zeros = _normal(rng, 20, 4)
    zeros[:, 2] = 0
    return [
        case(_normal(rng, 30, 5), "columns alike"),
        case(uneven, "columns of very different size"),
        case(np.abs(_normal(rng, 16, 16)) + np.float32(0.5), "a square matrix, all of it positive"),
        case(zeros, "a column of zeros"),
    ]


EXERCISES = [
    Exercise(
        name="canvas_pixels",
        seconds=30,  # JAX compiles each shape anew
        points=2,
        cases=canvas_cases,
        tolerance=1e-3,
        hints=(
            "Take the three colors, turn them into float32, and look at the shape.",
            "The mean over the last axis gives (side, side); subtract it from 255.",
            "Reshape to (28, step, 28, step) and take the mean over the axes 1 and 3.",
        ),
        mistake=canvas_mistake,
    ),
    Exercise(
        name="page_softmax",
        seconds=30,  # JAX compiles each shape anew
        points=1,
        cases=softmax_cases,
        hints=(
            "softmax does not change if the same number is subtracted from a whole row.",
            "Subtract the row's largest logit: then the largest exp is 1.",
        ),
        mistake=softmax_mistake,
    ),
    Exercise(
        name="seconds_waited",
        points=1,
        cases=waited_cases,
        tolerance=1e-6,
        hints=(
            "First add up the bytes that travel in all: once, or once for each visit.",
            "A byte has eight bits; divide the bits by megabits times a million.",
        ),
        mistake=waited_mistake,
    ),
    Exercise(
        name="byte_ranges",
        points=2,
        cases=ranges_cases,
        tolerance=0,
        hints=(
            "How many numbers does a shape hold? For [] it is one.",
            "A number takes 4 bytes as float32 or int32, and 1 as uint8.",
            "Look for `quantization` first: its dtype is what the file holds.",
        ),
        mistake=ranges_mistake,
    ),
    Exercise(
        name="packed",
        points=2,
        cases=packed_cases,
        tolerance=0,
        hints=(
            "Print a small kernel and what becomes of it: which number stands second?",
            "A reshape keeps the order of the numbers; a transpose changes it.",
        ),
        mistake=packed_mistake,
    ),
    Exercise(
        name="quantize_columns",
        seconds=30,  # JAX compiles each shape anew
        points=2,
        cases=columns_cases,
        hints=(
            "Smallest and largest over axis 0 have shape (d_out,); widen the range to hold zero.",
            "scale = (high - low) / 255 and zero = round(-low / scale), for all columns at once.",
            "Where high equals low, take 1 as the scale: the steps of zeros are zeros anyway.",
        ),
    ),
]
