"""Lesson 29: resumed to the bit, shipped without the code, and strangers' files kept quiet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from utils import checks, parity
from utils.tracks import ROOT, TRACKS

LESSON = "29_saving"
FAULTS = {  # track -> parts of the lines at which its cells provoke an error
    "keras": ["load_weights", "program", "shipped.fit", "load_model", "model.export"],
    "pytorch": ["load_state_dict", "x.mean() < 0.3", "program.train()", "torch.load", "save_file"],
    "tensorflow": ["read", "program.model(X_test[:1])", "tf.saved_model.load", "assert_consumed"],
    "jax": ["restore", "program", "x.mean() < 0.3", "jax.grad", "serialize", "elsewhere.call"],
}


@pytest.mark.parametrize("track", TRACKS)
def test_resumed_to_the_bit_and_not_without_the_velocity(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    whole, forgotten = np.array(numbers["loss"]), np.array(numbers["forgotten_loss"])
    assert numbers["resumed_same_bits"] == 1
    assert forgotten[0] == pytest.approx(whole[-len(forgotten)], abs=1e-6)  # the same weights
    assert np.abs(forgotten - whole[-len(forgotten) :]).max() > 0.01  # and then another run


@pytest.mark.parametrize("track", TRACKS)
def test_the_program_is_the_network_with_what_was_baked_in(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    assert np.allclose(numbers["program_logits"], numbers["logits"], atol=1e-5)
    logits = np.array(numbers["logits"])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(numbers["probabilities"], softmax, atol=1e-5)
    assert numbers["baked"] == pytest.approx(softmax[0].max(), abs=1e-5)
    cooler = np.exp(logits[0] / 4) / np.exp(logits[0] / 4).sum()
    assert numbers["changed"] == pytest.approx(cooler.max(), abs=1e-5)
    assert numbers["unscaled_accuracy"] < numbers["accuracy"]


@pytest.mark.parametrize("track", TRACKS)
def test_a_pickle_ran_and_the_safe_way_did_not(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    assert numbers["pickle_ran"] == numbers["refused"] == 1


def test_what_the_prose_says_of_the_export_matrix_is_what_was_found() -> None:
    tracks = parity.load_recorded(LESSON)
    assert tracks["keras"]["savedmodel"] == "jax, tensorflow"
    assert tracks["keras"]["onnx"] == "jax, tensorflow, torch"
    assert {tracks[track]["onnx"] for track in ("pytorch", "tensorflow", "jax")} == {"yes"}
    assert [tracks[track]["savedmodel"] for track in ("pytorch", "tensorflow", "jax")] == [
        "no",
        "yes",
        "yes",
    ]


def test_the_files_weights_agree_across_the_tracks() -> None:
    sketches = [
        np.array(numbers["safetensors_W1"]["sketch"])
        for numbers in parity.load_recorded(LESSON).values()
    ]
    for a, b in itertools.combinations(sketches, 2):
        assert np.sqrt(np.mean((a - b) ** 2)) < 1e-4


@pytest.mark.parametrize("track", TRACKS)
def test_every_deliberate_error_says_its_line(track: str) -> None:
    """Running the notebook checks each of them (utils/faults.py); here: that they are there."""
    text = (ROOT / "notebooks" / track / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    for line in FAULTS[track]:
        assert f'line=\\"{line}\\")' in text, line


@pytest.mark.parametrize("case", range(4))
def test_an_array_of_another_type_is_not_the_one_in_the_file(case: int) -> None:
    made = checks.load_exercises(LESSON)["read_tensor"].cases(np.random.default_rng(0))[case]
    right = made.judge.expected
    assert made.judge(right).score == 1
    assert made.judge(right.astype(np.float64)).score == 0
    assert made.judge(right.reshape(-1, 1)).score == 0


@pytest.mark.parametrize("track", TRACKS)
def test_the_answer_to_ship_it_is_what_the_file_says(track: str) -> None:
    """The reading stands below the learner's code, so that plain arithmetic leaves nothing."""
    text = (ROOT / "exercises" / track / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    ship = text[text.index("def ship(") :]
    ship = ship[: ship.index('"cell_type"')]
    assert ship.index("NotImplementedError") < ship.index("(first)")
