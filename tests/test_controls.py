"""The comparison of the tracks can fail: it finds the difference that each control plants."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from quartet.executed import executed
from quartet.run import execute
from quartet.source import lesson_names
from utils import parity
from utils.tracks import ROOT, TRACKS

LESSONS = lesson_names()
IMPORTS = re.compile(r"^from utils import .*\bparity\b", re.MULTILINE)


def controls(lesson: str) -> list[dict[str, Any]]:
    """Return the differences that the lesson's controls.toml plants."""
    path = ROOT / "lessons" / lesson / "controls.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["control"] if path.is_file() else []


CONTROLS = [
    pytest.param(lesson, control, id=f"{lesson}: {control['about']}")
    for lesson in LESSONS
    for control in controls(lesson)
]


def cut(notebook: NotebookNode, names: set[str]) -> NotebookNode:
    """Return an executed notebook as it was, up to the last cell that records one of the names."""
    recording = [
        number
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if names & set(output.get("data", {}).get(parity.MIME, {}))
    ]
    notebook.cells = notebook.cells[: max(recording) + 1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return notebook


def spoil(notebook: NotebookNode, code: str) -> None:
    """Plant a difference after the imports."""
    imports = next(i for i, c in enumerate(notebook.cells) if IMPORTS.search(c.source))
    notebook.cells.insert(imports + 1, new_code_cell(code))


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_plants_a_difference(lesson: str) -> None:
    assert controls(lesson), f"lessons/{lesson}/controls.toml plants none: see CONTRIBUTING.md"


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "control"), CONTROLS)
def test_a_planted_difference_is_found(lesson: str, control, record_property) -> None:
    names, track = set(control["found_in"]), control["track"]
    path = ROOT / "notebooks" / track / f"{lesson}.ipynb"
    spoiled = cut(executed(path), names)
    spoil(spoiled, control["code"])
    outcome = execute(spoiled, path.parent, timeout=300)
    assert not outcome.error or "AssertionError" in outcome.error, outcome.error
    other = next(each for each in TRACKS if each != track)
    right = executed(ROOT / "notebooks" / other / f"{lesson}.ipynb")
    records = parity.read_records(spoiled)
    assert outcome.error or names <= set(records)
    found = parity.disagreements(records, parity.read_records(right), parity.read_tolerances(right))
    record_property(f"{lesson}, control: {control['about']}", f"found in {len(found)} results")
    assert names <= set(found)
