"""What a right answer is in the exercises on training loops: one NumPy reference for all tracks."""

from __future__ import annotations

import numpy as np

from utils import data
from utils.checks import Case, Exercise, Verdict, misfit

GOOD, FAIR = 0.82, 0.77  # test accuracy; the solutions reach 0.83 to 0.85


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


class Pair:
    """Judges two arrays against two expected ones; `mistakes` maps a reason to a wrong pair."""

    def __init__(self, expected: tuple, mistakes: dict[str, tuple] | None = None) -> None:
        self.expected = tuple(np.asarray(e) for e in expected)
        self.mistakes = mistakes or {}

    def __call__(self, value: object) -> Verdict:
        if problem := misfit(value, self.expected, "was there a division by a norm of zero?"):
            return problem
        if self._near(value, self.expected):
            return Verdict(1)
        for reason, wrong in self.mistakes.items():
            if self._near(value, wrong):
                return Verdict(0, reason)
        gap = max(float(np.abs(v - e).max()) for v, e in zip(value, self.expected, strict=True))
        return Verdict(0, f"the largest difference from what is expected is {gap:.3g}")

    @staticmethod
    def _near(value: tuple, other: tuple) -> bool:
        pairs = zip(value, other, strict=True)
        return all(np.allclose(v, np.asarray(o), rtol=1e-5, atol=1e-5) for v, o in pairs)


def momentum_cases(rng: np.random.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], momentum: float, about: str) -> Case:
        w, g, v = (_normal(rng, *shape) for _ in range(3))
        args = {"w": w, "g": g, "velocity": v, "rate": 0.1, "momentum": momentum}
        new = momentum * v + g
        wrong = {
            "the weights must use the new velocity": (w - 0.1 * v, new),
            "the gradient is added whole, not times 1 - momentum": (
                w - 0.1 * (momentum * v + (1 - momentum) * g),
                momentum * v + (1 - momentum) * g,
            ),
            "a step goes against the gradient: subtract": (w + 0.1 * new, new),
        }
        return Case(args, judge=Pair((w - 0.1 * new, new), wrong), about=about)

    return [
        case((4,), 0.9, "a vector"),
        case((3, 3), 0.5, "a square matrix"),
        case((1,), 0.0, "no momentum"),
    ]


def clip_cases(rng: np.random.Generator) -> list[Case]:
    def case(scale: float, about: str) -> Case:
        g1, g2 = _normal(rng, 3, 4) * np.float32(scale), _normal(rng, 4) * np.float32(3 * scale)
        norms = [float(np.linalg.norm(g)) for g in (g1, g2)]
        factor = 1.0 / max(1.0, float(np.hypot(*norms)))
        each = tuple(g / max(1.0, n) for g, n in zip((g1, g2), norms, strict=True))
        wrong = {"each was clipped by itself: use one norm for both": each}
        if 0 < np.hypot(*norms) < 1:
            longer = tuple(g / np.hypot(*norms) for g in (g1, g2))
            wrong["a gradient below the threshold must stay as it is"] = longer
        args = {"g1": g1, "g2": g2, "most": 1.0}
        return Case(args, judge=Pair((g1 * factor, g2 * factor), wrong), about=about)

    return [
        case(5.0, "a long gradient"),
        case(0.01, "below the threshold"),
        case(0.0, "a gradient of zeros"),
    ]


def warm_cosine(step: int, peak: float, warm: int, total: int) -> float:
    """Return the rate at a step: a straight line up, half a cosine down."""
    if step < warm:
        return peak * step / warm
    return peak * 0.5 * (1 + np.cos(np.pi * (step - warm) / (total - warm)))


def schedule_cases(rng: np.random.Generator) -> list[Case]:
    peak = float(np.round(rng.uniform(0.1, 2), 3))
    steps = {
        "the start": 0,
        "in the warm-up": 4,
        "the peak": 10,
        "half-way down": 55,
        "the end": 100,
    }
    cases = []
    for about, step in steps.items():
        args = {"step": step, "peak": peak, "warm": 10, "total": 100}
        cases.append(Case(args, expected=warm_cosine(**args), about=about))
    none = {"step": 0, "peak": peak, "warm": 0, "total": 100}
    return [*cases, Case(none, expected=peak, about="no warm-up")]


def schedule_mistake(case: Case, got: np.ndarray) -> str | None:
    step, peak, warm, total = case.args.values()
    if step >= warm and np.isclose(got, peak * 0.5 * (1 + np.cos(np.pi * step / total))):
        return "the cosine begins at the end of the warm-up, not at step 0"
    return None


def smoothed_loss(logits: np.ndarray, labels: np.ndarray, s: float) -> float:
    """Return the mean cross-entropy against smoothed targets: (n, k), (n,), number -> number."""
    k = logits.shape[1]
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    targets = (1 - s) * np.eye(k)[labels] + s / k
    return float(-(targets * log_p).sum(axis=1).mean())


