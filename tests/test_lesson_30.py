"""Lesson 30: sixteen transfers, there and back, from what each framework itself has kept."""

from __future__ import annotations

import numpy as np
import pytest

from utils import checks, parity
from utils.tracks import TRACKS

LESSON = "30_onnx_and_porting"
PADDING = dict.fromkeys(TRACKS, ((0, 1), (0, 1))) | {"pytorch": ((1, 1), (1, 1))}
EPSILON = {"keras": 1e-3, "pytorch": 1e-5, "tensorflow": 1e-3, "jax": 1e-5}
GATES = {"keras": "zrn", "pytorch": "rzn", "tensorflow": "zrn", "jax": "rzn"}


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict]:
    return parity.load_recorded(LESSON)


def box(numbers: dict, name: str) -> np.ndarray:
    return np.array(numbers[f"box_{name}"], np.float32)


def pictures() -> np.ndarray:
    from utils import data

    rows = data.load("fashion_mnist")["x_test"][:5].reshape(5, 14, 2, 14, 2) / np.float32(255)
    return rows.mean(axis=(2, 4)).astype(np.float32)  # (5, 14, 14)


def convolution(track: str, numbers: dict) -> np.ndarray:
    """Return the logits of a sender's network, by loops over windows."""
    kernel, W = box(numbers, "kernel"), box(numbers, "W")
    if track == "pytorch":  # (outputs, inputs, height, width), and channel by channel
        kernel = np.moveaxis(kernel, (0, 1), (3, 2))
    x = np.pad(pictures(), ((0, 0), *PADDING[track]))
    conv = np.zeros((5, 7, 7, 4))
    for row in range(7):
        for column in range(7):
            window = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            conv[:, row, column] = np.tensordot(window, kernel[:, :, 0], 2)
    conv += box(numbers, "bias")
    spread = np.sqrt(box(numbers, "variance") + EPSILON[track])
    bent = (conv - box(numbers, "mean")) / spread * box(numbers, "scale") + box(numbers, "offset")
    bent = np.tanh(bent)
    if track == "pytorch":
        return np.moveaxis(bent, 3, 1).reshape(5, -1) @ W.T + box(numbers, "b")
    return bent.reshape(5, -1) @ W + box(numbers, "b")


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def recurrent(track: str, numbers: dict) -> np.ndarray:
    """Return the states of a sender's GRU, gate by gate from its own box."""
    W, U, b = (box(numbers, f"gru_{name}") for name in "WUb")
    if track == "pytorch":
        W, U = W.T, U.T
    b = np.stack([b, 0 * b]) if b.ndim == 1 else b
    at = {gate: slice(6 * i, 6 * i + 6) for i, gate in enumerate(GATES[track])}
    h, states = np.zeros((2, 6)), []
    for x in pictures()[:2].swapaxes(0, 1):
        given, kept = x @ W + b[0], h @ U + b[1]
        r, z = (sigmoid(given[:, at[gate]] + kept[:, at[gate]]) for gate in "rz")
        n = np.tanh(given[:, at["n"]] + r * kept[:, at["n"]])
        h = n + z * (h - n)
        states.append(h)
    return np.stack(states, axis=1)


@pytest.mark.parametrize("receiver", TRACKS)
@pytest.mark.parametrize("sender", TRACKS)
def test_a_model_answers_abroad_as_at_home(sender: str, receiver: str, recorded: dict) -> None:
    for part in ("logits", "states"):
        name = f"{sender}_{part}"
        assert parity.difference(recorded[sender][name], recorded[receiver][name]) <= 1e-5, name


@pytest.mark.parametrize("sender", TRACKS)
def test_the_boxes_mean_what_the_answers_say(sender: str, recorded: dict) -> None:
    numbers = recorded[sender]
    assert np.abs(convolution(sender, numbers) - numbers[f"{sender}_logits"]).max() < 1e-5
    assert np.abs(recurrent(sender, numbers) - numbers[f"{sender}_states"]).max() < 1e-5


def test_each_framework_keeps_its_own_layout(recorded: dict) -> None:
    shapes = {track: box(numbers, "kernel").shape for track, numbers in recorded.items()}
    assert shapes.pop("pytorch") == (4, 1, 3, 3)
    assert set(shapes.values()) == {(3, 3, 1, 4)}
    assert {track: box(numbers, "gru_b").shape for track, numbers in recorded.items()} == {
        "keras": (2, 18),
        "pytorch": (2, 18),
        "tensorflow": (2, 18),
        "jax": (18,),
    }


def test_no_two_senders_sent_the_same_numbers(recorded: dict) -> None:
    logits = [np.array(recorded[track][f"{track}_logits"]) for track in TRACKS]
    for i, a in enumerate(logits):
        assert all(np.abs(a - b).max() > 0.1 for b in logits[:i])


@pytest.mark.parametrize("track", TRACKS)
def test_the_way_of_the_fault(track: str, recorded: dict) -> None:
    assert recorded[track]["least_bias"] in (-(2**31), 0)  # NaN as an integer: x86 or ARM
    assert recorded[track]["warned"]
    assert recorded[track]["culprits"] == "conv conv norm logits"


def test_momentum_means_two_things(recorded: dict) -> None:
    shares = {track: numbers["momentum_share"] for track, numbers in recorded.items()}
    assert shares == {"keras": 0.1, "pytorch": 0.9, "tensorflow": 0.1, "jax": 0.1}


@pytest.mark.parametrize("track", TRACKS)
def test_momentum_carried_as_written_moves_the_mean_nine_times_as_far(
    track: str, recorded: dict
) -> None:
    seed = recorded[track]["seed"]
    batch = np.random.default_rng(seed).normal(3, 2, (8, 4)).astype(np.float32)
    assert np.allclose(recorded[track]["mean_translated"], 0.1 * batch.mean(axis=0), atol=1e-5)
    assert np.allclose(recorded[track]["mean_as_written"], 0.9 * batch.mean(axis=0), atol=1e-5)


def test_a_fault_finder_by_means_overlooks_a_number_just_over_the_tolerance() -> None:
    exercise = checks.load_exercises(LESSON)["first_parting"]

    def by_mean(seen: np.ndarray, wanted: np.ndarray, tolerance: float) -> int:
        agree = np.abs(seen - wanted).mean(axis=(1, 2)) <= tolerance
        return int(np.argmin(agree)) if not agree.all() else -1

    cases = exercise.cases(np.random.default_rng(0))
    wrong = [case.about for case in cases if by_mean(**case.args) != case.expected]
    assert wrong == ["one number a little over the tolerance, in layer 2"]
