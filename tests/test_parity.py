"""The four tracks of each lesson compute the same numbers (test_controls: and could differ)."""

from __future__ import annotations

import itertools

import pytest
from nbformat import NotebookNode

from quartet.executed import executed
from quartet.source import lesson_names
from utils import parity
from utils.tracks import ROOT, TRACKS

pytestmark = pytest.mark.slow
LESSONS = lesson_names()
PAIRS = list(itertools.combinations(TRACKS, 2))


def notebook(lesson: str, track: str) -> NotebookNode:
    return executed(ROOT / "notebooks" / track / f"{lesson}.ipynb")


@pytest.mark.parametrize("lesson", LESSONS)
def test_all_tracks_record_the_same_names_with_the_same_tolerances(lesson: str) -> None:
    tolerances = [parity.read_tolerances(notebook(lesson, track)) for track in TRACKS]
    assert tolerances[0], f"{lesson} records nothing"
    assert all(other == tolerances[0] for other in tolerances[1:])


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_tracks_agree(lesson: str, record_property) -> None:
    runs = {track: parity.read_records(notebook(lesson, track)) for track in TRACKS}
    tolerances = parity.read_tolerances(notebook(lesson, "keras"))
    bounded = {name: t for name, t in tolerances.items() if t is not None}
    for name in bounded:
        worst = max(parity.difference(runs[a][name], runs[b][name]) for a, b in PAIRS)
        record_property(
            f"{lesson}: worst difference of {name}", f"{worst:.1e} of {bounded[name]:g}"
        )
    for a, b in PAIRS:
        assert parity.disagreements(runs[a], runs[b], bounded) == {}, f"{a} against {b}"


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("track", TRACKS)
def test_the_numbers_in_git_still_hold(lesson: str, track: str) -> None:
    run = notebook(lesson, track)
    bounds, stored = parity.read_elsewhere(run), parity.load_recorded(lesson)[track]
    assert set(stored) == set(bounds)
    bounds = {n: b if b is None else b + 1e-8 for n, b in bounds.items()}  # stored to 9 digits
    assert parity.disagreements(parity.read_records(run), stored, bounds) == {}
