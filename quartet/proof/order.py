"""Which tests run together on one worker, which run first, and on how many workers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import psutil
from xdist.scheduler.loadscope import LoadScopeScheduling

from quartet.proof.cost import FIRST, place

BYTES_FOR_ALL = 2 * 2**30  # the warm processes and pytest itself
BYTES_PER_WORKER = 3 * 2**30  # a kernel may take 2 GiB, and a test may start two
WAITING = 1  # more workers than processors: a fifth of the time of two was waiting
SLOW = 10  # what a slow test counts, where its cost is not known


def workers() -> int:
    """Return how many workers the processors and the memory of this machine allow."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    memory = psutil.virtual_memory().available - BYTES_FOR_ALL
    return max(1, min(processors + WAITING, memory // BYTES_PER_WORKER))


def unit(nodeid: str, lessons: Iterable[str]) -> str:
    """Return what a test belongs to, which is proved or not as a whole.

    It is a notebook, or a file of tests; where that has tests of each lesson, a lesson's tests.
    """
    file = nodeid.partition("::")[0]
    lesson = place(nodeid, lessons)[0]
    return file if file.endswith(".ipynb") or not lesson else f"{file}[{lesson}]"


def scope(nodeid: str, lessons: Iterable[str]) -> str:
    """Return what runs on one worker, in its order: a unit, but each test of a lesson by itself."""
    whole = unit(nodeid, lessons)
    return nodeid if whole.endswith("]") else whole


def in_order(items: list[Any], lessons: list[str], costs: Mapping[str, float]) -> list[Any]:
    """Return tests scope by scope: what needs executed notebooks late, else the dearest first.

    The last ones are small, so that no worker waits long for another at the end.

    Parameters
    ----------
    costs : processor seconds of tests in an earlier run, as far as they are known.
    """
    scopes = defaultdict(list)
    for item in items:
        scopes[scope(item.nodeid, lessons)].append(item)

    def key(name: str) -> tuple[bool, float]:
        needs_notebooks = bool(place(name, lessons)[0]) and not name.startswith(FIRST)
        return needs_notebooks, -sum(_weight(item, costs) for item in scopes[name])

    return [item for name in sorted(scopes, key=key) for item in scopes[name]]


def _weight(item: Any, costs: Mapping[str, float]) -> float:
    guess = SLOW if item.get_closest_marker("slow") else 1
    return costs.get(item.nodeid, guess)


class Scheduler(LoadScopeScheduling):
    """Hands out scopes; a test that ends its worker costs itself, or its notebook, and no other.

    xdist's own would give that test to the next worker, until none is left.
    """

    def __init__(self, config: Any, log: Any, lessons: list[str]) -> None:
        super().__init__(config, log)
        self.lessons = lessons

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid, self.lessons)

    def remove_node(self, node: Any) -> str | None:
        """Take a worker out; return the test that it was at, and put the others back."""
        taken = self.assigned_work.pop(node)
        left = {name: [t for t, done in tests.items() if not done] for name, tests in taken.items()}
        crashed = next((test for tests in left.values() for test in tests), None)
        for name, tests in left.items():
            again = [test for test in tests if test != crashed]
            lost = name.endswith(".ipynb") and crashed in tests  # its kernel is gone, too
            if again and not lost:
                self.workqueue[name] = dict.fromkeys(again, False)
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
