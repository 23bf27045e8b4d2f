"""What lesson 06 says of Keras and its engines beyond what its cells show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from quartet.run import run
from utils import parity
from utils.tracks import TRACKS

LESSON = "06_keras_backends"
ASK = """
import sys, tempfile
import keras
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(keras.ops.ones((4, 2)), keras.ops.ones((4, 1)), verbose=0)
before = "tensorflow" in sys.modules
model.save(tempfile.mkdtemp() + "/m.keras")
print(before, "tensorflow" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_fit_does_not_load_tensorflow_and_saving_looks_for_it(engine: str) -> None:
    environment = os.environ | {"KERAS_BACKEND": engine}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr[-500:]


def test_what_travels_is_as_the_prose_says() -> None:
    recorded = parity.load_recorded(LESSON)
    travels = {track: set(recorded[track]["travels"].split(", ")) for track in TRACKS}
    assert set.intersection(*travels.values()) == {"keras_inside", "quantize"}
    assert {"saved_model", "litert", "text_layer", "tensorboard"} <= travels["tensorflow"]
    assert "torch_export" in travels["pytorch"] and "distribution" not in travels["pytorch"]
    assert "jit_compile" in travels["jax"] and "jit_compile" not in travels["pytorch"]
    assert not any("numpy_inside" in names or "lambda_layer" in names for names in travels.values())


def test_the_model_is_defined_alike_and_its_tensors_are_the_engines() -> None:
    recorded = parity.load_recorded(LESSON)
    assert {numbers["define_statements"] for numbers in recorded.values()} == {3}
    kinds = {track: recorded[track]["tensor_type"] for track in TRACKS if track != "keras"}
    assert kinds == {"pytorch": "Tensor", "tensorflow": "EagerTensor", "jax": "ArrayImpl"}
    assert all(numbers["ops_count"] > 300 for numbers in recorded.values())


@pytest.mark.slow
def test_other_parameters_give_another_run(tmp_path: Path) -> None:
    (done,) = run(["06"], ["pytorch"], {"SEED": 1, "EPOCHS": 1}, tmp_path)
    assert not done.outcome.error
    numbers = parity.read_records(nbformat.read(done.result, as_version=4))
    assert (numbers["seed"], numbers["epochs"], len(numbers["loss"])) == (1, 1, 1)
