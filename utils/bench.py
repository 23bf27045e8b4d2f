"""Timing done right, in one place: first call apart, warm-up, rounds in turns, medians, waiting.

    times = bench.medians({"eager": f, "compiled": g}, rounds=30)
    times.table("eager")  # ratios to `eager`, which is all that a laptop's clock can tell
    times["compiled"].first, times.ratio("compiled", "eager"), times.break_even("compiled", "eager")

No framework is imported here: `wait` asks those that the notebook has imported already.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from IPython.display import Markdown

from utils.tables import table


@dataclass(frozen=True)
class Timing:
    """Seconds of one callable: its very first call, and one later call in each round."""

    first: float
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)


class Timings(dict[str, Timing]):
    """Name -> Timing, measured side by side; compares two names round by round."""

    def ratios(self, name: str, to: str) -> list[float]:
        """Return, for each round, how many times the seconds of `to` the call of `name` took."""
        return [a / b for a, b in zip(self[name].rounds, self[to].rounds, strict=True)]

    def ratio(self, name: str, to: str) -> float:
        """Return the median of `ratios`: what slows a whole round down changes it little."""
        return median(self.ratios(name, to))

    def break_even(self, name: str, to: str) -> float:
        """Return after how many calls `name` has cost less in all than `to`; infinity if never."""
        gain = self[to].median - self[name].median
        extra = self[name].first - self[to].first
        if gain <= 0:
            return 1.0 if extra < 0 else float("inf")
        return max(1.0, 1 + extra / gain)

    def total(self, name: str, calls: Any) -> Any:
        """Return the seconds that so many calls take (a number or an array), the first included."""
        return self[name].first + (calls - 1) * self[name].median

    def table(self, baseline: str) -> Markdown:
        """Return a table for a notebook: everything in later calls of the baseline."""
        header = ["what", "first call", "later calls (middle half)", "cheaper in all after"]
        rows = [[name, *self._row(name, baseline)] for name in self]
        return table(header, rows)

    def _row(self, name: str, baseline: str) -> list[str]:
        first = f"{self[name].first / self[baseline].median:,.0f} ×"
        if name == baseline:
            return [first, f"1 × = {_readable(self[name].median)}", ""]
        low, _, high = quantiles(self.ratios(name, baseline), n=4)
        calls = self.break_even(name, baseline)
        after = "never" if calls == float("inf") else f"{calls:,.0f} call{'s'[: calls > 1.5]}"
        return [first, f"{self.ratio(name, baseline):.2f} × ({low:.2f} to {high:.2f})", after]


def medians(
    ways: Mapping[str, Callable[[], Any]], rounds: int = 30, warmup: int = 3, seed: int = 0
) -> Timings:
    """Time callables of no argument side by side.

    The first call of each is timed apart: it may trace and compile. A few calls to warm up follow,
    uncounted. Then, in each round, every callable is called once, in an order drawn anew: what
    disturbs the machine for a while then disturbs all of them. Each call is waited for.

    Parameters
    ----------
    ways : name -> a callable that returns what it computes (else there is nothing to wait for).
    rounds : at least 2; the medians are over these.

    Raises
    ------
    ValueError if there are fewer than two rounds.
    """
    if rounds < 2:
        raise ValueError(f"{rounds} rounds have no median worth the name: take at least 2, or 30.")
    first = {name: seconds(way) for name, way in ways.items()}
    for _ in range(warmup):
        for way in ways.values():
            wait(way())
    return Timings({n: Timing(first[n], tuple(s)) for n, s in _turns(ways, rounds, seed).items()})


def _turns(ways: Mapping[str, Callable[[], Any]], rounds: int, seed: int) -> dict[str, list[float]]:
    """Return name -> seconds of one call in each round, without pauses of the garbage collector."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(seed).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                found[name].append(seconds(ways[name]))
    finally:
        if collecting:
            gc.enable()
    return found


def seconds(way: Callable[[], Any]) -> float:
    """Return the seconds of one call, until its result is there."""
    begin = time.perf_counter()
    wait(way())
    return time.perf_counter() - begin


def wait(result: Any) -> Any:
    """Return `result` once it is computed: a framework may return before its device is done.

    Asks JAX for every array in the result, TensorFlow for the value of every tensor in it, and
    PyTorch for all work on its GPU, if it uses one.
    """
    if jax := sys.modules.get("jax"):
        jax.block_until_ready(result)
    if (tf := sys.modules.get("tensorflow")) and hasattr(tf, "nest"):
        for leaf in tf.nest.flatten(result):
            if isinstance(leaf, (tf.Tensor, tf.Variable)):
                leaf.numpy()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return result


def _readable(value: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
