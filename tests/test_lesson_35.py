"""Lesson 35: the numbers that its story rests on, computed again; none hangs by a rounding."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import ks_2samp

from utils import checks, data, parity
from utils.tracks import ROOT, TRACKS

LESSON = "35_rollout"
SEED, EPOCHS, BATCH = 35, 8, 100
ROUNDING = 1e-5  # between two tracks' logits after 320 steps; the recorded ones agree better


def numbers(track: str) -> dict:
    return parity.load_recorded(LESSON)[track]


def place(user: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}:{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def z_of(k1: int, n1: int, k2: int, n2: int) -> float:
    p = (k1 + k2) / (n1 + n2)
    return (k2 / n2 - k1 / n1) / math.sqrt(p * (1 - p) * (1 / n1 + 1 / n2))


@pytest.mark.parametrize("track", TRACKS)
def test_the_story_of_three_versions(track: str) -> None:
    """Version 2 wins; version 3 is the best offline and the worst served, and is stopped."""
    found = numbers(track)
    n1, k1, n2, k2 = found["ab_counts"]
    assert found["ab_test"][0] == pytest.approx(z_of(k1, n1, k2, n2))
    assert max(found["ab_test"][1:]) < 0.05 < 2 < found["ab_test"][0]
    low, high = found["ab_interval"]
    assert 0 < low < k2 / n2 - k1 / n1 < high
    assert found["offline_right"][0] < found["offline_right"][1] < found["offline_right"][2]
    assert found["served_right"][:2] == found["offline_right"][:2]
    assert found["served_right"][2] < found["served_right"][0] < found["offline_right"][2]
    assert found["mended_right"] == found["offline_right"][2]
    assert len(found["good_release"]) == 3 and len(found["bad_release"]) == 2


@pytest.mark.parametrize("track", TRACKS)
def test_no_request_failed_that_should_not(track: str) -> None:
    found = numbers(track)
    assert found["rollback_failed"] == found["failed_when_killed"] == 0
    assert found["rollback_late_by_the_bad_one"] == 0
    assert found["policies"] == [[100, 0], [0, 100], [0, 3]]
    assert found["drained"] == [[25, 25, 0], [50, 0, 0]]


@pytest.mark.parametrize("track", TRACKS)
def test_a_version_that_is_not_loaded_fails_and_ends_its_release(track: str) -> None:
    ((failed, asked),) = numbers(track)["missing_release"]
    assert failed == asked > 0


def points(exercise: checks.Exercise, function: Callable, seed: int) -> float:
    def ask(case: checks.Case) -> checks.Answer:
        value = function(*case.args.values())
        return checks.Answer(value=tuple(value) if isinstance(value, list) else np.asarray(value))

    return checks.run(exercise, ask, seed).points


def careless_z(old: np.ndarray, new: np.ndarray) -> float:
    """Return z, 0 where all answers are right, and NaN where all are wrong."""
    p = np.concatenate([old, new]).mean()
    with np.errstate(invalid="ignore"):
        z = (new.mean() - old.mean()) / np.sqrt(p * (1 - p) * (1 / len(old) + 1 / len(new)))
    return 0.0 if p == 1 else z


def rounded_length(
    p_stable: float, p_canary: float, share: float, alpha: float, power: float
) -> int:
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    variance = p_canary * (1 - p_canary) / share + p_stable * (1 - p_stable) / (1 - share)
    return round(z**2 * variance / (p_stable - p_canary) ** 2)


def order_at_three(turn: int, urls: list[str], failures: list[int], limit: int) -> list[str]:
    places = [(turn + i) % len(urls) for i in range(len(urls))]
    return [urls[i] for i in sorted(places, key=lambda i: failures[i] >= 3)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong", [careless_z, rounded_length, order_at_three])
def test_an_answer_that_is_nearly_right_loses_points(wrong: Callable, seed: int) -> None:
    name = {careless_z: "z_score", rounded_length: "stage_length"}.get(wrong, "order_of")
    exercise = checks.load_exercises(LESSON)[name]
    reference = getattr(sys.modules[exercise.cases.__module__], name)
    assert points(exercise, wrong, seed) < points(exercise, reference, seed) == exercise.points


def test_the_split_is_the_hash_of_salt_and_user() -> None:
    places = np.array([place(f"user-{i}", "trial 1") for i in range(20_000)])
    counts = [int((places < share).sum()) for share in (0.01, 0.1, 0.5)]
    assert numbers("jax")["split_counts"] == counts


def test_what_the_prose_says_of_false_alarms() -> None:
    found = numbers("jax")
    once, often = found["peeking"]
    assert 0.04 < once < 0.06 and often > 0.15
    small, *_, large = found["false_alarms"]
    assert small[0] > 0.9 and large[0] < 0.01  # PSI above 0.1, with 50 and with 500 pictures
    assert all(corrected <= 0.02 for *_, corrected in found["false_alarms"])
    bad, equal = zip(*found["gate_stops"], strict=True)
    tenth = bad[1:5]  # four lengths of a stage of 10 %
    assert list(tenth) == sorted(tenth) and tenth[0] < 0.2 and tenth[-1] > 0.9 and bad[0] < 0.2
    assert min(equal[:2]) > 0.015 > max(equal[4:])  # asked for: 0.01; small counts are not normal


def test_a_small_window_has_the_index_that_chance_gives_it() -> None:
    """The prose says 0.18 for 50 live and 4,000 training pictures in ten bins."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        p, q = (rng.multinomial(n, [0.1] * 10) + 0.5 for n in (4000, 50))
        p, q = p / p.sum(), q / q.sum()
        found.append(((q - p) * np.log(q / p)).sum())
    assert np.mean(found) == pytest.approx(9 * (1 / 50 + 1 / 4000), rel=0.15)


