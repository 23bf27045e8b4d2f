"""Time limits: they end what takes too long, and never interrupt anything else."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from utils import checks, limits
from utils.checks import Answer, Case, Checker, Exercise
from utils.limits import limited
from utils.tracks import ROOT

NUMPY = type("NumPyTrack", (), {"to_native": staticmethod(np.array), "to_numpy": np.asarray})()
MECHANISMS = ("timer", "watcher")
# By the processor's clock: a busy machine changes nothing.
SPIN = """
import json, os, signal, sys, time
from collections import Counter
import numpy as np
from utils.limits import limited

if "watcher" in sys.argv:
    del signal.setitimer
    sys.setswitchinterval(1e-5)  # it runs in time, also beside a busy thread

def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"

def outcome(action, seconds):
    try:
        return limited(action, seconds)
    except TimeoutError:
        return "too late"
"""

on_posix = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer")


def child(code: str, *args: str, before: tuple[str, ...] = ()) -> str:
    """Return what a process of its own prints; it must end by itself, with status 0."""
    command = [*before, sys.executable, "-c", SPIN + code, *args]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.strip()


STRESS = """
def multiply(seconds):
    matrix, end = np.ones((32, 32)), time.process_time() + seconds
    while time.process_time() < end:
        matrix @ matrix
    return "done"

def swallow(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        try:
            spin(end - time.process_time())
        except KeyboardInterrupt:
            pass
    return "done"

def fail(seconds):
    spin(seconds)
    raise ValueError

def nest(seconds):
    return limited(lambda: spin(seconds), LIMIT)

CALLS, LIMIT = int(sys.argv[1]), float(sys.argv[2])
found = {}
for function in (spin, multiply, swallow, fail, nest):
    found[function.__name__] = counts = Counter()
    for number in range(CALLS):
        seconds = LIMIT * (0.5 + number % 50 / 50)  # half of the limit to half beyond
        try:
            counts[outcome(lambda: function(seconds), LIMIT)] += 1
        except ValueError:
            counts["done"] += 1
spin(1)
assert not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL) == (0, 0)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("mechanism", "calls", "limit"),
    [pytest.param("timer", 2500, 0.0006, marks=on_posix), ("watcher", 100, 0.004)],
)
def test_thousands_of_calls_that_end_near_their_limit(
    mechanism: str, calls: int, limit: float
) -> None:
    found = json.loads(child(STRESS, str(calls), str(limit), mechanism))
    assert len(found) == 5
    for name, counts in found.items():
        assert set(counts) <= {"done", "too late"} and sum(counts.values()) == calls, name
    assert all(found["spin"].get(outcome) for outcome in ("done", "too late")), found


OVERTAKEN = """
import hashlib
from threading import Event
from types import SimpleNamespace
from utils import limits

ticks, taken, send = [], Event(), limits._thread.interrupt_main

def late():
    ticks.append(True)
    if len(ticks) == 2:
        taken.wait(60)  # until the first has been taken
    send()

limits._thread = SimpleNamespace(interrupt_main=late)
limits._Call.interrupt = lambda call, frame: taken.set()  # as where the call has just ended
limits.AGAIN = 0.01
while len(ticks) < 2:  # it hears no interrupt, and lets others run
    ticks.clear()
    taken.clear()
    limited(lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000), 0.05)
print("no interrupt")
"""


def test_a_tick_that_another_has_overtaken_is_a_tick() -> None:
    assert child(OVERTAKEN, "watcher") == "no interrupt"


@on_posix
def test_a_tick_at_any_instruction_outside_of_the_call_does_nothing() -> None:
    ticks = []

    def trace(frame, event, arg):
        if frame.f_code.co_filename not in (limits.__file__, contextlib.__file__):
            return None
        if frame.f_code is limits._inside.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            ticks.append(frame.f_code.co_name)
            signal.raise_signal(signal.SIGALRM)
        return trace

    handler = signal.signal(signal.SIGALRM, limits._ignore)
    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        assert limited(lambda: "done", 0) == "done"  # whenever a tick comes, the call is late
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGALRM, handler)
    assert {"limited", "_timer", "__enter__", "__exit__"} <= set(ticks) and len(ticks) > 100


ENDLESS = """
def swallow():
    for _ in range(3):
        try:
            spin(20)
        except KeyboardInterrupt:
            pass
    spin(20)

print(outcome(lambda: spin(20), 0.1), outcome(swallow, 0.1), time.process_time() < 19)
"""


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_limit_works_where_interrupts_are_ignored(mechanism: str) -> None:
    before = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # as a job in the background is started
    assert child(ENDLESS, mechanism, before=before) == "too late too late True"


INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(20):
    try:
        limited(lambda: (signal.raise_signal(signal.SIGINT), spin(20)), 50)
    except KeyboardInterrupt:
        print("interrupted", end=" ")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_users_own_interrupt_is_not_taken_for_a_time_limit(mechanism: str) -> None:
    assert child(INTERRUPTED, mechanism).split() == ["interrupted"] * 20


LATE = """
print(outcome(lambda: spin(20), 0.1))
os.kill(os.getpid(), signal.SIGALRM)
print("alive")
"""


