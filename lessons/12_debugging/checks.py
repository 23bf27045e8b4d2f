"""What a right answer is in the exercises on debugging: reference runs in NumPy for all tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from utils import data
from utils.checks import Case, Exercise, Verdict, misfit

NEAR = 1e-3  # float32 against the float64 reference, over some hundred steps
ROWS = 200


@cache
def concrete() -> tuple[np.ndarray, np.ndarray]:
    """Return the mixes (1030, 8) and their strength (1030,), as float64."""
    table = data.load("concrete")
    names = [n for n in table.arrays if n not in ("compressive_strength", "mix_id")]
    return np.stack([table[n] for n in names], axis=1), table["compressive_strength"]


def _single(*arrays: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(a, np.float32) for a in arrays]


def _mixes(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n rows of concrete, standardized: (n, 8), (n,)."""
    rows = rng.choice(len(concrete()[1]), n, replace=False)
    X, y = (a[rows] for a in concrete())
    return tuple(_single((X - X.mean(axis=0)) / (X.std(axis=0) + 1e-6), (y - y.mean()) / y.std()))


def _start(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def descend(
    loss_and_gradients: Callable, params: Sequence[np.ndarray], rate: float, steps: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the parameters after `steps` steps of gradient descent, and the loss before each."""
    params = [np.asarray(p, np.float64) for p in params]
    losses = []
    for i in range(steps):
        loss, gradients = loss_and_gradients(i, *params)
        params = [p - rate * g for p, g in zip(params, gradients, strict=True)]
        losses.append(loss)
    return tuple(params), np.array(losses)


def line(X: np.ndarray, y: np.ndarray, order: np.ndarray | None = None) -> Callable:
    """Return loss and gradients of a linear model: all rows at each step, or those of `order`."""

    def at(i: int, W: np.ndarray, b: np.ndarray) -> tuple:
        x, t = (X, y) if order is None else (X[order[i]], y[order[i]])
        d = (x @ W + b)[:, 0] - t
        return np.mean(d**2), (2 * x.T @ d[:, None] / len(t), np.array([2 * d.mean()]))

    return at


def classes_of(X: np.ndarray, classes: np.ndarray, temper: bool = False) -> Callable:
    """Return loss and gradients of softmax regression; `temper`: with a softmax too many."""

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def at(i: int, W: np.ndarray, b: np.ndarray) -> tuple:
        inner = softmax(X @ W + b)
        p = softmax(inner) if temper else inner
        d = (p - np.eye(len(b))[classes]) / len(classes)
        if temper:
            d = inner * (d - (d * inner).sum(axis=1, keepdims=True))
        loss = -np.log(p[np.arange(len(classes)), classes]).mean()
        return loss, (X.T @ d, d.sum(axis=0))

    return at


def powers_of(x: np.ndarray, y: np.ndarray) -> Callable:
    """Return loss and gradients of sum_j w_j x_j ** p_j, where 0 ** p is 0 and so is its slope."""
    log = np.log(np.where(x > 0, x, 1))

    def at(i: int, p: np.ndarray, w: np.ndarray) -> tuple:
        powers = np.where(x > 0, np.exp(p * log), 0)
        d = (powers @ w)[:, 0] - y
        slope = (d[:, None] * powers * log * w[:, 0]).mean(axis=0)
        return np.mean(d**2), (2 * slope, 2 * powers.T @ d[:, None] / len(y))

    return at


def two_layers(X: np.ndarray, y: np.ndarray, frozen: bool = False) -> Callable:
    """Return loss and gradients of tanh(X W1) W2; `frozen`: none for W1."""

    def at(i: int, W1: np.ndarray, W2: np.ndarray) -> tuple:
        h = np.tanh(X @ W1)
        d = 2 * ((h @ W2)[:, 0] - y)[:, None] / len(y)
        first = X.T @ ((d @ W2.T) * (1 - h**2))
        return np.mean(((h @ W2)[:, 0] - y) ** 2), (first * (not frozen), h.T @ d)

    return at


class Trained:
    """Judges trained parameters against a reference run, and says what the model learned.

    `loss` maps parameters to a loss, `wrong` a reason to the parameters that the fault would give.
    Not `exact`: other repairs are right as well, if they learn as much.
    """

    def __init__(
        self,
        expected: tuple[np.ndarray, ...],
        loss: Callable,
        start: float,
        wrong: dict[str, tuple[np.ndarray, ...]] | None = None,
        exact: bool = True,
    ) -> None:
        self.expected, self.loss, self.start = expected, loss, start
        self.wrong, self.exact = wrong or {}, exact

    def __call__(self, value: object) -> Verdict:
        if problem := misfit(value, self.expected, "the run went bad"):
            return problem
        reached, aim = self.loss(value), self.loss(self.expected)
        run = f"loss {self.start:.3f} -> {reached:.3f}, the reference reaches {aim:.3f}"
        if self._near(value, self.expected) if self.exact else reached < 1.02 * aim + 1e-3:
            return Verdict(1, run)
        for reason, numbers in self.wrong.items():
            if self._near(value, numbers):
                return Verdict(0, f"{reason} ({run})")
        if self._near(value[:2], self.expected[:2]):
            return Verdict(0, f"the weights are right, the losses are not ({run})")
        return Verdict(0, f"it does not do what the reference does: {run}")

    @staticmethod
    def _near(value: tuple, other: tuple) -> bool:
        pairs = zip(value, other, strict=True)
        return all(np.allclose(v, o, rtol=NEAR, atol=NEAR) for v, o in pairs)


def _case(args: dict, run: Callable, steps: int, about: str, **judged: object) -> Case:
    """Return a case whose third and fourth arguments are what is trained."""
    params = list(args.values())[2:4]
    expected, losses = descend(run, params, args["rate"], steps)
    judge = Trained(expected, lambda p: float(run(0, *p[:2])[0]), float(losses[0]), **judged)
    return Case(args, judge=judge, about=about)


def line_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, about: str) -> Case:
        X, y = _mixes(rng, n)
        args = {"X": X, "y": y, "W": _start(rng, 8, 1), "b": _start(rng, 1), "rate": 0.1}
        mean = tuple(descend(line(X, np.full(n, y.mean())), (args["W"], args["b"]), 0.1, 60)[0])
        wrong = {"it learned the mean of the targets, and nothing of the inputs": mean}
        return _case(args | {"steps": 60}, line(X, y), 60, about, wrong=wrong)

    return [case(ROWS, "mixes of concrete"), case(8, "as many rows as columns")]


def class_cases(rng: np.random.Generator) -> list[Case]:
    digits = load_digits()

    def case(n: int, steps: int, about: str) -> Case:
        rows = rng.choice(len(digits.target), n, replace=False)
        X, classes = (digits.data[rows] / 16).astype(np.float32), digits.target[rows]
        params = _start(rng, 64, 10), _start(rng, 10)
        args = {"X": X, "classes": classes, "W": params[0], "b": params[1], "rate": 0.5}
        twice, _ = descend(classes_of(X, classes, temper=True), params, 0.5, steps)
        wrong = {"it learned just what the broken program learns": twice}
        args["steps"] = steps
        return _case(args, classes_of(X, classes), steps, about, wrong=wrong)

    return [case(300, 80, "300 digits"), case(10, 40, "ten digits")]


def power_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, about: str) -> Case:
        rows = rng.choice(len(concrete()[1]), n, replace=False)
        x, y = (a[rows] for a in concrete())
        x, y = _single(x / concrete()[0].max(axis=0), (y - y.mean()) / y.std())
        args = {"x": x, "y": y, "p": np.ones(8, np.float32), "w": _start(rng, 8, 1), "rate": 0.1}
        return _case(args | {"steps": 100}, powers_of(x, y), 100, about, exact=False)

    return [case(ROWS, "mixes with zeros in them"), case(60, "fewer mixes")]


def layer_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, h: int, about: str) -> Case:
        X, y = _mixes(rng, n)
        params = 3 * _start(rng, 8, h), 3 * _start(rng, h, 1)
        args = {"X": X, "y": y, "W1": params[0], "W2": params[1], "rate": 0.05, "steps": 80}
        still, _ = descend(two_layers(X, y, frozen=True), params, 0.05, 80)
        return _case(args, two_layers(X, y), 80, about, wrong={"W1 has not moved": still})

    return [case(ROWS, 12, "mixes of concrete"), case(50, 8, "a square first layer")]


def batch_cases(rng: np.random.Generator) -> list[Case]:
    X, y = _mixes(rng, ROWS)
    order = np.concatenate([rng.permutation(ROWS) for _ in range(4)]).reshape(-1, 20)
    params = _start(rng, 8, 1), _start(rng, 1)
    args = {"X": X, "y": y, "W": params[0], "b": params[1], "rate": 0.05, "order": order}
    expected, _ = descend(line(X, y, order), params, 0.05, len(order))
    whole = line(X, y)
    in_file = y[np.sort(order, axis=1)]

    def apart(i: int, W: np.ndarray, b: np.ndarray) -> tuple:
        return line(X[order[i]], in_file[i])(0, W, b)

    lost, _ = descend(apart, params, 0.05, len(order))
    wrong = {"it learned just what the broken program learns": lost}
    start = float(whole(0, *params)[0])
    judge = Trained(expected, lambda p: float(whole(0, *p)[0]), start, wrong)
    return [Case(args, judge=judge, about="40 batches of 20 mixes")]


def history_cases(rng: np.random.Generator) -> list[Case]:
    def case(n: int, steps: int, about: str) -> Case:
        X, y = _mixes(rng, n)
        params = _start(rng, 8, 1), _start(rng, 1)
        args = {"X": X, "y": y, "W": params[0], "b": params[1], "rate": 0.05, "steps": steps}
        (W, b), losses = descend(line(X, y), params, 0.05, steps)
        run = line(X, y)
        judge = Trained((W, b, losses), lambda p: float(run(0, *p[:2])[0]), float(losses[0]))
        return Case(args, judge=judge, about=about)

    return [case(ROWS, 40, "forty steps"), case(ROWS, 2, "two steps")]


EXERCISES = [
    Exercise(
        name="fit_line",
        points=2,
        cases=line_cases,
        seconds=30,
        hints=(
            "A loss equal to the variance of the target: the model predicts the mean for all.",
            "Print the shapes of the prediction, of the target, and of their difference.",
            "Take the column out of (n, 1), as out[:, 0], before you subtract.",
        ),
    ),
    Exercise(
        name="fit_classes",
        points=2,
        cases=class_cases,
        seconds=30,
        hints=(
            "1.46 is log(1 + 9/e). Which logits give that loss?",
            "What the loss gets here sums to 1 in each row. Logits need not.",
            "There are two softmaxes: one of them must go.",
        ),
    ),
    Exercise(
        name="fit_powers",
        points=2,
        cases=power_cases,
        seconds=30,
        hints=(
            "The forward pass is fine, so look at the gradient of the first step.",
            "The slope of x ** p in p is x ** p times log x. What is it at x = 0?",
            "Keep the argument of the logarithm above zero, before the logarithm: 1e-6 will do.",
        ),
    ),
    Exercise(
        name="fit_two_layers",
        points=2,
        cases=layer_cases,
        seconds=30,
        hints=(
            "Compare each weight before and after one step.",
            "Follow the way of the gradient from the loss back to W1: where does it end?",
            "One word in the code keeps W1 from learning.",
        ),
    ),
    Exercise(
        name="fit_in_batches",
        points=2,
        cases=batch_cases,
        seconds=30,
        hints=(
            "A model that can learn ten rows is not broken. Look at what it is given.",
            "Print the row numbers of the inputs and of the targets of one batch.",
            "Targets must be taken at the same rows as the inputs.",
        ),
    ),
    Exercise(
        name="fit_with_history",
        points=2,
        cases=history_cases,
        seconds=30,
        hints=(
            "See `What is different here` in the lesson: this is a fault of your framework's own.",
            "Print the first three losses and compare them with the loss that you compute by hand.",
            "Something is kept from step to step that should not, or kept at the wrong time.",
        ),
    ),
]
