"""What a right answer is in the exercises on small models: one NumPy reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils.checks import Case, Exercise, Verdict, misfit


def _coded(rng: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix and its codes by column, far from where rounding could go either way."""
    codes = rng.integers(-126, 127, (rows, columns))
    off = rng.uniform(-0.3, 0.3, codes.shape)
    peak = rng.integers(0, rows, columns), np.arange(columns)
    codes[peak], off[peak] = rng.choice([-127, 127], columns), 0
    scale = rng.uniform(0.001, 0.03, (1, columns))
    return ((codes + off) * scale).astype(np.float32), codes.astype(np.int8)


def column_codes(W: np.ndarray) -> np.ndarray:
    largest = np.abs(W).max(axis=0, keepdims=True)
    factor = 127 / np.where(largest == 0, 1, largest)
    return np.clip(np.round(W * factor), -127, 127).astype(np.int8)


def codes_cases(rng: np.random.Generator) -> list[Case]:
    zeros, _ = _coded(rng, 8, 4)
    zeros[:, 1] = 0
    shapes = {"a small matrix": (6, 3), "a square matrix": (5, 5), "a single column": (40, 1)}
    cases = {about: _coded(rng, *shape)[0] for about, shape in shapes.items()}
    cases["a column of zeros"] = zeros
    return [Case({"W": W}, judge=CodesJudge(W), about=about) for about, W in cases.items()]


class CodesJudge:
    """Judges int8 codes exactly, and names the usual wrong turns."""

    def __init__(self, W: np.ndarray) -> None:
        self.W, self.right = W, column_codes(W)

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, np.ndarray) or value.shape != self.right.shape:
            return Verdict(0, f"got shape {np.shape(value)}, expected {self.right.shape}")
        if value.dtype != np.int8:
            return Verdict(0, f"got the dtype {value.dtype}, expected int8")
        if np.array_equal(value, self.right):
            return Verdict(1)
        wrong = np.count_nonzero(value != self.right)
        text = f"{wrong} of {value.size} codes are wrong"
        return Verdict(0, f"{text}: {self._why(value)}" if self._why(value) else text)

    def _why(self, value: np.ndarray) -> str:
        zero = ~self.W.any(axis=0)
        if value[:, zero].any() or np.array_equal(value[:, ~zero], self.right[:, ~zero]):
            return "a column of zeros divides zero by zero"
        with np.errstate(divide="ignore", invalid="ignore"):
            turns = {
                "one scale for the whole matrix was asked for by nobody: one for each column": (
                    np.round(self.W * (127 / np.abs(self.W).max()))
                ),
                "these scales belong to the rows": np.round(
                    self.W * (127 / np.abs(self.W).max(axis=1, keepdims=True))
                ),
                "a cast cuts off: round first": np.trunc(
                    self.W * (127 / np.abs(self.W).max(axis=0, keepdims=True))
                ),
                "the largest value becomes 127, not 128": np.clip(
                    np.round(self.W * (128 / np.abs(self.W).max(axis=0, keepdims=True))), -128, 127
                ),
            }
        for reason, codes in turns.items():
            if np.array_equal(codes[:, ~zero], value[:, ~zero]):
                return reason
        return ""


