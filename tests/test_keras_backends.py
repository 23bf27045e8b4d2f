"""The Keras track runs unchanged on each of Keras's backends, with the same numbers."""

from __future__ import annotations

import nbformat
import pytest

from quartet.executed import executed
from quartet.run import execute
from quartet.source import lesson_names
from utils import checks, parity
from utils.tracks import ROOT

pytestmark = pytest.mark.slow
OTHER_BACKENDS = ("jax", "torch")  # the third is the one that the other tests run on


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
@pytest.mark.parametrize("lesson", lesson_names())
def test_the_lesson_gives_the_same_numbers(lesson, backend, monkeypatch, record_property) -> None:
    path = ROOT / "notebooks" / "keras" / f"{lesson}.ipynb"
    usual = executed(path)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    notebook = nbformat.read(path, as_version=4)
    assert execute(notebook, path.parent, timeout=300).error == ""
    assert f"on the {backend} backend" in nbformat.writes(notebook)
    mine, theirs = parity.read_records(notebook), parity.read_records(usual)
    if "loss" in mine:
        gap = parity.difference(mine["loss"], theirs["loss"])
        record_property(f"{lesson}: Keras on {backend}, difference in loss", f"{gap:.1e}")
    assert parity.disagreements(mine, theirs, parity.read_tolerances(usual)) == {}


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
@pytest.mark.parametrize("lesson", lesson_names())
def test_the_solutions_pass(lesson: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "solutions" / "keras" / f"{lesson}.ipynb"
    monkeypatch.setenv("KERAS_BACKEND", backend)
    notebook = nbformat.read(path, as_version=4)
    assert execute(notebook, path.parent, timeout=300).error == ""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    found = [o.data[checks.MIME] for o in outputs if checks.MIME in o.get("data", {})]
    assert found and all(entry["points"] == entry["max_points"] for entry in found), found