def test_a_drifted_window_is_found_by_the_feature_that_sees_it() -> None:
    found = numbers("jax")
    psi, limit = np.array(found["psi"]), found["psi_limit"]
    assert (psi[4:8, 0] > limit).all() and (psi[8:, 2] > limit).all()
    assert (psi[8:, :2] < limit).all()  # turning changes neither brightness nor area
    assert min(found["drift_right"][:8]) > 140 > 20 > max(found["drift_right"][8:])
    assert ks_2samp([0, 1, 2], [0, 1, 2], method="asymp").pvalue == 1


def trained(X: np.ndarray, y: np.ndarray, epochs: int, rate: float) -> list[np.ndarray]:
    (W1, b1), (W2, b2) = parity.dense_weights([784, 128, 10], SEED)
    for batch in parity.batch_order(len(X), BATCH, epochs, SEED).reshape(-1, BATCH):
        h = np.tanh(X[batch] @ W1 + b1)
        p = np.exp(h @ W2 + b2)
        d = (p / p.sum(axis=1, keepdims=True) - np.eye(10)[y[batch]]) / BATCH
        dh = (d @ W2.T) * (1 - h * h)
        W1, b1 = W1 - rate * X[batch].T @ dh, b1 - rate * dh.sum(axis=0)
        W2, b2 = W2 - rate * h.T @ d, b2 - rate * d.sum(axis=0)
    return [W1, b1, W2, b2]


@pytest.mark.slow
def test_no_two_logits_are_so_close_that_rounding_decides(record_property) -> None:
    """So the counts of right answers can be the same in all tracks."""
    clothes = data.load("fashion_mnist")
    x = np.concatenate([clothes["x_train"], clothes["x_test"]]).reshape(-1, 784)
    y = np.concatenate([clothes["y_train"], clothes["y_test"]])
    X = (x.astype(np.float32) / 255).astype(np.float64)
    part = slice(0, 4000)
    scaled = (X - X[part].mean(axis=0)) / (X[part].std(axis=0) + 0.1)
    live = X[4000:]
    turned = np.rot90(live.reshape(-1, 28, 28), axes=(1, 2)).reshape(-1, 784)
    darker = (x[4000:] * 0.6).astype(np.uint8) / 255
    asked = {
        1: (trained(X[part], y[part], 2, 0.05), [live]),
        2: (trained(X[part], y[part], EPOCHS, 0.1), [live, turned, darker]),
        3: (trained(scaled[part], y[part], EPOCHS, 0.02), [live, scaled[4000:5000]]),
    }
    closest = np.inf
    for (W1, b1, W2, b2), inputs in asked.values():
        for pictures in inputs:
            logits = np.sort(np.tanh(pictures @ W1 + b1) @ W2 + b2, axis=1)
            closest = min(closest, float((logits[:, -1] - logits[:, -2]).min()))
    record_property("35_rollout: closest two logits", f"{closest:.1e}")
    assert closest > ROUNDING


def test_the_config_says_what_the_lesson_reads_out_of_it() -> None:
    """Its output in git is that of a real parser of the format."""
    stored = json.loads((ROOT / "lessons" / LESSON / "recorded.json").read_text())
    for track in TRACKS:
        texts = [o.get("text", "") for c in stored[track]["outputs"].values() for o in c["outputs"]]
        (shown,) = ["".join(text) for text in texts if "version_labels" in "".join(text)]
        assert "loaded: [1, 2]" in shown and "'canary': 2, 'stable': 1" in shown


def test_the_service_names_no_framework_but_the_loader() -> None:
    """The cells of the service are shared by all tracks: the build would refuse a name in them."""
    source = Path(ROOT / "lessons" / LESSON / "lesson.md").read_text()
    for function in ("read_settings", "load_all", "add_predict", "make_app"):
        assert source.count(f"def {function}(") == 1
    assert source.count("def load_version(") == len(TRACKS)
