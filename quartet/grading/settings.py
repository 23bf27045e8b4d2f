"""What a teacher sets in a TOML file: due dates, what lateness costs, what exercises are worth."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from quartet import QuartetError
from quartet.source import lesson_names
from utils import checks


@dataclass(frozen=True)
class Rules:
    """How points are counted; see `parse` for the file.

    `late_per_day` is the share lost for each day begun, `weights` lesson -> exercise -> points.
    """

    late_per_day: float = 0.0
    due: dict[str, datetime] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)

    def worth(self, lesson: str, exercise: str, points: float) -> float:
        """Return the points of an exercise, given those that its check declares."""
        return self.weights.get(lesson, {}).get(exercise, points)

    def days_late(self, lesson: str, handed_in: str) -> int:
        """Return how many days after the due date have begun, 0 if it was in time."""
        if lesson not in self.due:
            return 0
        late = datetime.fromisoformat(handed_in) - self.due[lesson]
        return max(0, math.ceil(late.total_seconds() / 86400))

    def kept(self, days_late: int) -> float:
        """Return the share of the points that is left after so many days."""
        return max(0.0, 1 - self.late_per_day * days_late)


def read(path: Path) -> str:
    """Return the text of a TOML file of rules.

    Raises
    ------
    QuartetError if it cannot be read, or says something that has no meaning here.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise QuartetError(f"{path} cannot be read as TOML: {error}.") from None
    parse(text, path)
    return text


def parse(text: str, path: Path) -> Rules:
    """Return the rules in TOML; where it is empty, none is late and checks say the points.

    It holds `late_per_day` and, under `[lessons.NAME]`, `due` and `weights`. `path` is what
    messages call it.

    Raises
    ------
    QuartetError if it says something that has no meaning here.
    """
    try:
        found = tomllib.loads(text)
    except ValueError as error:
        raise QuartetError(f"{path} cannot be read as TOML: {error}.") from None
    _only(path, found, {"late_per_day", "lessons"})
    share = found.get("late_per_day", 0.0)
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise QuartetError(f"{path}: late_per_day is {share!r}; it is a share, from 0 to 1.")
    lessons = found.get("lessons", {})
    for lesson, about in lessons.items():
        _check(path, lesson, about)
    due = {lesson: about["due"] for lesson, about in lessons.items() if "due" in about}
    weights = {lesson: about.get("weights", {}) for lesson, about in lessons.items()}
    return Rules(float(share), due, weights)


def _check(path: Path, lesson: str, about: dict[str, Any]) -> None:
    if lesson not in lesson_names():
        raise QuartetError(f"{path}: there is no lesson {lesson!r}.")
    _only(path, about, {"due", "weights"})
    due = about.get("due", datetime.min)
    if not isinstance(due, datetime) or due.tzinfo:
        raise QuartetError(f"{path}: due of {lesson} is no local time such as 2026-11-20T23:59:00.")
    known = checks.load_exercises(lesson)
    for name, value in about.get("weights", {}).items():
        if name not in known:
            raise QuartetError(f"{path}: {lesson} has no exercise {name!r}: {', '.join(known)}.")
        if not isinstance(value, (int, float)) or value < 0:
            raise QuartetError(f"{path}: the weight of {name} is {value!r}; it is a number.")


def _only(path: Path, found: dict[str, Any], known: set[str]) -> None:
    for name in found.keys() - known:
        raise QuartetError(f"{path}: {name!r} has no meaning. Known: {', '.join(sorted(known))}.")