def smoothed_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, k: int, s: float, about: str) -> Case:
        args = {"logits": _normal(rng, n, k), "labels": rng.integers(0, k, n), "s": s}
        return Case(args, expected=smoothed_loss(**args), about=about)

    return [
        case(6, 4, 0.1, "a batch"),
        case(1, 3, 0.2, "one example"),
        case(5, 5, 0.0, "no smoothing: the plain cross-entropy"),
    ]


def smoothed_mistake(case: Case, got: np.ndarray) -> str | None:
    logits, labels, s = case.args.values()
    n, k = logits.shape
    if n > 1 and np.isclose(got, n * case.expected, atol=1e-4):
        return "take the mean over the batch, not the sum"
    if s and np.isclose(got, smoothed_loss(logits, labels, s * k / (k - 1)), atol=1e-4):
        return "the smoothing is shared by all k classes, the true one included"
    if s and np.isclose(got, smoothed_loss(logits, labels, 0), atol=1e-4):
        return "this is the plain cross-entropy: s is not used"
    return None


def early_stop(losses: list[float], patience: int) -> tuple[int, int]:
    """Return after how many epochs training stops and which epoch is the best, from 1."""
    best, kept = float("inf"), 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best:
            best, kept = loss, epoch
        elif epoch - kept >= patience:
            return epoch, kept
    return len(losses), kept


def stop_cases(rng: np.random.Generator) -> list[Case]:
    noise = float(np.round(rng.uniform(0, 0.05), 3))
    runs = {
        "a plain turn": ([1.0, 0.8, 0.7 - noise, 0.9, 1.0, 1.1], 2),
        "up and down above the best": ([1.0, 0.5, 0.9, 0.7, 0.8, 0.6, 0.7], 3),
        "always better": ([0.9, 0.8, 0.7 + noise], 1),
        "the same loss again is not better": ([0.5, 0.5, 0.5, 0.5], 2),
    }
    return [
        Case(
            {"losses": losses, "patience": patience},
            judge=Pair(early_stop(losses, patience)),
            about=about,
        )
        for about, (losses, patience) in runs.items()
    ]


def target_cases(rng: np.random.Generator) -> list[Case]:
    clothes = data.load("fashion_mnist")
    x_train, x_test = (
        clothes[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test")
    )
    shuffle = rng.permutation(len(x_test))
    y_train, truth = clothes["y_train"].astype(np.int64), clothes["y_test"][shuffle]
    args = {"X_train": x_train, "y_train": y_train, "X_test": x_test[shuffle]}

    def judge(value: object) -> Verdict:
        if np.shape(value) != truth.shape:
            return Verdict(0, f"labels: got shape {np.shape(value)}, expected {truth.shape}")
        accuracy = float(np.mean(np.asarray(value) == truth))
        if accuracy >= GOOD:
            return Verdict(1, f"test accuracy {accuracy:.3f}, at least {GOOD} asked")
        text = f"test accuracy {accuracy:.3f}, expected at least {GOOD}"
        return Verdict(0.5 if accuracy >= FAIR else 0, text)

    return [Case(args, judge=judge, about="on Fashion-MNIST")]


EXERCISES = [
    Exercise(
        name="momentum_step",
        points=1,
        cases=momentum_cases,
        hints=(
            "Two lines: first the new velocity, then the new weights from it.",
            "velocity = momentum * velocity + g, then w - rate * velocity.",
        ),
    ),
    Exercise(
        name="clip_global",
        points=2,
        cases=clip_cases,
        hints=(
            "The norm of all numbers: the root of the sum of both sums of squares.",
            "The factor is most / norm where the norm is larger than most, else 1.",
            "most / maximum(norm, most) is that factor, and never divides by zero.",
        ),
    ),
    Exercise(
        name="warm_cosine",
        points=1,
        cases=schedule_cases,
        hints=(
            "Two cases: before step `warm`, and from it on.",
            "On the way down, (step - warm) / (total - warm) goes from 0 to 1.",
        ),
        mistake=schedule_mistake,
    ),
    Exercise(
        name="smoothed_loss",
        points=2,
        cases=smoothed_cases,
        hints=(
            "Make the targets first: (1 - s) times one-hot, plus s / k everywhere.",
            "Then minus the sum over classes of target times log-softmax, averaged over rows.",
        ),
        mistake=smoothed_mistake,
    ),
    Exercise(
        name="early_stop",
        points=2,
        cases=stop_cases,
        hints=(
            "Remember the best loss so far, and the epoch it came from.",
            "Stop when `patience` epochs have passed since the best one.",
            "At the end, too, the epoch to keep is the best one.",
        ),
    ),
    Exercise(
        name="train_to_target",
        points=2,
        cases=target_cases,
        seconds=120,
        hints=(
            "One hidden layer of 128 units is enough.",
            "SGD with rate 0.03 and momentum 0.9 needs eight epochs in batches of 100.",
        ),
    ),
]
