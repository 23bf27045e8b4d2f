"""Time limits: a call that takes too long is interrupted, and nothing but that call.

Ticks come from a timer. A tick raises only if what it interrupts lies inside of the call, as seen
on the stack: so no interrupt leaves the call, at whatever moment a tick comes.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# By the clock, a call may take so many times its limit, but no longer than so many seconds more:
# who sleeps, or waits for what never comes, uses no processor.
TIMES, MORE = 8, 240
AGAIN = 0.2  # seconds until the next interrupt, if the call swallowed one
MOST = 25  # interrupts; who swallowed so many will swallow all
SOON = 1e-4  # seconds; a timer that is set to 0 is off


class _TimeIsUp(KeyboardInterrupt):
    """Interrupts a call; whatever handles the user's interrupt handles this one, too."""


class _Call:
    """One call: what it has used, and what a tick does to it."""

    def __init__(self, seconds: float, deaf: Callable[[], None], frame: FrameType) -> None:
        """Begin; `frame` is that of `limited`, None once the call has ended."""
        self.seconds, self.deaf, self.frame = seconds, deaf, frame
        self.interrupts = 0
        self.clock, self.processor = time.monotonic(), time.process_time()

    def left(self) -> float:
        """Return how many seconds there are at least until the call has passed its limit."""
        clock = time.monotonic() - self.clock
        used = min(clock, time.process_time() - self.processor)
        return min(self.seconds - used, longest(self.seconds) - clock)

    def interrupt(self, frame: FrameType | None) -> None:
        """Raise if a frame lies inside of the call, and do nothing if not."""
        while frame and frame.f_back is not self.frame:
            frame = frame.f_back
        if frame and frame.f_code is _inside.__code__:
            self.interrupts += 1
            if self.interrupts > MOST:
                self.deaf()
            raise _TimeIsUp


def longest(seconds: float) -> float:
    """Return how long a call with a limit of so many seconds may take by the clock."""
    return min(TIMES * seconds, seconds + MORE)


def limited(
    action: Callable[[], Any], seconds: float, deaf: Callable[[], None] = lambda: None
) -> Any:
    """Return action(), or raise TimeoutError once it has used `seconds`.

    What counts is the time by the clock or the processor time of this process, whichever is less,
    so that a busy machine costs nobody a right answer; and see `longest`. Code that swallows the
    interrupt is interrupted again, and has passed its limit whatever it returns; a single long call
    into compiled code is interrupted when it returns. In any other than the main thread there is no
    limit. A limit around this one is enforced when this call has ended.

    Where there is an interval timer (ITIMER_REAL), what others use it for waits until the end of
    the call. SIGALRM keeps a handler that does nothing if it had none: else a late tick would end
    the process.

    Parameters
    ----------
    deaf : called, inside of the call, where it swallows all interrupts; it may end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        return action()
    call = _Call(seconds, deaf, sys._getframe())
    try:
        with (_timer if hasattr(signal, "setitimer") else _watcher)(call):
            try:
                return _inside(action)
            finally:
                call.frame = None
    finally:
        if call.interrupts:
            raise TimeoutError(f"the call passed its time limit of {seconds:g} s") from None


def _inside(action: Callable[[], Any]) -> Any:
    return action()  # the stack from here on is the call


@contextmanager
def _timer(call: _Call) -> Iterator[None]:
    """Tick by the interval timer, and put back the timer and the handler that were there."""

    def tick(signum: int, frame: FrameType | None) -> None:
        if call.frame is None:
            return  # a late one
        if (left := call.left()) > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, SOON), AGAIN)
        else:
            call.interrupt(frame)

    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        handler = signal.signal(signal.SIGALRM, tick)
        try:
            signal.setitimer(signal.ITIMER_REAL, call.seconds, AGAIN)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler or _ignore)  # SIG_DFL is 0
    finally:
        if left:
            left -= time.monotonic() - call.clock
            signal.setitimer(signal.ITIMER_REAL, max(left, SOON), interval)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing: no call runs."""


@contextmanager
def _watcher(call: _Call) -> Iterator[None]:
    """Tick by a thread that sends SIGINT; one that it did not send goes where it would have gone.

    The thread has ended before the handler is put back, so that no tick of it comes later.
    """
    done, sent = threading.Event(), []

    def watch() -> None:
        delay = call.seconds
        while not done.wait(delay):
            delay = max(call.left(), SOON)
            if delay == SOON:
                sent.append(True)
                _thread.interrupt_main()
                delay = AGAIN

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if sent:
            sent.pop()  # not all: the thread may be about to send the next
            call.interrupt(frame)
        elif handler != signal.SIG_IGN:
            (handler or signal.default_int_handler)(signum, frame)

    handler = signal.signal(signal.SIGINT, interrupted)
    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        yield
    finally:
        try:
            done.set()
            watcher.join()
        finally:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
