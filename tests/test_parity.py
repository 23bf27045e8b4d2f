"""The four tracks of each lesson compute the same numbers, and the comparison is able to fail."""

from __future__ import annotations

import itertools

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
PAIRS = list(itertools.combinations(TRACKS, 2))

# Each control plants one difference in one track: name -> (code to run after the imports,
# the results in which it must be found).
CONTROLS = {
    "a matrix is reshaped instead of transposed": (
        "right = parity.dense_weights\n"
        "parity.dense_weights = lambda *args, **named: [\n"
        "    (W.T.reshape(W.shape), b) for W, b in right(*args, **named)\n"
        "]",
        {"hidden", "logits", "gradient_W1", "after_ten_W1", "loss"},
    ),
    "two batches change places": (
        "right = parity.batch_order\n"
        "def swapped(*args):\n"
        "    order = right(*args)\n"
        "    order[0, [4, 5]] = order[0, [5, 4]]\n"
        "    return order\n"
        "parity.batch_order = swapped",
        {"loss"},
    ),
    "one weight of 100,352 is off by a ten-thousandth": (
        "right = parity.dense_weights\n"
        "def nudged(*args, **named):\n"
        "    layers = right(*args, **named)\n"
        "    layers[0][0][400 % len(layers[0][0]), 0] += 1e-4\n"
        "    return layers\n"
        "parity.dense_weights = nudged",
        {"hidden", "after_ten_W1"},
    ),
}


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


@pytest.mark.parametrize("planted", CONTROLS)
def test_a_planted_difference_is_found(planted: str, record_property) -> None:
    lesson, (code, where) = "03_dense_layers", CONTROLS[planted]
    path = ROOT / "notebooks" / "pytorch" / f"{lesson}.ipynb"
    spoiled = nbformat.read(path, as_version=4)
    imports = next(
        i for i, cell in enumerate(spoiled.cells) if "import data, parity" in cell.source
    )
    spoiled.cells.insert(imports + 1, new_code_cell(code))
    outcome = execute(spoiled, path.parent, timeout=300)
    assert not outcome.error or "AssertionError" in outcome.error, outcome.error
    right = notebook(lesson, "jax")
    found = parity.disagreements(
        parity.read_records(spoiled), parity.read_records(right), parity.read_tolerances(right)
    )
    record_property(f"control: {planted}", f"found in {len(found)} results")
    assert where <= set(found)
