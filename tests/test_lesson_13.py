"""What lesson 13 relies on: errors that frameworks raise, an envelope, faults that can be told."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import re

import numpy as np
import pytest

from utils import checks, parity
from utils.tracks import ROOT

LESSON = "13_diagnosing_training"
TEXT = (ROOT / "lessons" / LESSON / "lesson.md").read_text(encoding="utf-8")
FAULTS = {
    "keras": ("TypeError", "scheduled.learning_rate = 0.01"),
    "pytorch": ("RuntimeError", "curve = kept[0].numpy()"),
    "tensorflow": ("AttributeError", "return loss.numpy()"),
    "jax": ("ConcretizationTypeError", "return float(loss)"),
}


def module() -> dict[str, object]:
    return checks.load_exercises(LESSON)["diagnose"].cases.__globals__


@pytest.mark.parametrize("track", FAULTS)
def test_each_frameworks_error_has_its_type_and_names_its_line(track: str) -> None:
    recorded = parity.load_recorded(LESSON)[track]
    assert (recorded["fault"], recorded["fault_line"]) == FAULTS[track]


def test_no_framework_brings_tensorboard_along() -> None:
    for package in ("keras", "torch", "tensorflow", "jax"):
        needs = importlib.metadata.requires(package) or []
        assert not [n for n in needs if n.startswith("tensorboard") and "extra ==" not in n]


def test_the_envelope_holds_one_knob_for_each_run_and_every_track_named_it() -> None:
    (sealed,) = re.findall(r'^ENVELOPE = """([^"]+)"""$', TEXT, re.MULTILINE)
    knobs = json.loads(base64.b64decode(sealed))
    assert {name: list(turned) for name, turned in knobs.items()} == {
        "A": ["rate"],
        "B": ["shuffled"],
        "C": ["bias"],
    }
    named = {numbers["named"] for numbers in parity.load_recorded(LESSON).values()}
    assert named == {"nothing rate shuffled bias"}


def test_the_diagnosis_stands_after_the_evidence() -> None:
    before = TEXT[: TEXT.index("## The diagnosis")]
    for given_away in ("rate=0.65", "shuffled=0.55", "-2.2", "A: the learning rate"):
        assert given_away not in before


def test_gradient_norms_of_all_layers_agree_over_the_whole_run(record_property) -> None:
    tracks = parity.load_recorded(LESSON)
    for name in ("norms_hidden1", "norms_hidden2", "norms_out"):
        norms = np.array([numbers[name] for numbers in tracks.values()])
        spread = float((norms.max(axis=0) - norms.min(axis=0)).max())
        record_property(f"{LESSON}: spread of {name}", f"{spread:.1e}")
        assert norms.shape == (4, 180) and spread < 5e-5


def test_the_picture_of_the_board_is_small_and_linked() -> None:
    (link,) = re.findall(r"!\[[^\]]+\]\(\.\./\.\./(\S+)\)", TEXT)
    assert 10_000 < (ROOT / link).stat().st_size < 150_000


def told(training: np.ndarray, validation: np.ndarray, ratio: np.ndarray, dead: float) -> str:
    """Name a fault as the solution of the last exercise does."""
    gap, largest = training[-1] - validation[-1], ratio[:10].max()
    if dead > 0.5:
        return "dead units"
    if largest > 0.2 or largest < 0.002:
        return "rate too high" if largest > 0.2 else "rate too low"
    if gap < -0.1:
        return "labels"
    return "overfitting" if gap > 0.18 else "healthy"


@pytest.mark.parametrize("seed", range(8))
def test_the_six_patients_can_be_told_apart_with_any_seed(seed: int) -> None:
    run, knobs = module()["small_run"], module()["KNOBS"]
    assert {fault: told(**run(7 * seed, **turned)) for fault, turned in knobs.items()} == {
        fault: fault for fault in knobs
    }


def test_the_references_are_right_where_the_answer_is_known() -> None:
    known = module()
    X, y = np.ones((3, 2), np.float32), np.array([0, 1, 2])
    assert known["sweep_losses"](X, y, np.array([0.1]))[0] == pytest.approx(np.log(3))
    assert known["dead_share"](np.array([[0, 1], [0, 0]])) == 0.5
    assert known["update_ratio"](np.array([[3.0, 4.0]]), np.array([[3.0, 9.0]])) == 1
