"""The Keras track runs unchanged on each of Keras's backends, with the same numbers.

Cells tagged `each-engine` start processes that name their backend: they are left out here.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from forks import results
from nbformat import NotebookNode

from quartet.executed import executed
from quartet.rules import EACH_ENGINE
from quartet.run import execute
from quartet.source import lesson_names
from utils import checks, parity
from utils.tracks import ROOT

pytestmark = pytest.mark.slow
OTHER_BACKENDS = ("jax", "torch")  # the third is the one that the other tests run on


def asks_each_engine(cell: NotebookNode) -> bool:
    """Return whether what a cell does is the same whichever backend the notebook runs on."""
    return EACH_ENGINE in cell.metadata.get("tags", ())


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
@pytest.mark.parametrize("lesson", lesson_names())
def test_the_lesson_gives_the_same_numbers(lesson, backend, monkeypatch, record_property) -> None:
    path = ROOT / "notebooks" / "keras" / f"{lesson}.ipynb"
    usual = executed(path)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    notebook, left_out = nbformat.read(path, as_version=4), copy.copy(usual)
    left_out.cells = [cell for cell in usual.cells if asks_each_engine(cell)]
    notebook.cells = [cell for cell in notebook.cells if not asks_each_engine(cell)]
    assert execute(notebook, path.parent, timeout=300).error == ""
    assert f"on the {backend} backend" in nbformat.writes(notebook)
    mine, theirs = parity.read_records(notebook), parity.read_records(usual)
    tolerances = parity.read_tolerances(usual)
    for name in parity.read_records(left_out):
        del tolerances[name]
    if "loss" in mine:
        gap = parity.difference(mine["loss"], theirs["loss"])
        record_property(f"{lesson}: Keras on {backend}, difference in loss", f"{gap:.1e}")
    assert parity.disagreements(mine, theirs, tolerances) == {}


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_solutions_pass(backend: str, tmp_path: Path) -> None:
    found = results("solutions", "keras", lesson_names(), tmp_path, KERAS_BACKEND=backend)
    for lesson, answers in found.items():
        exercises = checks.load_exercises(lesson)
        assert set(answers) == set(exercises), lesson
        for name, (points, messages) in answers.items():
            assert points == exercises[name].points, f"{lesson}, {name}: {messages}"
