"""Lesson 14: same start, same bits twice, same bits after a kill; and rounding apart elsewhere."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from utils import parity
from utils.tracks import ROOT, TRACKS

LESSON = "14_reproducibility"
FAULTS = {  # track -> the errors that cells provoke, and a part of the line that must be named
    "keras": [("ValueError", "SeedGenerator"), ("OSError", "load_weights")],
    "pytorch": [("RuntimeError", "put_"), ("RuntimeError", "torch.load")],
    "tensorflow": [
        ("RuntimeError", "from_non_deterministic_state"),
        ("IndexError", "read(path)"),
        ("AssertionError", "assert_consumed"),
    ],
    "jax": [("jax.errors.KeyReuseError", "noise"), ("zipfile.BadZipFile", "np.load")],
}


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """Return the lesson's fingerprint, written again: names, shapes, types and bytes."""
    parts = []
    for name in sorted(arrays):
        array = np.asarray(arrays[name], "<f4")
        parts += [f"{name} {array.shape} <f4 ".encode(), array.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


@pytest.mark.parametrize("track", TRACKS)
def test_the_same_bits_twice_and_after_a_kill(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    for claim in ("same_bits_twice", "other_seed_differs", "resumed_in_memory"):
        assert numbers[claim] == 1, claim
    assert numbers["resumed_same_bits"] == 1
    assert 0 < numbers["killed_at"] % 16 < 16 and numbers["killed_at"] < numbers["steps"]


@pytest.mark.parametrize("track", TRACKS)
def test_the_start_is_numpys_to_the_bit(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    (W1, b1), (W2, b2) = parity.dense_weights([8, 32, 1], numbers["seed"])
    assert numbers["initial_hash"] == fingerprint({"W1": W1, "b1": b1, "W2": W2, "b2": b2})


def test_the_ends_differ_in_bits_and_in_nothing_else() -> None:
    ends = {
        track: np.array(numbers["trained_W1"], np.float32)
        for track, numbers in parity.load_recorded(LESSON).items()
    }
    assert len({fingerprint({"W1": W1}) for W1 in ends.values()}) > 1
    for a, b in itertools.combinations(ends.values(), 2):
        assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("track", TRACKS)
def test_every_deliberate_error_says_its_type_and_its_line(track: str) -> None:
    """Running the notebook checks each of them (utils/faults.py); here: that they are there."""
    text = (ROOT / "notebooks" / track / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    for kind, line in FAULTS[track]:
        assert f'faults.expect({kind}, line=\\"{line}\\")' in text
    assert text.count("faults.expect(") == len(FAULTS[track])
