"""The four tracks, defined once: names, colors, and how arrays become native and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

# How each framework, and what belongs to it alone, is named in prose and in code.
_NAMES = {
    "keras": r"\bkeras\b",
    "pytorch": r"\b(py)?torch\b|\bnn\.Module\b|\bskorch\b",
    "tensorflow": r"\btensorflow\b|\btf\.\w",
    "jax": r"\bjax\b|\bjnp\.\w|\bflax\b|\bnnx\b|\boptax\b",
}


@dataclass(frozen=True)
class Track:
    """One framework's line of notebooks.

    `name` is its folder, its cell tag and its word on the command line. `modules` are what a warm
    kernel imports ahead. `rivals` finds the name of another framework in a text. `to_native` turns
    a NumPy array into the framework's tensor and `to_numpy` turns a tensor back.
    """

    name: str
    title: str
    color: str
    modules: tuple[str, ...]
    rivals: re.Pattern[str]
    to_native: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]


def _keras_native(array: np.ndarray) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array)


def _keras_numpy(tensor: Any) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(tensor)


def _torch_native(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(array))  # a copy, so that in-place code spares our array


def _torch_numpy(tensor: Any) -> np.ndarray:
    import torch

    return tensor.numpy(force=True) if isinstance(tensor, torch.Tensor) else np.asarray(tensor)


def _tensorflow_native(array: np.ndarray) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(array)


def _jax_native(array: np.ndarray) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(array)


def _matching(*tracks: str) -> re.Pattern[str]:
    return re.compile("|".join(_NAMES[track] for track in tracks), re.IGNORECASE)


ANY_FRAMEWORK = _matching(*_NAMES)

# The colors are from Okabe and Ito's palette, which color-blind readers can tell apart.
TRACKS = {
    track.name: track
    for track in (
        Track(
            name="keras",
            title="Keras",
            color="#D55E00",
            modules=("keras",),
            rivals=_matching("pytorch", "tensorflow", "jax"),
            to_native=_keras_native,
            to_numpy=_keras_numpy,
        ),
        Track(
            name="pytorch",
            title="PyTorch",
            color="#0072B2",
            # The first optimizer imports torch._dynamo, torch.compile the second.
            modules=(
                "torch",
                "torch._dynamo",
                "torch._inductor.compile_fx",
                "torch.fx",
                "torch.utils.tensorboard",
                "skorch",
                "pytorch_lightning",
            ),
            rivals=_matching("keras", "tensorflow", "jax"),
            to_native=_torch_native,
            to_numpy=_torch_numpy,
        ),
        Track(
            name="tensorflow",
            title="TensorFlow",
            color="#E69F00",
            modules=(
                "tensorflow",
                "tensorflow.experimental.numpy",
                "tensorflow.tsl.profiler.protobuf.xplane_pb2",
            ),
            rivals=_matching("pytorch", "jax"),  # Keras is TensorFlow's own high-level interface
            to_native=_tensorflow_native,
            to_numpy=np.asarray,
        ),
        Track(
            name="jax",
            title="JAX",
            color="#009E73",
            modules=("jax", "jax.test_util", "flax.nnx", "optax", "grain"),
            rivals=_matching("keras", "pytorch", "tensorflow"),
            to_native=_jax_native,
            to_numpy=np.asarray,
        ),
    )
}
