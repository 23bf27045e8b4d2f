"""The four tracks of each lesson compute the same numbers, and the comparison is able to fail."""

from __future__ import annotations

import itertools
import re
import tomllib
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from quartet.executed import executed
from quartet.run import execute
from quartet.source import lesson_names
from utils import parity
from utils.tracks import ROOT, TRACKS

pytestmark = pytest.mark.slow
LESSONS = lesson_names()
IMPORTS = re.compile(r"^from utils import .*\bparity\b", re.MULTILINE)
PAIRS = list(itertools.combinations(TRACKS, 2))


def controls(lesson: str) -> list[dict[str, Any]]:
    """Return the differences that the lesson's controls.toml plants."""
    path = ROOT / "lessons" / lesson / "controls.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["control"] if path.is_file() else []


CONTROLS = [
    pytest.param(lesson, control, id=f"{lesson}: {control['about']}")
    for lesson in LESSONS
    for control in controls(lesson)
]


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
    tolerances = {name: t or 0.0 for name, t in parity.read_tolerances(run).items()}
    stored = parity.load_recorded(lesson)[track]
    assert set(stored) == set(tolerances)
    rounding = {name: t + 1e-8 for name, t in tolerances.items()}  # stored to 9 digits
    assert parity.disagreements(parity.read_records(run), stored, rounding) == {}


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_plants_a_difference(lesson: str) -> None:
    assert controls(lesson), f"lessons/{lesson}/controls.toml plants none: see CONTRIBUTING.md"


@pytest.mark.parametrize(("lesson", "control"), CONTROLS)
def test_a_planted_difference_is_found(lesson: str, control, record_property) -> None:
    path = ROOT / "notebooks" / control["track"] / f"{lesson}.ipynb"
    spoiled = nbformat.read(path, as_version=4)
    imports = next(i for i, c in enumerate(spoiled.cells) if IMPORTS.search(c.source))
    spoiled.cells.insert(imports + 1, new_code_cell(control["code"]))
    outcome = execute(spoiled, path.parent, timeout=300)
    assert not outcome.error or "AssertionError" in outcome.error, outcome.error
    right = notebook(lesson, next(track for track in TRACKS if track != control["track"]))
    found = parity.disagreements(
        parity.read_records(spoiled), parity.read_records(right), parity.read_tolerances(right)
    )
    record_property(f"{lesson}, control: {control['about']}", f"found in {len(found)} results")
    assert set(control["found_in"]) <= set(found)
