"""What a right answer is in the exercises on data pipelines: one reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils.checks import Case, Exercise, Verdict


def pad_and_mask(words: list[int], lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    padded = np.zeros(mask.shape, int)
    padded[mask] = words
    return padded, mask.astype(int)


def pad_cases(rng: np.random.Generator) -> list[Case]:
    def case(lengths: list[int], about: str) -> Case:
        words = rng.integers(0, 9, sum(lengths)).tolist()
        words[-1] = 0  # a word like any other
        args = {"words": words, "lengths": lengths}
        return Case(args, judge=PadJudge(**args), about=about)

    return [
        case([3, 1, 5], "three rows, a word numbered 0 among them"),
        case([4, 0, 2], "an empty row"),
        case([6], "a batch of one"),
        case([7] * 7, "a square without padding"),
    ]


class PadJudge:
    """Judges (padded, mask); either may be of any whole-number or boolean dtype."""

    def __init__(self, words: list[int], lengths: list[int]) -> None:
        self.right, self.lengths = pad_and_mask(words, lengths), lengths

    def __call__(self, value: object) -> Verdict:
        if not isinstance(value, tuple) or len(value) != 2:
            return Verdict(0, "return two things: the padded rows and the mask")
        for name, got, right in zip(("padded", "mask"), value, self.right, strict=True):
            if np.shape(got) != right.shape:
                return Verdict(0, f"{name}: got shape {np.shape(got)}, expected {right.shape}")
            if not np.array_equal(got, right):
                return Verdict(0, f"{name}: {self._why(name, got)}")
        return Verdict(1)

    def _why(self, name: str, got: np.ndarray) -> str:
        padded, mask = self.right
        if name == "padded":
            turns = zip(padded, self.lengths, strict=True)
            front = [np.roll(row, len(row) - length) for row, length in turns]
            if np.array_equal(got, front):
                return "the padding stands in front, it was asked for at the end"
            return "the numbers are not those of the rows with zeros behind them"
        if np.array_equal(got, padded != 0):
            return "a word numbered 0 is masked out: make the mask from the lengths"
        if np.array_equal(got, 1 - mask):
            return "it is the wrong way round: 1 where a word is"
        return "expected 1 in the first places of each row, then 0"


def least_padding(lengths: list[int], batch_size: int) -> list[list[int]]:
    order = np.argsort(lengths, kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padding(batches: list[list[int]], lengths: list[int]) -> int:
    return sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)


def bucket_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, batch_size: int, about: str) -> Case:
        args = {"lengths": rng.integers(1, 60, n).tolist(), "batch_size": batch_size}
        return Case(args, judge=BucketJudge(**args), about=about)

    return [
        case(12, 3, "four batches"),
        case(8, 8, "a single batch"),
        case(5, 1, "batches of one"),
        case(200, 20, "many"),
    ]


class BucketJudge:
    """Judges batches of indices by their sizes, by what they hold and by their padding."""

    def __init__(self, lengths: list[int], batch_size: int) -> None:
        self.lengths, self.batch_size = lengths, batch_size

    def __call__(self, value: object) -> Verdict:
        batches = [[int(i) for i in batch] for batch in value]
        if any(len(batch) != self.batch_size for batch in batches):
            return Verdict(0, f"got batches of {sorted({len(b) for b in batches})} sentences")
        if sorted(i for b in batches for i in b) != list(range(len(self.lengths))):
            return Verdict(0, "every index must come exactly once: return indices, not lengths")
        got = padding(batches, self.lengths)
        least = padding(least_padding(self.lengths, self.batch_size), self.lengths)
        if got > least:
            return Verdict(0, f"got {got} padded places, {least} are possible")
        return Verdict(1)


def encode_rows(
    train_x: np.ndarray, train_c: list[str], test_x: np.ndarray, test_c: list[str]
) -> np.ndarray:
    mean = np.nanmean(train_x)
    std = np.where(np.isnan(train_x), mean, train_x).std()
    scaled = (np.where(np.isnan(test_x), mean, test_x) - mean) / std
    known = sorted(set(train_c))
    slots = [known.index(c) + 1 if c in known else 0 for c in test_c]
    return np.concatenate([scaled[:, None], np.eye(len(known) + 1)[slots]], axis=1)


def encode_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, m: int, train_c: str, test_c: str, about: str) -> Case:
        train_x, test_x = (rng.normal(3, 2, size).astype(np.float32) for size in (n, m))
        train_x[1] = np.nan
        test_x[0] = np.nan
        args = {
            "train_x": train_x,
            "train_c": rng.permutation(list(train_c) * n)[:n].tolist(),
            "test_x": test_x,
            "test_c": rng.choice(list(test_c), m).tolist(),
        }
        return Case(args, expected=encode_rows(**args), about=about)

    return [
        case(30, 8, "abc", "abc", "known categories"),
        case(30, 6, "abc", "xyz", "categories that the training part does not have"),
        case(40, 1, "ab", "b", "one test row, and its number is missing"),
        case(30, 12, "dca", "abcd", "some known, some not"),
    ]


def encode_mistake(case: Case, got: np.ndarray) -> str | None:
    right = case.expected
    if not np.allclose(got[:, 1:], right[:, 1:]):
        if np.allclose(got[:, 1:-1], right[:, 2:]):
            return "slot 0 is for unknown categories, the known ones come after it"
        return "the one-hot part is wrong: are the categories those of the training part, sorted?"
    train_x, _, test_x, _ = case.args.values()
    both = np.concatenate([train_x, test_x])
    mean = np.nanmean(both)
    std = np.where(np.isnan(both), mean, both).std()
    if np.allclose(got[:, 0], (np.where(np.isnan(test_x), mean, test_x) - mean) / std, atol=1e-4):
        return "the statistics come from all rows: that is a leak"
    if np.allclose(got[:, 0], right[:, 0] * np.sqrt(1 - 1 / len(train_x)), atol=1e-5):
        return "the standard deviation divides by n here, not by n - 1"
    return None


def batches_left(n: int, batch_size: int, seed: int, epoch: int, step: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(n)
    steps = n // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)[step:]


def left_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, batch_size: int, epoch: int, step: int, about: str) -> Case:
        seed = int(rng.integers(100))
        args = {"n": n, "batch_size": batch_size, "seed": seed, "epoch": epoch, "step": step}
        return Case(args, expected=batches_left(**args), about=about)

    return [
        case(12, 3, 0, 2, "half of an epoch"),
        case(23, 4, 3, 1, "a later epoch, with a remainder"),
        case(10, 5, 1, 0, "nothing done yet"),
        case(10, 5, 1, 2, "everything done: no rows"),
    ]


def left_mistake(case: Case, got: np.ndarray) -> str | None:
    if len(got) and np.array_equal(got, batches_left(**(case.args | {"epoch": 0}))):
        return "this is the order of epoch 0: the epoch is part of the seed"
    return None


def prepare(X: np.ndarray, order: np.ndarray, n_train: int) -> np.ndarray:
    X = X[order]
    return (X - X[:n_train].mean(axis=0)) / X[:n_train].std(axis=0)


def prepare_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, d: int, n_train: int, about: str) -> Case:
        X = rng.normal(1, 2, (n, d)).astype(np.float32)
        args = {"X": X, "order": rng.permutation(n), "n_train": n_train}
        return Case(args, expected=prepare(**args), about=about)

    return [case(20, 3, 12, "a table"), case(8, 8, 6, "a square"), case(50, 1, 40, "one column")]


def prepare_mistake(case: Case, got: np.ndarray) -> str | None:
    X, order, n_train = case.args.values()
    if np.allclose(got, prepare(X, order, len(X)), atol=1e-4):
        return "the test rows are still in the mean and the standard deviation"
    in_old_order = (X[order] - X[:n_train].mean(axis=0)) / X[:n_train].std(axis=0)
    if np.allclose(got, in_old_order, atol=1e-4):
        return "the training rows are the first ones after the shuffle, not before it"
    return None


def share_waiting(read: float, compute: float, workers: int) -> float:
    if workers == 0:
        return read / (read + compute)
    return 1 - compute / max(compute, read / workers)


def share_cases(rng: np.random.Generator) -> list[Case]:
    read = float(rng.integers(20, 60))
    cases = {
        "one after the other": (read, 10.0, 0),
        "one worker": (read, 10.0, 1),
        "two workers": (30.0, 10.0, 2),
        "as many as needed": (50.0, 10.0, 5),
        "quick reading": (2.0, 10.0, 1),
    }
    return [
        Case({"read": r, "compute": c, "workers": w}, share_waiting(r, c, w), about=about)
        for about, (r, c, w) in cases.items()
    ]


def share_mistake(case: Case, got: np.ndarray) -> str | None:
    read, compute, workers = case.args.values()
    if got < 0:
        return "training cannot wait less than not at all: reading that is quicker costs nothing"
    if workers and np.isclose(got, read / (read + compute)):
        return "with workers, reading and computing happen at the same time"
    return None


EXERCISES = [
    Exercise(
        name="pad_and_mask",
        points=2,
        cases=pad_cases,
        seconds=30,
        hints=(
            "The rectangle is as wide as the longest list; start from zeros.",
            "The mask depends on the lengths only: place j of row i is real if j < length of i.",
            "Compare a row of 0, 1, 2, ... with a column of lengths; broadcasting does the rest.",
        ),
    ),
    Exercise(
        name="least_padding",
        points=2,
        cases=bucket_cases,
        hints=(
            "What does a batch cost? Only its longest sentence and the gaps below it.",
            "Neighbors in length belong together.",
            "Sort the indices by length, then cut them into pieces of batch_size.",
        ),
    ),
    Exercise(
        name="encode_rows",
        points=2,
        cases=encode_cases,
        seconds=30,
        hints=(
            "Nothing of the test rows may go into the mean, the deviation or the categories.",
            "NaN is not equal to itself: use isnan, and where to fill.",
            "The slot is the place in the sorted training categories plus 1, or 0.",
        ),
        tolerance=1e-4,
        mistake=encode_mistake,
    ),
    Exercise(
        name="batches_left",
        points=1,
        cases=left_cases,
        hints=(
            "Make the whole order of the epoch again: it depends on seed and epoch only.",
            "Cut off the remainder, reshape into rows, and leave out the first `step` rows.",
        ),
        mistake=left_mistake,
    ),
    Exercise(
        name="prepare",
        points=2,
        cases=prepare_cases,
        seconds=30,
        hints=(
            "Which rows go into the mean?",
            "After the shuffle, the training part is the first n_train rows.",
        ),
        tolerance=1e-4,
        mistake=prepare_mistake,
    ),
    Exercise(
        name="share_waiting",
        points=1,
        cases=share_cases,
        hints=(
            "How long does one step take, from batch to batch, and how much of that is computing?",
            "With w workers a batch is ready every read / w milliseconds.",
            "A step takes the larger of the two times; what is not computing is waiting.",
        ),
        mistake=share_mistake,
    ),
]
