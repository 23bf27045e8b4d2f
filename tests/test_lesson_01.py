"""What lesson 01 relies on: a k-means that ports in few lines, no picture in doubt."""

from __future__ import annotations

import difflib
from itertools import permutations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from utils import parity

MOST_CHANGED_LINES = 10
ROUNDING = 1e-5  # of a squared distance of up to 30 in float32


def test_no_port_of_kmeans_changes_more_than_ten_lines(record_property) -> None:
    tracks = parity.load_recorded("01_tensors")
    source = {track: numbers["kmeans_source"].splitlines() for track, numbers in tracks.items()}
    counts = {
        f"{a} to {b}": sum(line.startswith("+ ") for line in difflib.ndiff(source[a], source[b]))
        for a, b in permutations(source, 2)
    }
    record_property("01_tensors: changed lines", str(counts))
    assert len(counts) == 12 and 0 < max(counts.values()) <= MOST_CHANGED_LINES


def first_centers(X: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(X)))]
    while len(chosen) < 10:
        gaps = ((X[:, None] - X[chosen]) ** 2).sum(axis=-1).min(axis=1)
        chosen.append(int(rng.choice(len(X), p=gaps / gaps.sum())))
    return X[chosen]


@pytest.mark.parametrize(("seed", "roundings"), [(61, 100), (62, 2), (63, 2)])
def test_no_picture_lies_so_near_to_two_centers_that_rounding_decides(
    seed: int, roundings: int
) -> None:
    X = load_digits().data / 16
    centers, margins, losses, previous = first_centers(X, seed), [], [], None
    for step in range(100):
        distances = ((X[:, None] - centers) ** 2).sum(axis=-1)
        nearest = np.partition(distances, 1, axis=1)
        if step:  # at first all are multiples of 1/256, and float32 is exact
            margins.append((nearest[:, 1] - nearest[:, 0]).min())
        losses.append(nearest[:, 0].mean())
        labels = distances.argmin(axis=1)
        centers = np.array([X[labels == label].mean(axis=0) for label in range(10)])
        if np.array_equal(labels, previous):
            break
        previous = labels
    recorded = parity.load_recorded("01_tensors")["jax"]["restarts"][seed - 61]
    assert losses[-1] == pytest.approx(recorded, abs=1e-5)
    assert min(margins) > roundings * ROUNDING


def test_no_components_sign_hangs_on_rounding() -> None:
    X = load_digits().data / 16
    _, _, Vt = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    largest = np.sort(np.abs(Vt[:10]), axis=1)
    assert (largest[:, -1] - largest[:, -2]).min() > 4 * ROUNDING


def test_the_tracks_differ_where_the_lesson_says_so() -> None:
    tracks = parity.load_recorded("01_tensors")
    mixed = {track: numbers["int32_plus_float32"] for track, numbers in tracks.items()}
    assert mixed["tensorflow"] == "InvalidArgumentError"
    assert {mixed[t] for t in ("keras", "pytorch", "jax")} == {"float32: 1.5"}
    assert tracks["jax"]["read_outside"] == "int32: 2"
