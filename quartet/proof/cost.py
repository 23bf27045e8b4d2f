"""What each test costs in processor seconds, and the table of lessons that shows it."""

from __future__ import annotations

import re
import resource
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.table import Table

from quartet.warm.client import ForkedProcess

BUDGET = 80  # processor seconds for a lesson, on average
HEAVY = 160  # for any one
DEAREST = 5  # how many tests are named
FIRST = ("notebooks", "solutions")  # stages, in the order of the table's columns
LESSON = re.compile(r"\b(\d\d)_[a-z_0-9]*[a-z0-9]\b")
ITS_TESTS = re.compile(r"test_lesson_(\d\d)\.py")


@dataclass
class Meter:
    """Tells what this process, its children and its kernels have used since it was asked last."""

    before: float = field(default_factory=lambda: used())

    def read(self) -> float:
        """Return the processor seconds since the last reading, or since the start."""
        now = used()
        self.before, spent = now, now - self.before
        return spent


def used() -> float:
    """Return the processor seconds of this process, and of its children and kernels that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages) + ForkedProcess.processor_seconds


def place(nodeid: str, lessons: Iterable[str]) -> tuple[str, str]:
    """Return lesson and stage of a test: its row and its column; no lesson: "" and its file.

    >>> place("tests/test_parity.py::test_the_tracks_agree[03_dense_layers]", ["03_dense_layers"])
    ('03_dense_layers', 'parity')
    """
    file = nodeid.partition("::")[0]
    lessons = {each[:2]: each for each in lessons}
    if own := ITS_TESTS.search(file):
        return lessons.get(own[1], ""), "its tests"
    found = LESSON.search(nodeid)
    if not found or lessons.get(found[1]) != found[0]:
        return "", file
    folder, _, name = file.partition("/")
    return found[0], folder if folder in FIRST else name[len("test_") : -len(".py")]


def by_lesson(costs: Mapping[str, float], lessons: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return lesson -> stage -> processor seconds; "" stands for what belongs to no lesson."""
    lessons, found = list(lessons), defaultdict(lambda: defaultdict(float))
    for nodeid, seconds in costs.items():
        lesson, stage = place(nodeid, lessons)
        found[lesson][stage] += seconds
    return {lesson: dict(found[lesson]) for lesson in ("", *lessons) if lesson in found}


def lesson_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the table lesson by stage in processor seconds, with the average at its end."""
    rows = {lesson: stages for lesson, stages in found.items() if lesson}
    seen = dict.fromkeys(stage for stages in rows.values() for stage in stages)
    columns = [*(stage for stage in FIRST if stage in seen), *(s for s in seen if s not in FIRST)]
    title = f"Processor seconds of each lesson (budget: {BUDGET} on average, {HEAVY} at most)"
    table = Table("lesson", title=title, title_justify="left")
    for column in (*columns, "all"):
        table.add_column(column.replace("_", " "), justify="right")
    for lesson, stages in rows.items():
        total = sum(stages.values())
        numbers = [f"{stages.get(column, 0):.1f}" for column in columns]
        table.add_row(lesson, *numbers, f"{total:.0f}" + (" too dear" if total > HEAVY else ""))
    if rows:
        means = [statistics.mean(s.get(c, 0) for s in rows.values()) for c in columns]
        mean = sum(means)
        over = " too dear" if mean > BUDGET else ""
        table.add_section()
        table.add_row("average", *(f"{each:.1f}" for each in means), f"{mean:.0f}{over}")
    return table


def other_lines(found: Mapping[str, Mapping[str, float]], costs: Mapping[str, float]) -> list[str]:
    """Return what belongs to no lesson, file by file, and the dearest tests, as lines of text."""
    files = sorted(found.get("", {}).items(), key=lambda item: -item[1])
    told = ", ".join(f"{file} {seconds:.0f}" for file, seconds in files if seconds >= 1)
    lines = [f"Of no lesson: {sum(seconds for _, seconds in files):.0f} s: {told}."] if told else []
    dearest = sorted(costs.items(), key=lambda item: -item[1])[:DEAREST]
    lines += [f"The dearest: {seconds:.1f} s  {nodeid}" for nodeid, seconds in dearest]
    return lines
