"""What lesson 08 says of its own numbers: errors and their lines, programs counted, words read."""

from __future__ import annotations

import numpy as np
import pytest

from utils import parity

TRACKS = ("keras", "pytorch", "tensorflow", "jax")


def recorded(name: str) -> dict[str, object]:
    """Return track -> what its notebook recorded under a name."""
    stored = parity.load_recorded("08_control_flow")
    return {track: stored[track][name] for track in TRACKS}


@pytest.mark.parametrize(
    ("track", "kind", "line"),
    [
        ("keras", "TypeError", "if abs(z) < SURE:"),
        ("pytorch", "Unsupported", "if z.abs() < SURE:"),
        ("tensorflow", "OperatorNotAllowedInGraphError", "if tf.abs(z) < SURE:"),
        ("jax", "TracerBoolConversionError", "if abs(z) < SURE:"),
    ],
)
def test_a_python_if_on_data_raises_this_error_at_this_line(track, kind, line) -> None:
    assert recorded("if_error")[track] == f"{kind}: {line}"


@pytest.mark.parametrize(
    ("track", "kind", "line"),
    [
        ("keras", "TypeError", "steps_known = range(symbolic.shape[1])"),
        ("pytorch", "GuardOnDataDependentSymNode", "while t < len(ids) and z.abs() < SURE:"),
        ("tensorflow", "ValueError", "while tf.size(kept) < n:"),
        ("jax", "ValueError", "jax.grad(lambda p: skim_op(p, sample)[0])(params)"),
    ],
)
def test_a_loop_on_data_raises_this_error_at_this_line(track, kind, line) -> None:
    assert recorded("loop_error")[track] == f"{kind}: {line}"


def test_programs_are_counted_as_the_prose_says() -> None:
    compiled = recorded("compiled")
    assert compiled["keras"] in ([2, 2, 1], [4, 2, 1], [8, 8, 8])  # by engine
    assert all(compiled[track] == [4, 2, 1] for track in TRACKS[1:])
    assert set(recorded("variants").values()) == {3}


def test_few_words_are_read_and_little_is_lost() -> None:
    for track in TRACKS:
        read = np.array(recorded("words_read")[track])
        assert read.shape == (500,) and read.min() >= 1 and read.max() <= 40
        assert read.mean() < 0.35 * recorded("mean_length")[track]
        assert recorded("stopped_accuracy")[track] > recorded("test_accuracy")[track] - 0.02
        assert recorded("baseline")[track] - 0.05 < recorded("stopped_accuracy")[track]
        assert recorded("stopped_accuracy")[track] > recorded("floor")[track] + 0.25


def test_no_answer_is_so_near_to_the_threshold_that_rounding_decides(record_property) -> None:
    """A number of words is the same in all tracks as long as rounding is below the margin."""
    margins = recorded("margin")
    record_property("08_control_flow: nearest to the threshold", f"{min(margins.values()):.1e}")
    assert min(margins.values()) > 3e-4  # rounding was 2e-5
