"""TensorFlow Serving: the real one where this machine has it, else a stand-in that speaks like it.

The real one is taken from Docker, which keeps it on 127.0.0.1. Its bare program listens on all
addresses and has no option against that, so it is asked for by TF_SERVING_ALL_ADDRESSES=1.

    command = tf_serving.command(folder, grpc_port)  # `folder` holds models.config
    with serving.start(command, ready="/v1/models/clothes") as server: ...

A real engine takes SavedModels only. The stand-in (`tf_server.py`) also serves a version folder
that holds `model.onnx`, which needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

CONFIG = "models.config"
BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving"
ALL_ADDRESSES = "TF_SERVING_ALL_ADDRESSES"
STAND_IN = Path(__file__).with_name("tf_server.py")


def engine(folder: Path) -> str:
    """Return which engine `command` takes: a Docker image that is here, the binary, or stand-in.

    folder: where models.config and all its models are. No image is fetched.
    """
    if _has_onnx(folder):
        return "stand-in"
    if _docker_has(IMAGE):
        return IMAGE
    allowed = os.environ.get(ALL_ADDRESSES, "") not in ("", "0")
    return BINARY if allowed and shutil.which(BINARY) else "stand-in"


def describe(folder: Path) -> str:
    """Return the engine, and, of the binary, that it listens on all addresses."""
    kind = engine(folder)
    if kind == BINARY:
        return f"{BINARY}, which listens on all addresses"
    if kind == "stand-in" and shutil.which(BINARY) and not _has_onnx(folder):
        return f"stand-in ({BINARY} listens on all addresses: {ALL_ADDRESSES}=1 allows it)"
    return kind


def command(folder: Path, grpc_port: int) -> list[str]:
    """Return the command of a server of the models in `folder`/models.config, for `serving.start`.

    The stand-in and a container listen on 127.0.0.1; the bare binary has no such option.
    """
    config = f"--model_config_file={folder / CONFIG}"
    polls = ["--file_system_poll_wait_seconds=1", "--model_config_file_poll_wait_seconds=1"]
    # Else the real server refuses at its start a label for what it has not loaded yet.
    config_flags = [config, "--allow_version_labels_for_unavailable_models=true"]
    here = [*config_flags, f"--port={grpc_port}", "--rest_api_port={port}", *polls]
    kind = engine(folder)
    if kind == BINARY:
        return [BINARY, *here]
    if kind == IMAGE:
        ports = ["-p", "127.0.0.1:{port}:8501", "-p", f"127.0.0.1:{grpc_port}:8500"]
        run = ["docker", "run", "--rm", "--init", *ports, "-v", f"{folder}:{folder}:ro"]
        inside = ["--port=8500", "--rest_api_port=8501", *config_flags, *polls]
        return [*run, "--entrypoint", BINARY, IMAGE, *inside]
    return [sys.executable, str(STAND_IN), *here]


def _has_onnx(folder: Path) -> bool:
    return any(folder.rglob("model.onnx"))


def _docker_has(image: str) -> bool:
    """Say whether a Docker engine answers and has the image already."""
    if not shutil.which("docker"):
        return False
    look = ["docker", "image", "inspect", image]
    try:
        return subprocess.run(look, capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def protos_only() -> Iterator[None]:
    """Import the message classes of TensorFlow Serving's API without TensorFlow itself.

    They import others that lie inside the package `tensorflow`, whose own import takes seconds.
    In this block an empty module stands in its place, if it is not loaded already.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    before = set(sys.modules)
    place = importlib.util.find_spec("tensorflow")
    sys.modules["tensorflow"] = empty = types.ModuleType("tensorflow")
    empty.__path__ = list(place.submodule_search_locations)
    try:
        yield
    finally:  # so that TensorFlow can be imported in earnest later
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "tensorflow":
                del sys.modules[name]
