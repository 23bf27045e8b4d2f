"""Lesson 05: every level of the loop reaches the same weights, and the counts in the prose hold."""

from __future__ import annotations

import numpy as np
import pytest

from utils import data, parity
from utils.tracks import TRACKS

LESSON = "05_training_loops"


@pytest.mark.parametrize("track", TRACKS)
def test_built_in_and_custom_loops_reach_the_same_weights(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    for other in ("looped_W1", "raw_W1", "compiled_W1"):
        assert parity.difference(numbers["fitted_W1"], numbers[other]) < 1e-5
    assert parity.difference(numbers["ruled_W1"], numbers["ruled_by_hand_W1"]) < 1e-5
    assert parity.difference(numbers["ruled_W1"], numbers["fitted_W1"]) > 1e-2
    assert abs(numbers["deep_fit"] - numbers["deep_hand"]) < 1e-5


def test_what_the_prose_says_of_counts_and_epsilon() -> None:
    tracks = parity.load_recorded(LESSON)
    loops = [numbers["loop_statements"] for numbers in tracks.values()]
    assert max(loops) - min(loops) <= 2
    keras, torch = tracks["keras"], tracks["pytorch"]
    assert keras["built_in_statements"] < torch["built_in_statements"]
    assert keras["default_epsilon"] == 1e-7 and torch["default_epsilon"] == 1e-8
    assert torch["tiny_update"][0] > 10 * keras["tiny_update"][0]


def validation_losses(rate: float, kind: type, pixels: np.ndarray) -> list[float]:
    """Return the lesson's run on 500 pictures in NumPy, 14 epochs, the pixels in any order."""
    clothes = data.load("fashion_mnist")
    X = clothes["x_train"].reshape(-1, 784).astype(np.float32) / 255
    shuffled = np.random.default_rng(3).permutation(len(X))
    few, val = shuffled[:500], shuffled[-1000:]
    onehot = np.eye(10, dtype=kind)[clothes["y_train"]]
    layers = parity.dense_weights([784, 64, 10], 3)
    (W1, b1), (W2, b2) = ((W.astype(kind), b.astype(kind)) for W, b in layers)
    W1, X, losses, step = W1[pixels], X[:, pixels].astype(kind), [], kind(rate / 50)
    for _ in range(14):
        for rows in few.reshape(10, 50):
            hidden = np.tanh(X[rows] @ W1 + b1)
            p = np.exp(hidden @ W2 + b2)
            d = p / p.sum(axis=1, keepdims=True) - onehot[rows]
            d_hidden = (d @ W2.T) * (1 - hidden**2)
            W1, b1 = W1 - step * X[rows].T @ d_hidden, b1 - step * d_hidden.sum(axis=0)
            W2, b2 = W2 - step * hidden.T @ d, b2 - step * d.sum(axis=0)
        p = np.exp(np.tanh(X[val] @ W1 + b1) @ W2 + b2)
        losses.append(float(-np.log((p * onehot[val]).sum(axis=1) / p.sum(axis=1)).mean()))
    return losses


def test_the_rate_of_early_stopping_keeps_rounding_small_and_a_larger_one_does_not() -> None:
    """At 0.5 the run amplifies rounding, and correct tracks would stop at different epochs."""
    shuffled = np.random.default_rng(0).permutation(784)
    gaps = {}
    for rate in (0.2, 0.5):
        single = validation_losses(rate, np.float32, np.arange(784))
        double = validation_losses(rate, np.float64, shuffled)
        gaps[rate] = np.abs(np.subtract(single, double)).max()
    assert gaps[0.2] < 1e-5 and gaps[0.5] > 1e-2
