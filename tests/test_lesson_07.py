"""Lesson 07: what runs when, which errors come, and that it runs without a C++ compiler."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest

from quartet.run import execute
from utils import parity
from utils.tracks import ROOT, TRACKS

LESSON = "07_graphs_and_compilation"
SEEN_ONCE = [1, 1, 1, 1, 3]  # printed, appended, NumPy's draw, a global number, its own draw


@pytest.mark.parametrize("track", TRACKS)
def test_the_three_ways_train_alike_and_eager_keeps_every_side_effect(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    for other in ("loss_graph", "loss_compiled"):
        assert np.abs(np.subtract(numbers["loss"], numbers[other])).max() < 1e-5
    assert numbers["effects_eager"] == [3, 3, 3, 3, 3]
    assert numbers["loss"][-1] < 0.5 * numbers["loss"][0]


def test_what_a_graph_keeps_of_the_python() -> None:
    last = {t: n["effects_last"] for t, n in parity.load_recorded(LESSON).items()}
    assert last["tensorflow"] == last["jax"] == last["keras"] == SEEN_ONCE
    assert last["pytorch"] == [0, 0, 1, 1, 3]  # torch.export keeps its one printout to itself


def test_a_branch_on_data_ends_as_the_prose_says() -> None:
    faults = {t: n["fault"] for t, n in parity.load_recorded(LESSON).items()}
    assert faults == {
        "keras": "TypeError",
        "pytorch": "Unsupported",
        "tensorflow": "OperatorNotAllowedInGraphError",
        "jax": "TracerBoolConversionError",
    }


def test_who_traces_for_each_size() -> None:
    graphs = {t: n["graphs_for_six_sizes"] for t, n in parity.load_recorded(LESSON).items()}
    assert graphs == {"keras": 2, "pytorch": 2, "tensorflow": 6, "jax": 6}
    tracks = parity.load_recorded(LESSON).values()
    assert all(n["museum_statements"] > n["eager_statements"] for n in tracks)


@pytest.mark.slow
def test_without_a_cpp_compiler_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = ROOT / "notebooks" / "pytorch" / f"{LESSON}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert execute(notebook, path.parent, timeout=300).error == ""
    text = nbformat.writes(notebook)
    assert "C++ compiler: none, so compiled means aot_eager here" in text
    assert "no C++ compiler here, so nothing was written" in text
    recorded, mine = parity.load_recorded(LESSON)["pytorch"], parity.read_records(notebook)
    assert parity.difference(mine["loss_compiled"], recorded["loss"]) < 1e-5
