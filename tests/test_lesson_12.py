"""Lesson 12: the sick runs are what NumPy computes, and the frameworks say what the prose says."""

from __future__ import annotations

import numpy as np
import pytest

from utils import data, parity
from utils.tracks import TRACKS

LESSON = "12_debugging"
SEED, STEPS = 1, 80
FAULTS = 10


def mixes() -> tuple[np.ndarray, np.ndarray]:
    """Return the lesson's training rows of concrete: (n, 8), (n,)."""
    table = data.load("concrete")
    names = [n for n in table.arrays if n not in ("compressive_strength", "mix_id")]
    raw = np.stack([table[n] for n in names], axis=1).astype(np.float32)
    strength, mix = table["compressive_strength"].astype(np.float32), table["mix_id"]
    order = np.random.default_rng(SEED).permutation(np.unique(mix))
    kept = ~np.isin(mix, order[: len(order) // 4])
    return tuple((v[kept] - v[kept].mean(axis=0)) / v[kept].std(axis=0) for v in (raw, strength))


def losses(fault: str = "") -> list[float]:
    """Return the lesson's run on concrete in NumPy, in double precision, with one of its faults."""
    X, y = mixes()
    layers = parity.dense_weights([8, 16, 1], SEED)
    (W1, b1), (W2, b2) = ((W.astype(float), b.astype(float)) for W, b in layers)
    found = []
    for _ in range(STEPS):
        h = np.tanh(X @ W1 + b1)
        out = (h @ W2 + b2)[:, 0]
        if fault == "broadcast":
            found.append(((out[:, None] - y) ** 2).mean())
            d = 2 * (out - y.mean())[:, None] / len(y)
        else:
            found.append(((out - y) ** 2).mean())
            d = 2 * (out - y)[:, None] / len(y)
        d_hidden = (d @ W2.T) * (1 - h**2)
        W2, b2 = W2 - 0.1 * h.T @ d, b2 - 0.1 * d.sum(axis=0)
        if fault != "frozen":
            W1, b1 = W1 - 0.1 * X.T @ d_hidden, b1 - 0.1 * d_hidden.sum(axis=0)
    return found


@pytest.mark.parametrize("track", TRACKS)
@pytest.mark.parametrize(
    ("name", "fault"), [("loss", ""), ("broadcast_loss", "broadcast"), ("frozen_loss", "frozen")]
)
def test_the_runs_are_what_numpy_computes(track: str, name: str, fault: str) -> None:
    recorded = parity.load_recorded(LESSON)[track][name]
    assert np.abs(np.subtract(recorded, losses(fault))).max() < 1e-5


@pytest.mark.parametrize("track", TRACKS)
def test_nine_of_ten_faults_pass_without_a_word(track: str) -> None:
    numbers = parity.load_recorded(LESSON)[track]
    said = [numbers[f"says_{i}"] for i in range(FAULTS)]
    assert said.count("nothing") >= FAULTS - 1


def test_who_names_the_line_and_who_does_not() -> None:
    tracks = parity.load_recorded(LESSON)
    named = {t: (n["modes_that_name_the_line"], n["modes"]) for t, n in tracks.items()}
    assert named["tensorflow"] == (4, 4) and named["jax"] == (4, 4)
    assert named["pytorch"] == (3, 4)  # not the error of backward
    assert tracks["pytorch"]["says_0"] == "UserWarning, line named"
    assert "changed in place: RuntimeError, line not named" in tracks["pytorch"]["own_faults"]
    assert all("line" not in n["says_0"] for t, n in tracks.items() if t != "pytorch")


def test_breakpoints_have_numbers_in_eager_code_and_not_in_compiled_code() -> None:
    tracks = parity.load_recorded(LESSON)
    assert all((n["eager_stops"], n["eager_readable"]) == (2, 2) for n in tracks.values())
    for track in ("tensorflow", "jax"):
        assert tracks[track]["other_stops"][0] == 1 and tracks[track]["other_readable"][0] == 0
    assert tracks["pytorch"]["other_readable"][0] == 0  # torch.compile


def test_defaults_part_and_what_is_said_agrees() -> None:
    tracks = parity.load_recorded(LESSON)
    torch, jax, keras = (tracks[name] for name in ("pytorch", "jax", "keras"))
    assert parity.difference(torch["default_norm"], keras["default_norm"]) > 1e-4
    assert parity.difference(torch["default_gelu"], jax["default_gelu"]) > 1e-4
    assert parity.difference(torch["default_norm"], jax["default_norm"]) < 1e-4
    assert parity.difference(torch["default_dense_1"], keras["default_dense_1"]) < 1e-6
