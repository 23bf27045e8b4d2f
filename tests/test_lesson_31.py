"""Lesson 31's whole numbers are right, not only alike: NumPy computes them a fifth time."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from utils import data, parity
from utils.tracks import TRACKS

LESSON, BUDGET = "31_edge", 100_000


def scale_of(W: np.ndarray, axis: int | tuple[int, int]) -> np.ndarray:
    return np.abs(W).max(axis=axis, keepdims=True) * np.float32(1 / 127)


def quantize(W: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.round(W * (1 / scale)), -127, 127).astype(np.int8)


def checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


@pytest.fixture(scope="module")
def start() -> np.ndarray:
    seed = parity.load_recorded(LESSON)["keras"]["seed"]
    return parity.dense_weights([784, 128, 10], seed)[0][0]


@pytest.mark.parametrize("track", TRACKS)
def test_the_codes_are_those_of_numpy(track: str, start: np.ndarray) -> None:
    recorded = parity.load_recorded(LESSON)[track]
    spoiled = start.copy()
    spoiled[0, 0] = 3.0
    ways = {"codes_tensor": (0, 1), "codes_channel": 0}
    for name, axis in ways.items():
        assert recorded[name] == checksum(quantize(spoiled, scale_of(spoiled, axis)))


@pytest.mark.parametrize("track", TRACKS)
def test_the_sums_are_those_of_numpy(track: str, start: np.ndarray) -> None:
    recorded = parity.load_recorded(LESSON)[track]
    pictures = data.load("fashion_mnist")["x_test"][:100].reshape(-1, 784).astype(np.float32) / 255
    x_codes = quantize(pictures, scale_of(pictures, 1))
    sums = x_codes.astype(np.int32) @ quantize(start, scale_of(start, 0)).astype(np.int32)
    assert recorded["x_codes"] == checksum(x_codes)
    assert recorded["sums"] == checksum(sums)


@pytest.mark.parametrize("track", TRACKS)
def test_the_file_meets_the_budget_and_keeps_the_accuracy(track: str) -> None:
    recorded = parity.load_recorded(LESSON)[track]
    assert recorded["small_bytes"] <= BUDGET
    assert recorded["small_accuracy"] >= 0.95 * recorded["float_accuracy"]
