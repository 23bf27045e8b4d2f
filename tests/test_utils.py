"""The parts of `utils` that lessons share: weights, batches, sketches, plots and counting."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from nbformat.v4 import new_code_cell, new_notebook, new_output

from utils import parity, plots
from utils.code import sizes, statements
from utils.tables import table
from utils.tracks import ANY_FRAMEWORK, ROOT, TRACKS

matplotlib.use("agg")


def test_the_tracks_stand_in_their_order_and_name_each_other() -> None:
    assert list(TRACKS) == ["keras", "pytorch", "tensorflow", "jax"]
    rivals = TRACKS["jax"].rivals
    assert rivals.search("as torch does") and not rivals.search("jnp.dot")
    assert TRACKS["tensorflow"].rivals.search("keras") is None
    assert ANY_FRAMEWORK.search("In PyTorch") and not ANY_FRAMEWORK.search("a tf-idf score of it")


def test_root_holds_the_course() -> None:
    assert (ROOT / "lessons").is_dir() and (ROOT / "pyproject.toml").is_file()


def test_weights_follow_their_formula_and_their_seed() -> None:
    (W1, b1), (W2, b2) = parity.dense_weights([784, 128, 10], 0)
    assert W1.shape == (784, 128) and b2.shape == (10,) and W1.dtype == b1.dtype == np.float32
    limit = np.sqrt(6 / (784 + 128))
    assert np.abs(W1).max() <= limit and abs(W1.std() - limit / np.sqrt(3)) < 1e-3
    (he, _), *_ = parity.dense_weights([784, 128], 0, "he_normal")
    assert abs(he.std() - np.sqrt(2 / 784)) < 1e-3
    assert np.array_equal(parity.dense_weights([784, 128, 10], 0)[0][0], W1)
    assert not np.array_equal(parity.dense_weights([784, 128, 10], 1)[0][0], W1)
    with pytest.raises(ValueError, match="Unknown scheme 'glorot'"):
        parity.dense_weights([2, 2], 0, "glorot")


def test_each_epoch_visits_every_example_once() -> None:
    order = parity.batch_order(10, 3, epochs=4, seed=0)
    assert order.shape == (4, 3, 3)
    assert all(len(set(epoch.ravel())) == 9 for epoch in order)
    assert not np.array_equal(order[0], order[1])


def test_a_dropout_mask_keeps_the_mean() -> None:
    mask = parity.dropout_mask((1000, 100), 0.2, seed=0)
    assert set(np.unique(mask)) == {0, np.float32(1.25)} and abs(mask.mean() - 1) < 0.01


def test_a_sketch_measures_distance() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, 40))
    for size in (1e-6, 1e-2, 1.0):
        b = a.copy()
        b[17, 3] += size
        both = [{"shape": [300, 40], "sketch": parity.sketch(m)} for m in (a, b)]
        assert 0.6 * size < parity.difference(*both) < 1.5 * size


@pytest.mark.parametrize(
    ("a", "b", "gap"),
    [
        (1.0, 1.5, 0.5),
        ([1, 2], [1, 4], 2),
        ([1, 2], [1, 2, 3], np.inf),
        ("one", "one", 0),
        ("one", "two", np.inf),
        ("one", 1, np.inf),
        (float("nan"), float("nan"), np.inf),
        ({"shape": [2], "sketch": [0.0]}, {"shape": [3], "sketch": [0.0]}, np.inf),
        ({"shape": [2], "sketch": [0.0]}, 1.0, np.inf),
    ],
)
def test_differences(a: object, b: object, gap: float) -> None:
    assert parity.difference(a, b) == gap == parity.difference(b, a)


def test_disagreements_name_what_is_out_of_bounds_or_missing() -> None:
    tolerances = {"near": 0.1, "far": 0.1, "free": None, "missing": 0.1}
    mine = {"near": 1.0, "far": 1.0, "free": 1}
    other = {"near": 1.05, "far": 2.0, "free": 9, "missing": 0}
    assert parity.disagreements(mine, other, tolerances) == {"far": 1.0, "missing": np.inf}


def record(monkeypatch: pytest.MonkeyPatch, **named: object) -> dict:
    """Return what `parity.record` shows, and let it remember in a place of its own."""
    shown: list[dict] = []
    monkeypatch.setattr(parity, "_recorded", {})
    monkeypatch.setattr(parity, "display", lambda bundle, raw: shown.append(bundle))
    parity.record(**named)
    return shown[0]


def test_records_travel_in_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.ones((30, 40), np.float32)
    bundle = record(monkeypatch, tolerance=1e-5, loss=[0.5] * 300, big=big, count=3, name="a")
    cell = new_code_cell(outputs=[new_output("display_data", data=bundle)])
    notebook = new_notebook(cells=[cell])
    read = parity.read_records(notebook)
    assert read["loss"] == [0.5] * 300 and read["count"] == 3 and read["name"] == "a"
    assert read["big"] == {"shape": [30, 40], "sketch": parity.sketch(big)}
    assert set(parity.read_tolerances(notebook).values()) == {1e-5}
    assert "big (30, 40)" in bundle["text/plain"] and "count = 3" in bundle["text/plain"]


def test_what_is_not_finite_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="loss holds NaN or infinity: did the training diverge"):
        record(monkeypatch, loss=[1.0, float("nan")])


@pytest.mark.parametrize(
    ("said", "value", "bound"),
    [
        ({"tolerance": 1e-5}, 0.5, 1e-5),
        ({"tolerance": 1e-5, "elsewhere": 1e-3}, 0.5, 1e-3),
        ({"tolerance": 1e-5, "elsewhere": None}, 0.5, None),
        ({"tolerance": None, "elsewhere": 1e-6}, [1, 0.5], 1e-6),
        ({"elsewhere": 0}, 0.5, 0),
        ({"tolerance": None}, 3, 0.0),
        ({"tolerance": None}, "text", 0.0),
        ({}, [[1, 2], [3, 4]], 0.0),
        ({}, np.array([True, False]), 0.0),
    ],
)
def test_each_record_says_how_far_another_processor_may_be(
    monkeypatch: pytest.MonkeyPatch, said: dict, value: object, bound: float | None
) -> None:
    bundle = record(monkeypatch, **said, result=value)
    notebook = new_notebook(
        cells=[new_code_cell(outputs=[new_output("display_data", data=bundle)])]
    )
    assert parity.read_elsewhere(notebook) == {"result": bound}


@pytest.mark.parametrize("said", [{}, {"tolerance": 0}, {"tolerance": None}])
@pytest.mark.parametrize(
    "value", [0.5, 2.0, [[1, 2], [3, 0.5]], np.float32(1), np.ones((30, 40)), np.arange(300)]
)
def test_a_fraction_is_recorded_only_with_a_bound(
    monkeypatch: pytest.MonkeyPatch, said: dict, value: object
) -> None:
    with pytest.raises(ValueError, match=r"result holds fractions.*elsewhere=1e-6"):
        record(monkeypatch, **said, result=value)
    assert not parity._recorded


def test_compare_needs_a_recorded_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "_recorded", {})
    with pytest.raises(KeyError, match="Nothing recorded as 'loss' yet"):
        parity.compare("03_dense_layers", "jax")


def test_compare_says_when_the_settings_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = parity.load_recorded("03_dense_layers")["jax"]
    tracks = parity.load_recorded("03_dense_layers")
    assert parity._finding(tracks, "jax", "loss").startswith("4 frameworks, one loss curve")
    tracks["jax"] = mine | {"seed": mine["seed"] + 1}
    assert parity._finding(tracks, "jax", "loss").startswith("another seed than the recorded")
    assert "no other track" in parity._finding({"jax": mine}, "jax", "loss")


def test_the_overlay_draws_every_track(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = parity.load_recorded("03_dense_layers")
    upper, lower = parity.draw(tracks, "jax", "loss")
    assert [line.get_label() for line in upper.lines] == [t.title for t in TRACKS.values()]
    assert len(lower.lines) == 3
    plt.close("all")


def test_plots_have_labels_and_titles() -> None:
    ax = plots.learning_curves({"keras": [2, 1], "other": [3, 2]}, "It falls")
    assert ax.get_title() == "It falls" and ax.get_xlabel() == "step"
    assert ax.lines[0].get_color() == TRACKS["keras"].color
    grid = plots.image_grid(np.zeros((7, 4, 4)), [str(i) for i in range(7)], columns=3)
    assert grid.shape == (3, 3) and grid[2, 0].get_title() == "6"
    ax = plots.confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), ["a", "b"], "one miss")
    assert ax.get_ylabel() == "true class" and len(ax.texts) == 3
    plt.close("all")


def test_confusion_counts_put_the_truth_in_rows() -> None:
    counts = plots.confusion_counts(np.array([0, 0, 2]), np.array([1, 1, 2]), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_statements_count_what_they_say() -> None:
    def three():
        """Not counted."""
        a = (
            1
        )  # one statement on three lines  # fmt: skip
        return a

    class Two:
        def method(self):
            return 1  # noqa: E704

    assert statements(three) == 3
    assert statements(Two) == 3
    assert statements(three, Two) == 6
    assert sizes(three) == [] and sizes(test_a_sketch_measures_distance)[:2] == [300, 40]


def test_a_table_escapes_its_cells() -> None:
    assert table(["a"], [["x | y\nz"]]).data == "| a |\n| --- |\n| x \\| y z |"
