"""What a right answer is in the exercises on two versions live: one reference for all tracks."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np

from utils.checks import Case, Exercise, Verdict, misfit


class ListJudge:
    """Judges a list of numbers or texts, and names the usual wrong turns by what they give."""

    def __init__(self, expected: list, wrong: dict[str, list]) -> None:
        self.expected, self.wrong = expected, wrong

    def __call__(self, value: object) -> Verdict:
        got = [item if isinstance(item, str) else np.asarray(item).item() for item in value]
        if got == self.expected:
            return Verdict(1)
        for reason, wrong in self.wrong.items():
            if got == wrong:
                return Verdict(0, reason)
        if len(got) != len(self.expected):
            return Verdict(0, f"got {len(got)} items, expected {len(self.expected)}")
        at = next(i for i, item in enumerate(self.expected) if got[i] != item)
        return Verdict(0, f"got {got[at]!r} at index {at}, expected {self.expected[at]!r}")


def place(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def assign(places: list[float], shares: list[float]) -> list[int]:
    """Return for each place the number of the share that it falls into, 0 for none of them."""
    ends = np.cumsum(shares)
    found = np.searchsorted(ends, places, side="right")
    return [int(i) + 1 if i < len(shares) else 0 for i in found]


def assign_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, shares: list[float], about: str) -> Case:
        users = [f"user-{i}" for i in rng.choice(10**6, n, replace=False).tolist()]
        salt = f"trial-{rng.integers(10**6)}"
        places = [place(f"{salt}:{user}") for user in users]
        alone = [[assign([p], [s])[0] for s in shares] for p in places]
        wrong = {
            "the salt is missing: every trial would get the same users": assign(
                [place(user) for user in users], shares
            ),
            "the shares do not overlap: the second one begins where the first one ends": [
                max((k for k, hit in enumerate(hits, 1) if hit), default=0) for hits in alone
            ],
            "version 0 is for the users that are in no share": [
                v - 1 if v else len(shares) for v in assign(places, shares)
            ],
        }
        args = {"users": users, "salt": salt, "shares": shares}
        return Case(args, judge=ListJudge(assign(places, shares), wrong), about=about)

    return [
        case(300, [0.1, 0.2], "two newcomers"),
        case(100, [0.5], "one newcomer"),
        case(50, [0.25, 0.25, 0.5], "nobody keeps the old version"),
        case(5, [], "no trial at all"),
    ]


def z_score(old: np.ndarray, new: np.ndarray) -> float:
    p = np.concatenate([old, new]).mean(dtype=np.float64)
    error = np.sqrt(p * (1 - p) * (1 / len(old) + 1 / len(new)))
    return (new.mean(dtype=np.float64) - old.mean(dtype=np.float64)) / error if error else 0.0


def z_cases(rng: np.random.Generator) -> list[Case]:
    def case(n1: int, n2: int, p1: float, p2: float, about: str) -> Case:
        old, new = ((rng.random(n) < p).astype(np.float32) for n, p in ((n1, p1), (n2, p2)))
        if 0 < p1 < 1:
            old[:2], new[:2] = (0, 1), (1, 0)  # of both kinds, whatever was drawn
        return Case({"old": old, "new": new}, expected=z_score(old, new), about=about)

    return [
        case(500, 500, 0.7, 0.8, "a better version"),
        case(900, 100, 0.8, 0.6, "a bad canary of 10 %"),
        case(3, 2, 0.5, 0.5, "five requests"),
        case(40, 20, 1.0, 1.0, "all answers right"),
        case(30, 10, 0.0, 0.0, "all answers wrong"),
    ]


def z_mistake(case: Case, got: np.ndarray) -> str | None:
    old, new = case.args.values()
    n1, n2, p1, p2 = len(old), len(new), old.mean(), new.mean()
    both = (p1 + p2) / 2
    wrong = {
        "the sign: new minus old": -case.expected,
        "this is the difference itself: divide it by its standard error": p2 - p1,
        "p is the share among all answers, not the mean of the two shares": (p2 - p1)
        / np.sqrt(both * (1 - both) * (1 / n1 + 1 / n2) + 1e-30),
    }
    return next((why for why, z in wrong.items() if np.allclose(z, got, atol=1e-4)), None)


def stage_length(
    p_stable: float, p_canary: float, share: float, alpha: float, power: float, sides: int = 1
) -> int:
    z = NormalDist().inv_cdf(1 - alpha / sides) + NormalDist().inv_cdf(power)
    variance = p_canary * (1 - p_canary) / share + p_stable * (1 - p_stable) / (1 - share)
    return math.ceil(z**2 * variance / (p_stable - p_canary) ** 2)


def stage_cases(rng: np.random.Generator) -> list[Case]:
    def case(stable: float, gap: float, share: float, alpha: float, power: float) -> Case:
        args = {"p_stable": stable, "p_canary": round(stable - gap, 3), "share": share}
        args |= {"alpha": alpha, "power": power}
        return Case(args, expected=stage_length(**args), about=f"a canary of {share:.0%}")

    def drawn(share: float, alpha: float, power: float) -> Case:
        rates = rng.uniform((0.8, 0.05), (0.9, 0.15)).round(3).tolist()
        return case(*rates, share, alpha, power)

    return [
        drawn(0.5, 0.01, 0.8),
        drawn(0.1, 0.01, 0.8),
        drawn(0.01, 0.05, 0.95),
        case(0.85, 0.1, 0.5, 0.01, 0.8),  # 632.27: to round it up is not to round it
    ]


def stage_mistake(case: Case, got: np.ndarray) -> str | None:
    args = case.args
    if 0 < case.expected - got <= 1:
        return "return a whole number, rounded up"
    of_canary = math.ceil(case.expected * args["share"])
    if abs(got - of_canary) <= 1:
        return "these are the canary's requests alone: return those of the whole stage"
    if abs(got - stage_length(**args, sides=2)) <= 1:
        return "the gate looks at one side only, so alpha is not halved"
    if abs(got - stage_length(**args | {"share": 0.5})) <= 1:
        return "the two versions do not get equally many requests"
    return None


def fold_scaling(
    W: np.ndarray, b: np.ndarray, mean: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    folded = W.astype(np.float64) / spread[:, None]
    return folded, b - mean @ folded


class FoldJudge:
    """Judges (W', b') as numbers, and says which of the two is off."""

    def __init__(self, args: dict[str, np.ndarray]) -> None:
        self.args = args

    def __call__(self, value: object) -> Verdict:
        W, b, mean, spread = self.args.values()
        expected = fold_scaling(**self.args)
        if problem := misfit(value, expected, "is spread used as a divisor?"):
            return problem
        wrong = {
            "W' is W times spread: divide instead": W * spread[:, None],
            "each row of W belongs to one input, so divide the rows by spread": (
                W / spread if len(spread) == W.shape[1] else np.full(W.shape, np.nan)
            ),
        }
        for reason, other in wrong.items():
            if np.allclose(value[0], other, atol=1e-4):
                return Verdict(0, reason)
        if not np.allclose(value[0], expected[0], rtol=1e-4, atol=1e-4):
            return Verdict(0, "W' is not right: which W' gives (x / spread) W for every x?")
        if np.allclose(value[1], expected[1], rtol=1e-4, atol=1e-4):
            return Verdict(1)
        reasons = {
            "W' is right; b' uses W where it needs W / spread": b - mean @ W,
            "W' is right; the sign of what mean adds to b' is reversed": b + mean @ expected[0],
            "W' is right; the mean moves the output, too: b' is not b": b,
        }
        why = (why for why, wrong in reasons.items() if np.allclose(value[1], wrong, atol=1e-4))
        return Verdict(0.5, next(why, "W' is right, b' is not: put x = 0 into both sides"))


def fold_cases(rng: np.random.Generator) -> list[Case]:
    def case(d_in: int, d_out: int, about: str) -> Case:
        W = (rng.standard_normal((d_in, d_out)) / np.sqrt(d_in)).astype(np.float32)
        args = {"W": W, "b": rng.standard_normal(d_out).astype(np.float32)}
        args |= {"mean": rng.uniform(0.2, 0.6, d_in).astype(np.float32)}
        args |= {"spread": rng.uniform(0.3, 0.9, d_in).astype(np.float32)}
        return Case(args, judge=FoldJudge(args), about=about)

    return [
        case(3, 2, "three inputs, two outputs"),
        case(4, 4, "a square layer, where rows and columns can be mixed up"),
        case(784, 128, "the lesson's first layer"),
    ]


def order_of(turn: int, urls: list[str], failures: list[int], limit: int) -> list[str]:
    n = len(urls)
    places = [(turn + i) % n for i in range(n)]
    return [urls[i] for i in sorted(places, key=lambda i: failures[i] >= limit)]


def order_cases(rng: np.random.Generator) -> list[Case]:
    def case(failures: list[int], about: str, limit: int = 3) -> Case:
        n, turn = len(failures), int(rng.integers(100))
        urls = [f"http://replica-{k}" for k in rng.permutation(n).tolist()]
        args = {"turn": turn, "urls": urls, "failures": failures, "limit": limit}
        rotated = [(turn + i) % n for i in range(n)]
        wrong = {
            "somebody is left out: who is doubtful is asked last, and not never": [
                urls[i] for i in rotated if failures[i] < limit
            ],
            "with `limit` failures a replica is already out": [
                urls[i] for i in sorted(rotated, key=lambda i: failures[i] > limit)
            ],
            "those that are out keep the order of their turns, too": [
                urls[i] for i in sorted(rotated, key=lambda i: failures[i])
            ],
            "the limit is an argument, and not always 3": [
                urls[i] for i in sorted(rotated, key=lambda i: failures[i] >= 3)
            ],
        }
        return Case(args, judge=ListJudge(order_of(**args), wrong), about=about)

    return [
        case([0, 0, 0], "all are well"),
        case([0, 3, 1, 0], "one is out"),
        case([4, 9, 3], "all are out"),
        case([7], "a single one, and it is out"),
        case([0, 5, 2, 4, 1], "two are out"),
        case([3, 0, 3, 0], "a limit of four, which nobody has reached", limit=4),
    ]


def stability_index(reference: np.ndarray, sample: np.ndarray, edges: np.ndarray) -> float:
    """Return the sum of (q - p) ln(q / p) over the bins, half a count added to each of them."""
    p, q = _shares(reference, edges), _shares(sample, edges)
    return float(((q - p) * np.log(q / p)).sum())


def _shares(values: np.ndarray, edges: np.ndarray, side: str = "right", add: float = 0.5):
    places = np.searchsorted(edges, values, side=side)
    counts = np.bincount(places, minlength=len(edges) + 1) + add
    return counts / counts.sum()


def index_cases(rng: np.random.Generator) -> list[Case]:
    def case(reference: np.ndarray, sample: np.ndarray, edges: list[float], about: str) -> Case:
        args = {"reference": reference, "sample": sample, "edges": np.array(edges)}
        args = {name: array.astype(np.float32) for name, array in args.items()}
        return Case(args, expected=stability_index(**args), about=about)

    normal = rng.standard_normal
    return [
        case(normal(1000), normal(200) + 0.5, [-1, -0.3, 0.3, 1], "a shift by half a deviation"),
        case(normal(500), normal(500), [0], "no drift, two bins"),
        case(normal(300), normal(50) * 0.1 + 3, [-1, 0, 1], "empty bins"),
        case(rng.integers(0, 6, 200), rng.integers(0, 4, 80), [1, 2, 3, 4], "values on the edges"),
    ]


def index_mistake(case: Case, got: np.ndarray) -> str | None:
    reference, sample, edges = case.args.values()
    p, q = _shares(reference, edges), _shares(sample, edges)
    left = [_shares(values, edges, side="left") for values in (reference, sample)]
    wrong = {
        "a value on an edge belongs to the bin above": (
            (left[1] - left[0]) * np.log(left[1] / left[0])
        ),
        "this is only half of it, the sum of q ln(q / p)": q * np.log(q / p),
        "the factor is q - p, with the sign of the logarithm of q / p": (p - q) * np.log(q / p),
        "the logarithm is the natural one": (q - p) * np.log2(q / p),
    }
    for reason, terms in wrong.items():
        if np.allclose(terms.sum(), got, rtol=1e-4, atol=1e-6):
            return reason
    with np.errstate(divide="ignore", invalid="ignore"):
        bare = [_shares(values, edges, add=0) for values in (reference, sample)]
        terms = (bare[1] - bare[0]) * np.log(bare[1] / bare[0])
    same = np.allclose(terms.sum(), got, rtol=1e-4)
    return "add half a count to each bin, before the shares" if same else None


EXERCISES = [
    Exercise(
        name="assign",
        points=2,
        cases=assign_cases,
        hints=(
            "The lesson's `bucket` gives the place of a user; write it again here.",
            "Add up the shares: version k has the places from the sum before it up to its own.",
            "Begin with version 0 for everybody, and change it where a place lies in a share.",
        ),
    ),
    Exercise(
        name="z_score",
        points=1,
        cases=z_cases,
        tolerance=1e-3,
        seconds=30,
        hints=(
            "The mean of zeros and ones is the share of ones.",
            "p is the mean over both tensors together; join them first.",
            "If p is 0 or 1 the standard error is zero, and 0 / 0 is NaN: return 0 there.",
        ),
        mistake=z_mistake,
    ),
    Exercise(
        name="stage_length",
        points=1,
        cases=stage_cases,
        hints=(
            "Set (difference)^2 = z^2 times the variance, and solve for n.",
            "n = z^2 * (p_c (1 - p_c) / s + p_s (1 - p_s) / (1 - s)) / (p_s - p_c)^2.",
            "z is the sum of inv_cdf(1 - alpha) and inv_cdf(power); math.ceil rounds up.",
        ),
        mistake=stage_mistake,
    ),
    Exercise(
        name="fold_scaling",
        points=2,
        cases=fold_cases,
        seconds=30,
        hints=(
            "Write the right side as x times something, plus something without x.",
            "(x / spread) W is x times W with row i divided by spread[i].",
            "What is left is b - (mean / spread) W.",
        ),
    ),
    Exercise(
        name="order_of",
        points=2,
        cases=order_cases,
        hints=(
            "Call it with failures that are all above the limit, and look at what comes back.",
            "Leave nobody out: a replica that is never asked can never prove that it is well.",
            "Python's sort keeps the order of equals, and False comes before True.",
        ),
    ),
    Exercise(
        name="stability_index",
        points=2,
        cases=index_cases,
        tolerance=1e-4,
        seconds=90,
        hints=(
            "First find for each value the number of its bin, from 0 to the number of edges.",
            "The number of a value's bin is how many edges are not above it.",
            "Count each bin, add 0.5, divide by the sum; then one sum over the bins.",
        ),
        mistake=index_mistake,
    ),
]
