"""What lesson 04 says of its own numbers, and the drawing of a graph that it uses."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from utils import data, parity, plots

TRACKS = ("keras", "pytorch", "tensorflow", "jax")


def recorded(name: str) -> dict[str, object]:
    """Return track -> what its notebook recorded under a name."""
    stored = parity.load_recorded("04_defining_models")
    return {track: stored[track][name] for track in TRACKS}


def test_what_the_prose_says_of_statements_is_what_was_counted() -> None:
    line, whole = recorded("stack_as_line"), recorded("stack_as_class")
    assert set(line.values()) == {2} and min(whole.values()) >= 6
    functional, sequential = recorded("functional_way"), recorded("sequential_way")
    subclass = recorded("subclass_way")
    assert all(functional[t] < min(sequential[t], subclass[t]) for t in TRACKS)
    assert abs(subclass["keras"] - subclass["pytorch"]) <= 1


def test_layers_are_drawn_by_two_tracks_and_operations_by_two() -> None:
    nodes = recorded("graph_nodes")
    assert nodes["keras"] < nodes["pytorch"] < nodes["tensorflow"] == nodes["jax"]


def test_one_track_transposes_and_two_do_not_take_a_plain_list() -> None:
    stem = recorded("stem_is")
    assert [t for t in TRACKS if "(16, 7)" in stem[t]] == ["pytorch"]
    found = recorded("layers_in_a_list")
    assert [t for t in TRACKS if not found[t].startswith("4 of 4")] == ["pytorch", "jax"]


def test_the_network_beats_linear_regression_in_every_track() -> None:
    concrete = data.load("concrete")
    mixes = np.unique(concrete["mix_id"])
    assert len(mixes) == 427  # fewer than rows, so a split by row would leak
    assert all(rmse < 7.5 for rmse in recorded("test_rmse").values())
    assert all(0.85 < share < 0.95 for share in recorded("draws_won").values())  # nine in ten


def test_a_graph_is_drawn_from_left_to_right_with_its_sources_before_their_use() -> None:
    edges = [("x", "a"), ("a", "b"), ("a", "sum"), ("b", "sum"), ("sum", "join"), ("y", "join")]
    ax = plots.graph({name: name for name in ("x", "y", "a", "b", "sum", "join")}, edges, "t")
    column = {text.get_text(): text.get_position()[0] for text in ax.texts if text.get_text()}
    assert column == {"x": 0, "a": 1, "b": 2, "sum": 3, "y": 3, "join": 4}
    assert all(column[a] < column[b] for a, b in edges)
    plt.close(ax.figure)
