"""`utils.bench` times the first call apart, in turns, and waits for what it times."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from utils import bench
from utils.bench import Timing, Timings


def timings() -> Timings:
    """Return made-up seconds: compiled costs 10 s at first and saves 1 s in each later call."""
    eager = Timing(2.0, (2.0, 2.0, 4.0))
    return Timings(eager=eager, compiled=Timing(12.0, (1.0, 1.0, 2.0)))


def test_the_first_call_is_apart_and_every_call_is_counted() -> None:
    calls = []

    def slow_at_first() -> None:
        time.sleep(0 if calls else 0.05)
        calls.append(1)

    found = bench.medians({"one": slow_at_first, "two": lambda: None}, rounds=6, warmup=2)
    assert len(calls) == 1 + 2 + 6 and len(found["one"].rounds) == 6
    assert found["one"].first > 0.05 > 10 * found["one"].median


def test_the_ways_take_turns_in_changing_order() -> None:
    names: list[str] = []
    ways = {name: lambda name=name: names.append(name) for name in "abc"}
    bench.medians(ways, rounds=20, warmup=0)
    rounds = [tuple(names[k : k + 3]) for k in range(3, len(names), 3)]
    assert len(rounds) == 20 and all(sorted(each) == list("abc") for each in rounds)
    assert len(set(rounds)) > 1


def test_ratios_and_break_even() -> None:
    found = timings()
    assert found.ratio("compiled", "eager") == 0.5
    even = found.break_even("compiled", "eager")
    assert even == 11 and found.total("compiled", 11) == found.total("eager", 11)
    assert found.break_even("eager", "compiled") == 1  # cheaper from the start
    dear = Timings(eager=found["eager"], dear=Timing(9.0, (3.0, 3.0, 3.0)))
    assert dear.break_even("dear", "eager") == float("inf")


def test_the_table_speaks_in_calls_of_the_baseline() -> None:
    text = timings().table("eager").data
    assert "| eager | 1 × | 1 × = 2 s |  |" in text
    assert "| compiled | 6 × | 0.50 × (0.50 to 0.50) | 11 calls |" in text


def test_one_round_is_refused_and_the_collector_is_left_as_it_was() -> None:
    with pytest.raises(ValueError, match="1 rounds have no median"):
        bench.medians({"one": lambda: None}, rounds=1)
    calls = []

    def breaks() -> None:
        calls.append(gc.isenabled())
        if len(calls) == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        bench.medians({"one": breaks}, warmup=0)
    assert calls == [True, False, False] and gc.isenabled()


def test_a_result_is_waited_for_in_each_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Tensor:
        def numpy(self) -> None:
            asked.append("tensorflow")

    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: asked.append("torch"))
    nest = SimpleNamespace(flatten=lambda result: [result])
    fakes = {
        "jax": SimpleNamespace(block_until_ready=lambda result: asked.append("jax")),
        "tensorflow": SimpleNamespace(nest=nest, Tensor=Tensor, Variable=Tensor),
        "torch": SimpleNamespace(cuda=cuda),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    result = Tensor()
    assert bench.wait(result) is result and asked == ["jax", "tensorflow", "torch"]


def test_no_framework_is_imported() -> None:
    ask = "import sys; from utils import bench; bench.wait(1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert not {"jax", "tensorflow", "torch", "keras"} & set(done.stdout.split()), done.stderr
