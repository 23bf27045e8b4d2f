"""What a right answer is in the exercises on saving and shipping: one reference for all tracks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from utils.checks import Case, Exercise, Verdict, misfit

TYPES = {"F32": "<f4", "I64": "<i8"}  # as safetensors calls them, as NumPy calls them


def checkpoint_bytes(sizes: list[int], slots: int) -> int:
    """Return the bytes of a dense network's float32 numbers and of `slots` arrays for each."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return 4 * sum((d_in + 1) * d_out for d_in, d_out in pairs) * (1 + slots)


def bytes_cases(rng: np.random.Generator) -> list[Case]:
    deep = [int(size) for size in rng.integers(2, 50, 5)]
    sets = {
        "the lesson's network with momentum": ([784, 128, 10], 1),
        "plain gradient descent": (deep, 0),
        "Adam": (deep, 2),
        "a single layer": ([7, 1], 2),
    }
    return [
        Case({"sizes": sizes, "slots": slots}, checkpoint_bytes(sizes, slots), about=about)
        for about, (sizes, slots) in sets.items()
    ]


def bytes_mistake(case: Case, got: np.ndarray) -> str | None:
    sizes, slots = case.args.values()
    right = int(case.expected)
    if got * 4 == right:
        return "these are numbers, and each of them has four bytes"
    if slots and got == right // (1 + slots):
        return "this is the weights alone: the optimizer's arrays are missing"
    if slots and got == right // (1 + slots) * slots:
        return "this is the optimizer alone: the weights are missing"
    if got == right - 4 * sum(sizes[1:]) * (1 + slots):
        return "the biases are missing, one for each output of each layer"
    return None


def brighten(x: np.ndarray) -> np.ndarray:
    """Return x with each row doubled whose mean is below 0.3."""
    return np.where(x.mean(axis=1, keepdims=True) < 0.3, 2 * x, x)


def brighten_cases(rng: np.random.Generator) -> list[Case]:
    def case(means: list[float], d: int, about: str) -> Case:
        spread = rng.uniform(-0.05, 0.05, (len(means), d))  # keeps every mean clear of 0.3
        x = (np.array(means)[:, None] + spread).astype(np.float32)
        return Case({"x": x}, brighten(x), about=about)

    return [
        case([0.1, 0.8, 0.2, 0.6, 0.9], 30, "dark and light pictures in one batch"),
        case([0.9, 0.9, 0.1], 20, "one dark picture among light ones"),
        case([0.1], 12, "a dark picture alone"),
        case([0.7], 12, "a light picture alone"),
        case([0.1, 0.8, 0.1, 0.8], 4, "as many pictures as pixels"),
    ]


def brighten_mistake(case: Case, got: np.ndarray) -> str | None:
    x = case.args["x"]
    wrong = {
        "every picture was doubled": 2 * x,
        "no picture was doubled": x,
        "each pixel was judged by itself, not each picture": np.where(x < 0.3, 2 * x, x),
        "each column was judged, not each picture: take the mean over axis 1": np.where(
            x.mean(axis=0, keepdims=True) < 0.3, 2 * x, x
        ),
        "the light ones were doubled": np.where(x.mean(axis=1, keepdims=True) < 0.3, x, 2 * x),
    }
    whole = 2 * x if x.mean() < 0.3 else x
    if len(x) > 1 and np.allclose(got, whole, atol=1e-5):
        return "the batch was judged as a whole: each picture needs a mean of its own"
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-5):
            return reason
    return None


def as_file(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return a safetensors file of float32 and int64 arrays, in the order given."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset, body = 0, b""
    names = {dtype: name for name, dtype in TYPES.items()}
    for name, array in arrays.items():
        body += np.ascontiguousarray(array).tobytes()
        about = {"dtype": names[array.dtype.str], "shape": list(array.shape)}
        header[name] = about | {"data_offsets": [offset, len(body)]}
        offset = len(body)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def tensor_cases(rng: np.random.Generator) -> list[Case]:
    W, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (3,)))
    square = rng.standard_normal((4, 4)).astype(np.float32)
    step = np.array(int(rng.integers(300, 10_000)), np.int64)
    both = {"W": W, "b": b}

    def case(arrays: dict[str, np.ndarray], name: str, about: str, **metadata: str) -> Case:
        text = as_file(arrays, metadata).hex()
        return Case({"text": text, "name": name}, judge=TensorJudge(arrays[name]), about=about)

    return [
        case(both, "W", "the first of two arrays"),
        case(both, "b", "the second of two arrays"),
        case({"b": b, "W": square}, "W", "a square matrix", framework="none"),
        case({"W": W, "step": step}, "step", "a whole number without a shape"),
    ]


class TensorJudge:
    """Judges an array by its shape, its type and its numbers, which are exact."""

    def __init__(self, expected: np.ndarray) -> None:
        self.expected = expected

    def __call__(self, value: Any) -> Verdict:
        got, right = np.asarray(value), self.expected
        if got.shape != right.shape:
            why = ": the numbers are right" if np.array_equal(got.ravel(), right.ravel()) else ""
            return Verdict(0, f"got shape {got.shape}, expected {right.shape}{why}")
        if np.array_equal(got, right) and got.dtype != right.dtype:
            return Verdict(0, f"the numbers are right, their type is {got.dtype}: see the header")
        if np.array_equal(got, right):
            return Verdict(1)
        turned = np.array_equal(got, right.ravel().reshape(right.shape, order="F"))
        why = "they lie rows first" if turned else "where do they begin, and of what type are they?"
        return Verdict(0, f"these are not the numbers of the file: {why}")


