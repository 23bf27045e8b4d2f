"""What a right answer is in the exercises on defining models: one NumPy reference for all."""

from __future__ import annotations

import numpy as np

from utils import data
from utils.checks import Case, Exercise, Verdict


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _weights(rng: np.random.Generator, d_in: int, d_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return W (d_in, d_out), scaled so that the outputs stay near 1, and b (d_out,)."""
    return _normal(rng, d_in, d_out) / np.float32(np.sqrt(d_in)), _normal(rng, d_out)


def residual_block(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return x + tanh(x W + b): (n, d), (d, d), (d,) -> (n, d)."""
    return x + np.tanh(x @ W + b)


def residual_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, about: str) -> Case:
        W, b = _weights(rng, d, d)
        args = {"x": _normal(rng, n, d), "W": W, "b": b}
        return Case(args, expected=residual_block(**args), about=about)

    return [
        case(6, 4, "a small batch"),
        case(1, 3, "a batch of one"),
        case(5, 5, "as many examples as columns"),
        case(3, 1, "a width of one"),
    ]


def _named(wrong: dict[str, np.ndarray], got: np.ndarray) -> str | None:
    """Return the reason whose values are those that came back."""
    for reason, values in wrong.items():
        if values.shape == got.shape and np.allclose(values, got, atol=1e-4):
            return reason
    return None


def residual_mistake(case: Case, got: np.ndarray) -> str | None:
    x, W, b = case.args.values()
    wrong = {
        "the skip is missing: add x to what the block gives": np.tanh(x @ W + b),
        "x must be added after the tanh, not inside of it": np.tanh(x + x @ W + b),
        "the tanh is missing": x + x @ W + b,
        "the bias is missing": x + np.tanh(x @ W),
        "W is used transposed, and a square matrix lets you": x + np.tanh(x @ W.T + b),
    }
    return _named(wrong, got)


def two_input_count(mix_size: int, age_size: int, width: int, blocks: int, tied: bool) -> int:
    """Return the number of parameters: of stem, blocks (one if tied), head and output."""
    different = min(blocks, 1) if tied else blocks
    stem, block = (mix_size + 1) * width, (width + 1) * width
    return stem + different * block + (width + age_size + 1) * width + width + 1


def count_cases(rng: np.random.Generator) -> list[Case]:
    def case(about: str, blocks: int, tied: bool, *sizes: int) -> Case:
        mix_size, age_size, width = sizes
        args = {"mix_size": mix_size, "age_size": age_size, "width": width}
        args |= {"blocks": blocks, "tied": tied}
        return Case(args, expected=two_input_count(**args), about=about)

    sizes = [int(n) for n in rng.integers(2, 40, 3)]
    return [
        case("the lesson's network", 1, False, 7, 1, 16),
        case("three blocks", 3, False, *sizes),
        case("three uses of one block", 3, True, *sizes),
        case("no block at all, tied or not", 0, True, *sizes),
    ]


def count_mistake(case: Case, got: np.ndarray) -> str | None:
    args = case.args
    other = two_input_count(**(args | {"tied": not args["tied"]}))
    if got == other and args["blocks"] > 1:
        kind = "once: it is one layer, used often" if args["tied"] else "each for itself"
        return f"count the blocks {kind}"
    if got == two_input_count(**(args | {"age_size": 0})):
        return "the head also takes the columns that join"
    without = int(case.expected) - args["width"] * 2 - 1
    if got == without - args["width"] * (
        args["blocks"] if not args["tied"] else args["blocks"] > 0
    ):
        return "the biases are missing, one for each output of each layer"
    return None


START = np.float32(0.01)


