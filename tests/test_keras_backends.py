"""The Keras track runs unchanged on each of Keras's backends, with the same numbers."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from forks import results

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
def test_the_solutions_pass(backend: str, tmp_path: Path) -> None:
    found = results("solutions", "keras", lesson_names(), tmp_path, KERAS_BACKEND=backend)
    for lesson, answers in found.items():
        exercises = checks.load_exercises(lesson)
        assert set(answers) == set(exercises), lesson
        for name, (points, messages) in answers.items():
            assert points == exercises[name].points, f"{lesson}, {name}: {messages}"