def classify(W: np.ndarray, b: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return softmax(x W + b) of pictures of bytes, divided by 255: (n, h, w) -> (n, k)."""
    logits = images.reshape(len(images), -1).astype(np.float64) / 255 @ W + b
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


class ShipJudge:
    """Judges the answers to two batches of different sizes, half of the score each."""

    def __init__(self, args: dict[str, np.ndarray]) -> None:
        self.W, self.b, *self.batches = args.values()

    def __call__(self, value: Any) -> Verdict:
        expected = tuple(classify(self.W, self.b, batch) for batch in self.batches)
        if problem := misfit(value, expected, "exp of a large logit? A softmax is built in"):
            return problem
        for name, got, right, images in zip(
            ("first", "second"), value, expected, self.batches, strict=True
        ):
            if not np.allclose(got, right, atol=1e-5):
                why = self._why(np.asarray(got), images)
                gap = np.abs(got - right).max()
                return Verdict(0, f"{name}: the largest difference is {gap:.2g}{why}")
        return Verdict(1)

    def _why(self, got: np.ndarray, images: np.ndarray) -> str:
        logits = images.reshape(len(images), -1) / 255 @ self.W + self.b
        tall = images.transpose(0, 2, 1)
        wrong = {
            "the bytes were not divided by 255": classify(self.W, self.b, images * 255.0),
            "these are logits: the softmax is missing": logits,
            "the bytes were divided by 256": classify(self.W, self.b, images * (255 / 256)),
            "the picture was made flat column by column": classify(self.W, self.b, tall),
            "the bias is missing": classify(self.W, 0 * self.b, images),
        }
        for reason, values in wrong.items():
            if np.allclose(got, values, atol=1e-5):
                return f": {reason}"
        return ""


def ship_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, m: int, height: int, width: int, about: str) -> Case:
        pixels = height * width
        args = {
            "W": (rng.standard_normal((pixels, 4)) / np.sqrt(pixels)).astype(np.float32),
            "b": rng.standard_normal(4).astype(np.float32),
            "first": rng.integers(0, 256, (n, height, width)).astype(np.uint8),
            "second": rng.integers(0, 256, (m, height, width)).astype(np.uint8),
        }
        return Case(args, judge=ShipJudge(args), about=about)

    return [
        case(3, 8, 6, 5, "three pictures, then eight"),
        case(4, 1, 8, 8, "four pictures, then one"),
    ]


def cheaper_after(load_a: int, call_a: int, load_b: int, call_b: int) -> int:
    """Return the smallest n >= 1 with load_b + n call_b < load_a + n call_a, or 0."""
    extra, gain = load_b - load_a, call_a - call_b
    if gain > extra:
        return 1
    return extra // gain + 1 if gain > 0 else 0


def cheaper_cases(rng: np.random.Generator) -> list[Case]:
    extra, gain = int(rng.integers(100, 900)), int(rng.integers(2, 9))
    sets = {
        "slow to load, fast to call": (10, 20, 10 + extra, 20 - gain),
        "it comes out even, which is not less": (10, 7, 40, 4),
        "cheaper from the first call": (50, 5, 20, 5),
        "never": (10, 5, 90, 5),
        "slower to call, and yet cheaper at first": (90, 5, 10, 9),
        "slower in both": (10, 3, 20, 8),
    }
    names = ("load_a", "call_a", "load_b", "call_b")
    return [
        Case(dict(zip(names, numbers, strict=True)), cheaper_after(*numbers), about=about)
        for about, numbers in sets.items()
    ]


def cheaper_mistake(case: Case, got: np.ndarray) -> str | None:
    load_a, call_a, load_b, call_b = case.args.values()
    right = int(case.expected)
    if right > 1 and got == right - 1:
        return "after so many calls it has not taken less yet: mind the even case"
    if right == 1 and got <= 0:
        return "at least one call is made, and after that one B has taken less"
    if right == 0:
        return "B never catches up: it does not gain at a call what its loading costs more"
    return None


EXERCISES = [
    Exercise(
        name="checkpoint_bytes",
        points=1,
        cases=bytes_cases,
        hints=(
            "A layer from a to b has a * b weights and b biases.",
            "Each number is kept once itself, and `slots` times by the optimizer.",
            "4 * (the sum of (a + 1) * b over neighboring sizes) * (1 + slots).",
        ),
        mistake=bytes_mistake,
    ),
    Exercise(
        name="brighten",
        points=2,
        cases=brighten_cases,
        seconds=30,  # the first call may compile, on a busy machine
        hints=(
            "Compute both versions of the batch, and choose for each row.",
            "The mean of each row has to keep its axis, so that it stands beside the row: (n, 1).",
            "`where(condition, 2 * x, x)` chooses, element by element, and (n, 1) spreads to all.",
        ),
        mistake=brighten_mistake,
    ),
    Exercise(
        name="read_tensor",
        points=3,
        cases=tensor_cases,
        hints=(
            "bytes.fromhex(text) first; int.from_bytes(raw[:8], 'little') is the header's length.",
            "The header is raw[8 : 8 + length]; json.loads reads it.",
            "Offsets count from 8 + length. np.frombuffer(part, '<f4' or '<i8').reshape(shape).",
        ),
    ),
    Exercise(
        name="ship",
        points=3,
        cases=ship_cases,
        seconds=60,
        hints=(
            "First write the function from bytes to probabilities, then save or export it.",
            "Bytes have to become float32 before they are divided, flat before the product.",
            "The size of the batch must be free at export: see 'Any batch size' in the lesson.",
        ),
    ),
    Exercise(
        name="cheaper_after",
        points=1,
        cases=cheaper_cases,
        hints=(
            "B costs load_b - load_a more once, and gains call_a - call_b at each call.",
            "After n calls B has taken less if n * gain > extra.",
            "Look at one call first; then, if there is a gain, extra // gain + 1; else never.",
        ),
        mistake=cheaper_mistake,
    ),
]