def packed_bytes(sizes: list[int], bits: int) -> int:
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    return sum(-(-d_in * d_out * bits // 8) + 8 * d_out for d_in, d_out in pairs)


def bytes_cases(rng: np.random.Generator) -> list[Case]:
    odd = [int(size) for size in 2 * rng.integers(2, 20, 4) + 1]
    stacks = {
        "the lesson's network in int8": ([784, 128, 10], 8),
        "the lesson's network in int4": ([784, 128, 10], 4),
        "odd sizes in four bits: half a byte is left over": (odd, 4),
        "a single layer": ([10, 1], 8),
    }
    return [
        Case({"sizes": s, "bits": b}, expected=packed_bytes(s, b), about=about)
        for about, (s, b) in stacks.items()
    ]


def bytes_mistake(case: Case, got: np.ndarray) -> str | None:
    sizes, bits = case.args.values()
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    weights = sum(a * b for a, b in pairs) * bits
    outputs = sum(sizes[1:])
    if got == case.expected - 4 * outputs:
        return "each output has a bias *and* a scale, 4 bytes each"
    if got == case.expected - 8 * outputs:
        return "the biases and the scales are missing"
    if got in (weights + 8 * outputs, weights):
        return "these are bits: eight of them are a byte"
    if got == sum(a * b * bits // 8 + 8 * b for a, b in pairs):
        return "half a byte takes a whole one: round up"
    return None


def whole_dense(x: np.ndarray, codes: np.ndarray, scale: np.ndarray, b: np.ndarray) -> np.ndarray:
    x_scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    sums = np.round(x / x_scale).astype(np.int64) @ codes.astype(np.int64)
    return (sums * (x_scale * scale) + b).astype(np.float32)


def whole_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d_in: int, d_out: int, about: str) -> Case:
        codes = rng.integers(-127, 128, (d_in, d_out)).astype(np.int8)
        x = np.ascontiguousarray(_coded(rng, d_in, n)[0].T)
        args = {"x": x, "codes": codes}
        args["scale"] = (rng.uniform(0.2, 1, (1, d_out)) / d_in / 40).astype(np.float32)
        args["b"] = rng.standard_normal(d_out).astype(np.float32)
        return Case(args, expected=whole_dense(**args), about=about)

    return [
        case(6, 3, 4, "a small batch"),
        case(1, 5, 20, "a batch of one"),
        case(7, 7, 7, "a square matrix"),
        case(20, 784, 16, "as wide as a picture"),
    ]


def whole_mistake(case: Case, got: np.ndarray) -> str | None:
    x, codes, scale, b = case.args.values()
    by_row = np.abs(x).max(axis=1, keepdims=True) / 127
    shared = np.abs(x).max() / 127
    exact = np.round(x / by_row).astype(np.int64) @ codes.astype(np.int64)
    wrong = {
        "the bias is missing": case.expected - b,
        "the scale of the rows is missing": exact * scale + b,
        "the scale of the columns is missing": exact * by_row + b,
        "the sums overflowed int8: add up in int32": exact.astype(np.int8) * (by_row * scale) + b,
        "each row has a scale of its own, not the whole batch": (
            np.round(x / shared).astype(np.int64) @ codes.astype(np.int64) * (shared * scale) + b
        ),
        "this is the product of floats: x has not become codes": x @ (codes * scale) + b,
    }
    for reason, values in wrong.items():
        if np.allclose(values, got, atol=1e-5):
            return reason
    return None


def calibrated_scale(batches: np.ndarray) -> np.ndarray:
    return np.abs(batches).max() / 127


def scale_cases(rng: np.random.Generator) -> list[Case]:
    def case(batches: np.ndarray, about: str) -> Case:
        batches = batches.astype(np.float32)
        return Case({"batches": batches}, expected=calibrated_scale(batches), about=about)

    first = rng.standard_normal((4, 5, 3))
    first[0] *= 10
    return [
        case(first, "the largest value comes in the first batch"),
        case(rng.uniform(-9, 1, (3, 6, 2)), "the largest value is negative"),
        case(rng.standard_normal((1, 4, 4)), "a single batch"),
    ]


def scale_mistake(case: Case, got: np.ndarray) -> str | None:
    batches = case.args["batches"]
    wrong = {
        "only the last batch counts": (np.abs(batches[-1]).max(), batches[-1].max()),
        "a large negative value needs room, too": (batches.max(),),
    }
    for reason, values in wrong.items():
        if np.allclose(np.array(values) / 127, got, atol=1e-7, rtol=1e-5) or any(
            np.isclose(value / 127, got, atol=1e-7) for value in values
        ):
            return reason
    return None


def drop_units(
    W1: np.ndarray, b1: np.ndarray, W2: np.ndarray, units: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=1)
    keep = np.sort(np.argsort(-score)[:units])
    return W1[:, keep], b1[keep], W2[keep]


def units_cases(rng: np.random.Generator) -> list[Case]:
    def case(d: int, h: int, k: int, units: int, about: str) -> Case:
        # The products of the norms are 1, 2, ... h in a random order, far from any tie; the norm
        # of what comes in, or of what goes out, alone gives another order.
        coming, product = rng.uniform(0.2, 5, h), rng.permutation(h) + 1.0
        W1, W2 = rng.standard_normal((d, h)), rng.standard_normal((h, k))
        W1 *= coming / np.linalg.norm(W1, axis=0)
        W2 *= (product / coming / np.linalg.norm(W2, axis=1))[:, None]
        arrays = [a.astype(np.float32) for a in (W1, rng.standard_normal(h), W2)]
        args = dict(zip(("W1", "b1", "W2"), arrays, strict=True)) | {"units": units}
        return Case(args, judge=UnitsJudge(args), about=about)

    return [
        case(6, 8, 3, 5, "five units of eight"),
        case(9, 9, 9, 4, "square matrices"),
        case(5, 7, 2, 1, "a single unit"),
        case(20, 30, 10, 30, "all units: nothing changes"),
    ]


class UnitsJudge:
    """Judges the three smaller arrays, and names the usual wrong turns."""

    def __init__(self, args: dict) -> None:
        self.args, self.right = args, drop_units(**args)

    def __call__(self, value: object) -> Verdict:
        if (verdict := misfit(value, self.right, "do not divide by a norm")) is not None:
            return verdict
        if all(np.allclose(a, b, atol=1e-6) for a, b in zip(value, self.right, strict=True)):
            return Verdict(1)
        return Verdict(0, self._why(value))

    def _why(self, value: tuple[np.ndarray, ...]) -> str:
        W1, b1, W2, units = self.args.values()
        if np.array_equal(np.sort(value[1]), np.sort(self.right[1])):
            if not np.allclose(value[1], self.right[1]):
                return "the right units, but not in their order: sort the indices"
            return "b1 is right; take the columns of W1 and the rows of W2"
        scores = {
            "only what comes in was counted": np.linalg.norm(W1, axis=0),
            "only what goes out was counted": np.linalg.norm(W2, axis=1),
            "these are the weakest units": -np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=1),
        }
        for reason, score in scores.items():
            if set(np.argsort(-score)[:units]) == set(np.flatnonzero(np.isin(b1, value[1]))):
                return reason
        return "these are other units"


EXERCISES = [
    Exercise(
        name="column_codes",
        points=2,
        cases=codes_cases,
        seconds=120,
        hints=(
            "The largest absolute value of each column becomes 127.",
            "Multiply each column by 127 over that value, round, clip, and cast to int8.",
            "Where a column's largest value is 0, put a 1 in its place before you divide.",
        ),
    ),
    Exercise(
        name="packed_bytes",
        points=1,
        cases=bytes_cases,
        seconds=120,
        hints=(
            "A layer from a to b has a * b weights and b outputs.",
            "Its weights take a * b * bits bits; each output adds 4 + 4 bytes.",
            "-(-n // 8) divides by eight and rounds up.",
        ),
        mistake=bytes_mistake,
    ),
    Exercise(
        name="whole_dense",
        points=3,
        cases=whole_cases,
        seconds=120,
        tolerance=1e-4,
        hints=(
            "Five steps: a scale for each row, codes, the product, the two scales, the bias.",
            "The scale of a row is its largest absolute value over 127, of shape (n, 1).",
            "Multiply in int32, then by x_scale * scale, which has shape (n, d_out).",
        ),
        mistake=whole_mistake,
    ),
    Exercise(
        name="calibrated_scale",
        points=2,
        cases=scale_cases,
        seconds=120,
        hints=(
            "Call it with two batches whose largest values you know.",
            "What happens to the largest value of the first batch? And to a large negative one?",
            "Keep the maximum of what is known and the largest absolute value of this batch.",
        ),
        mistake=scale_mistake,
    ),
    Exercise(
        name="drop_units",
        points=2,
        cases=units_cases,
        seconds=120,
        hints=(
            "A hidden unit is a column of W1, a number of b1 and a row of W2.",
            "Its score is the norm of the column times the norm of the row.",
            "Take the indices of the largest scores, sort them, and pick with them three times.",
        ),
    ),
]
