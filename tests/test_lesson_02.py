"""What lesson 02 relies on: gradients that agree with a check of their own, counts, kinks."""

from __future__ import annotations

import numpy as np

from utils import checks, parity


def numbers(name: str) -> dict[str, object]:
    return {track: found[name] for track, found in parity.load_recorded("02_gradients").items()}


def test_what_the_prose_says_of_kinks_is_what_was_recorded() -> None:
    assert numbers("abs_at_0") == {"keras": 0, "pytorch": 0, "tensorflow": 0, "jax": 1}
    assert numbers("maximum_at_0") == {"keras": 1, "pytorch": 0.5, "tensorflow": 1, "jax": 0.5}


def test_the_backward_pass_by_hand_is_the_longest_and_has_eleven_statements() -> None:
    assert set(numbers("statements_hand").values()) == {11}
    for name in ("statements_autodiff", "statements_ready"):
        assert max(numbers(name).values()) < 11


def test_every_framework_is_within_float32_of_the_gradient_by_hand() -> None:
    assert max(numbers("largest_gap_to_hand").values()) < 1e-6


def test_the_references_agree_with_finite_differences_in_float64() -> None:
    rng, h = np.random.default_rng(5), 1e-5
    W1, b1, W2, b2 = (rng.standard_normal(s) for s in ((3, 4), (4,), (4, 1), (1,)))
    x, y = rng.standard_normal((6, 3)), rng.standard_normal(6)

    def loss(W: np.ndarray) -> float:
        return float(np.mean(((np.tanh(x @ W + b1) @ W2 + b2)[:, 0] - y) ** 2))

    numeric = np.zeros((3, 4))
    for at in np.ndindex(3, 4):
        step = np.zeros((3, 4))
        step[at] = h
        numeric[at] = (loss(W1 + step) - loss(W1 - step)) / (2 * h)
    module = checks.load_exercises("02_gradients")["gradient_w1"].mistake.__globals__
    assert np.allclose(module["gradient_w1"](W1, b1, W2, b2, x, y), numeric, atol=1e-8)
    labels, w, v = np.sign(y), rng.standard_normal(3), rng.standard_normal(3)

    def gradient(w: np.ndarray) -> np.ndarray:
        return -x.T @ (labels / (1 + np.exp(labels * (x @ w)))) / len(labels)

    along = (gradient(w + h * v) - gradient(w - h * v)) / (2 * h)
    assert np.allclose(module["logistic_hvp"](w, v, x, labels), along, atol=1e-8)