def largest_seen(batches: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return x by the largest absolute value of each column in all batches, at least 0.01."""
    return x / np.maximum(np.abs(batches).max(axis=(0, 1)), START)


def scaled_cases(rng: np.random.Generator) -> list[Case]:
    def case(k: int, n: int, d: int, about: str, empty: bool = False) -> Case:
        batches, x = _normal(rng, k, n, d), 3 * _normal(rng, 4, d)
        batches[0, 0] = -5  # a negative value is the largest in its column
        if empty:
            batches[:, :, 0] = 0
        args = {"batches": batches, "x": x}
        return Case(args, judge=ScaledJudge(batches, x), about=about)

    return [
        case(3, 6, 4, "three batches"),
        case(1, 1, 1, "one batch of one number"),
        case(4, 5, 2, "a column of zeros", empty=True),
    ]


class ScaledJudge:
    """Judges (values, trained, kept): the values are worth two thirds, the state one."""

    def __init__(self, batches: np.ndarray, x: np.ndarray) -> None:
        self.batches, self.x = batches, x

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or len(value) != 3:
            return Verdict(0, "return three things, as the given function does")
        got, trained, kept = np.asarray(value[0]), int(value[1]), int(value[2])
        expected = largest_seen(self.batches, self.x)
        if got.shape != expected.shape:
            return Verdict(0, f"got shape {got.shape}, expected {expected.shape}")
        if not np.allclose(got, expected, rtol=1e-5, atol=1e-5):
            return Verdict(0, self._why(got))
        if trained != 0:
            text = f"the values are right, but {trained} array is trained: it must be state"
            return Verdict(2 / 3, text)
        if kept != 1:
            text = f"the values are right, but {kept} arrays are kept with the layer, expected 1"
            return Verdict(2 / 3, text)
        return Verdict(1)

    def _why(self, got: np.ndarray) -> str:
        seen = np.abs(self.batches).max(axis=(0, 1))
        together = np.maximum(seen, np.abs(self.x).max(axis=0))
        highest = np.maximum(self.batches.max(axis=(0, 1)), START)
        wrong = {
            "the layer learned from x too: change the state only while training": self.x
            / np.maximum(together, START),
            "take the absolute value before the maximum": self.x / highest,
            "the last batch has replaced what was seen before it": self.x
            / np.maximum(np.abs(self.batches[-1]).max(axis=0), START),
            "x comes back as it is: nothing was remembered": self.x,
            "nothing was remembered: the value is still 0.01": self.x / START,
        }
        return _named(wrong, got) or "the values are not x by the largest absolute value seen"


def encoder(
    x: np.ndarray, W1: np.ndarray, b1: np.ndarray, W2: np.ndarray, b2: np.ndarray
) -> np.ndarray:
    """Return h + tanh(h W2 + b2) of h = tanh(x W1 + b1): (n, d_in) -> (n, d)."""
    h = np.tanh(x @ W1 + b1)
    return h + np.tanh(h @ W2 + b2)


def encoder_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d_in: int, d: int, about: str) -> Case:
        (W1, b1), (W2, b2) = _weights(rng, d_in, d), _weights(rng, d, d)
        args = {"x": _normal(rng, n, d_in), "W1": W1, "b1": b1, "W2": W2, "b2": b2}
        return Case(args, expected=encoder(**args), about=about)

    return [case(5, 7, 16, "the size of the lesson"), case(1, 3, 3, "one example, all square")]


def encoder_mistake(case: Case, got: np.ndarray) -> str | None:
    x, W1, b1, W2, b2 = case.args.values()
    h = np.tanh(x @ W1 + b1)
    block = np.tanh(h @ W2 + b2)
    wrong = {
        "this adds the block's output to itself: what did h hold before that line?": block + block,
        "the skip is gone altogether": block,
        "add h after the tanh, not inside of it": np.tanh(h + h @ W2 + b2),
    }
    return _named(wrong, got)


def carried(
    stem: np.ndarray, head: np.ndarray, out: np.ndarray, mix: np.ndarray, age: np.ndarray
) -> np.ndarray:
    """Return the output of the network; each layer is (d_out, d_in + 1), its bias last."""

    def dense(stored: np.ndarray, x: np.ndarray) -> np.ndarray:
        return x @ stored[:, :-1].T + stored[:, -1]

    z = np.concatenate([np.tanh(dense(stem, mix)), age], axis=1)
    return dense(out, np.tanh(dense(head, z)))


def carried_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, width: int, about: str) -> Case:
        sizes = {"stem": (d, width), "head": (width + 1, width + 1), "out": (width + 1, 1)}
        pairs = {name: _weights(rng, *size) for name, size in sizes.items()}
        args = {n: np.concatenate([W.T, b[:, None]], axis=1) for n, (W, b) in pairs.items()}
        args |= {"mix": _normal(rng, n, d), "age": _normal(rng, n, 1)}
        return Case(args, expected=carried(**args), about=about)

    return [
        case(6, 7, 8, "a batch; the head's matrix is square"),
        case(1, 4, 4, "a batch of one; the stem is square, too"),
    ]


def carried_mistake(case: Case, got: np.ndarray) -> str | None:
    *stored, mix, age = case.args.values()

    def turned(a: np.ndarray) -> np.ndarray:
        square = a.shape[0] == a.shape[1] - 1
        return np.concatenate([a[:, :-1].T, a[:, -1:]], axis=1) if square else a

    def bare(a: np.ndarray) -> np.ndarray:
        return np.concatenate([a[:, :-1], 0 * a[:, -1:]], axis=1)

    def bias_first(a: np.ndarray) -> np.ndarray:
        return np.roll(a, -1, axis=1)

    wrong = {
        "the biases are missing: they are the last column": bare,
        "the bias is the last column, not the first": bias_first,
        "a square matrix is in the wrong layout, and its shape did not tell": turned,
    }
    return _named({why: carried(*map(f, stored), mix, age) for why, f in wrong.items()}, got)


PARTS = ("cement", "blast_furnace_slag", "fly_ash", "water", "superplasticizer")
PARTS += ("coarse_aggregate", "fine_aggregate")
SPLIT_SEED = 4  # the lesson's split of the mixes
GOOD, FAIR = 7.0, 7.5  # test RMSE in MPa; the solutions reach 6.0 to 6.7


def gated_cases(rng: np.random.Generator) -> list[Case]:
    concrete = data.load("concrete")
    mixes = np.unique(concrete["mix_id"])
    kept = np.random.default_rng(SPLIT_SEED).permutation(mixes)[: len(mixes) // 5]
    is_test = np.isin(concrete["mix_id"], kept)

    def standardized(columns: np.ndarray) -> np.ndarray:
        rows = columns[~is_test]
        return ((columns - rows.mean(axis=0)) / rows.std(axis=0)).astype(np.float32)

    strength = concrete["compressive_strength"][:, None]
    mix = standardized(np.stack([concrete[name] for name in PARTS], axis=1))
    age, y = standardized(np.log(concrete["age"][:, None])), standardized(strength)
    test = rng.permutation(np.flatnonzero(is_test))
    args = {"mix_train": mix[~is_test], "age_train": age[~is_test], "y_train": y[~is_test]}
    args |= {"mix_test": mix[test], "age_test": age[test]}
    judge = GatedJudge(y[test], float(strength[~is_test].std()))
    return [Case(args, judge=judge, about="on the concrete data")]


class GatedJudge:
    """Judges (predictions, gate): half of the points from 7.5 MPa on, all of them from 7."""

    def __init__(self, truth: np.ndarray, unit: float) -> None:
        self.truth, self.unit = truth, unit

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or len(value) != 2:
            return Verdict(0, "return two things: the predictions and the gate's values")
        predicted, gate = (np.asarray(part, np.float64) for part in value)
        if predicted.shape != self.truth.shape:
            text = f"predictions: got shape {predicted.shape}, expected {self.truth.shape}"
            return Verdict(0, text)
        if gate.ndim != 2 or len(gate) != len(self.truth):
            return Verdict(0, f"gate: got shape {gate.shape}, expected ({len(self.truth)}, k)")
        if not (np.all(gate >= 0) and np.all(gate <= 1)):
            return Verdict(0, "the gate has values outside of 0 to 1: is the sigmoid missing?")
        if np.ptp(gate, axis=0).max() < 1e-3:
            return Verdict(0, "the gate is the same in all rows: it must depend on h")
        rmse = float(np.sqrt(np.mean((predicted - self.truth) ** 2)) * self.unit)
        reached = f"test RMSE {rmse:.2f} MPa"
        if rmse <= GOOD:
            return Verdict(1, f"{reached}, at most {GOOD} asked")
        return Verdict(0.5 if rmse <= FAIR else 0, f"{reached}, expected at most {GOOD}")


EXERCISES = [
    Exercise(
        name="residual_block",
        points=1,
        cases=residual_cases,
        hints=(
            "The block is a dense layer with tanh; the skip is one addition.",
            "Add x last, outside of the tanh.",
        ),
        mistake=residual_mistake,
    ),
    Exercise(
        name="two_input_count",
        points=1,
        cases=count_cases,
        hints=(
            "A layer from a to b has a * b weights and b biases.",
            "The join puts columns side by side, so the head takes width + age_size of them.",
            "A tied block counts once, however often it is used; no block counts nothing.",
        ),
        mistake=count_mistake,
    ),
    Exercise(
        name="scaled",
        points=2,
        cases=scaled_cases,
        hints=(
            "Three things: make the state, change it while training, divide by it always.",
            "The new state is the larger of the old state and the batch's largest absolute value.",
            "The lesson's RunningMean shows how state is made so that it is kept, but not trained.",
        ),
    ),
    Exercise(
        name="encoder",
        points=2,
        cases=encoder_cases,
        hints=(
            "Say for each line what h holds after it.",
            "When the last line adds, the h that should go around the block is gone.",
            "Give the output of the block a name of its own.",
        ),
        mistake=encoder_mistake,
    ),
    Exercise(
        name="carried",
        points=2,
        cases=carried_cases,
        seconds=10,  # each case has other shapes, and JAX compiles for each
        tolerance=1e-4,
        hints=(
            "Take the last column off first: that is the bias. What is left is (d_out, d_in).",
            "Which layout does your framework's layer keep? One of the two needs a transpose.",
            "The sizes are in the shapes: d_out is the number of rows, d_in the columns less one.",
        ),
        mistake=carried_mistake,
    ),
    Exercise(
        name="gated",
        points=2,
        cases=gated_cases,
        seconds=120,
        hints=(
            "Take the lesson's network; the gate is one more dense layer on h, with a sigmoid.",
            "A width of 32, Adam at 0.003 and 60 epochs in batches of 32 get there.",
            "Longer is not better here: after about 100 epochs the test error rises again.",
        ),
    ),
]
