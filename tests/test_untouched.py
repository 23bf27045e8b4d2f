"""Every untouched exercise fails its check with a message, in every track."""

from __future__ import annotations

from pathlib import Path

import pytest
from forks import results

from quartet.source import lesson_names
from utils import checks
from utils.tracks import TRACKS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("track", TRACKS)
def test_untouched_exercises_fail_with_a_message(track: str, tmp_path: Path) -> None:
    for lesson, found in results("exercises", track, lesson_names(), tmp_path).items():
        exercises = checks.load_exercises(lesson)
        assert set(found) == set(exercises), lesson
        for name, (points, messages) in found.items():
            assert points < exercises[name].points, f"{lesson}: {name} passes as handed out"
            assert messages, f"{lesson}: {name} fails without a word"