@on_posix
def test_a_late_tick_does_not_end_the_process() -> None:
    assert child(LATE).split("\n") == ["too late", "alive"]


def wait(seconds: float) -> str:
    """Take so many seconds, and the processor for next to none of them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return "done"


def spin(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def test_what_others_take_of_the_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "longest", lambda seconds: math.inf)
    assert limited(lambda: wait(1), 0.5) == "done"


@pytest.mark.parametrize(
    "action", [partial(wait, 60), pytest.param(partial(time.sleep, 60), marks=on_posix)]
)
def test_who_waits_for_ever_meets_a_limit_by_the_clock(
    action: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    with pytest.raises(TimeoutError, match="passed its time limit of 0.05 s"):
        limited(action, 0.05)


def test_how_long_a_call_may_take_by_the_clock() -> None:
    assert [limits.longest(seconds) for seconds in (1, 5, 60, 120)] == [8, 40, 300, 360]


def test_a_limit_around_a_call_counts_on_after_it() -> None:
    with pytest.raises(TimeoutError, match="of 0.2 s"):
        limited(lambda: (limited(lambda: spin(0.01), 60), spin(20)), 0.2)


def test_an_error_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        limited(lambda: 1 / 0, 5)


def test_who_swallows_an_interrupt_has_passed_the_limit() -> None:
    def swallow() -> str:
        try:
            return spin(20)
        except KeyboardInterrupt:
            return "done"

    with pytest.raises(TimeoutError):
        limited(swallow, 0.1)


def test_who_swallows_all_interrupts_is_told_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AGAIN", 0.01)
    told: list[int] = []

    def swallow() -> None:
        while not told:
            try:
                spin(20)
            except KeyboardInterrupt:
                attempts.append(1)

    attempts: list[int] = []
    with pytest.raises(TimeoutError):
        limited(swallow, 0.05, lambda: told.append(1))
    assert told == [1] and len(attempts) == limits.MOST + 1


@on_posix
@pytest.mark.parametrize("due", [0.01, 0.3])
def test_a_timer_that_was_set_before_goes_on_after_the_call(due: float) -> None:
    """pytest-timeout sets one for each test."""
    came, inside = [], []
    handler = signal.signal(signal.SIGALRM, lambda *of: came.append(bool(inside)))
    before = signal.setitimer(signal.ITIMER_REAL, due)

    def action() -> None:
        inside.append(1)
        spin(0.1)
        inside.clear()

    try:
        limited(action, 60)
        end = time.monotonic() + 20
        while not came and time.monotonic() < end:
            pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
    assert came == [False]


@on_posix
def test_a_handler_that_the_call_installs_is_replaced_by_the_one_before() -> None:
    handler = signal.signal(signal.SIGALRM, limits._ignore)
    try:
        limited(lambda: signal.signal(signal.SIGALRM, signal.default_int_handler), 5)
        assert signal.getsignal(signal.SIGALRM) is limits._ignore
    finally:
        signal.signal(signal.SIGALRM, handler)


# The limits of a learner's function


def two_cases(rng: np.random.Generator) -> list[Case]:
    return [Case({"x": rng.standard_normal(3), "turn": turn}, expected=turn) for turn in (1, 2)]


SLOW = Exercise("slow", 2, two_cases, ("think",), seconds=0.3)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Checker:
    monkeypatch.setattr(checks, "COMPILE_SECONDS", 0.4)
    return Checker("00_test", NUMPY, {"slow": SLOW, "patient": replace(SLOW, seconds=40)})


def slow_in(turn: int, seconds: float) -> Callable:
    """Return a right answer that takes its time in the first or in the second case."""

    def answer(x: np.ndarray, now: int) -> int:
        if now == turn:
            spin(seconds)
        return now

    return answer


def test_an_endless_answer_meets_the_limit_of_the_call(check: Checker) -> None:
    for turn, limit, lines in ((1, "0.7", 1), (2, "0.3", 2)):
        result = check("slow", slow_in(turn, 60))
        assert f"the call passed its time limit of {limit} s" in repr(result)
        assert len(result.lines) == lines and result.points == lines - 1


def test_what_compiles_the_first_time_may_take_longer_then(
    check: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "COMPILE_SECONDS", 60)
    assert check("slow", slow_in(1, 1)).passed
    assert not check("slow", slow_in(2, 1)).passed


def test_a_timeout_of_the_answers_own_is_no_time_limit(check: Checker) -> None:
    def answer(x, turn):
        raise TimeoutError("the server did not answer")

    assert "the server did not answer" in repr(check("patient", answer))


def test_an_interrupt_ends_the_check(check: Checker) -> None:
    def interrupted(x, turn):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("slow", interrupted)


def test_a_call_takes_a_limit_and_whom_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AGAIN", 0.01)
    told: list[int] = []

    def swallow(x: int) -> None:
        while not told:
            with contextlib.suppress(KeyboardInterrupt):
                spin(20)

    answer = checks.call(swallow, Case({"x": 1}), NUMPY, 0.1, lambda: told.append(1))
    assert answer == Answer(problem="the call passed its time limit of 0.1 s") and told
