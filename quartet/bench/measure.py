"""Time kernels, lessons and whole runs of nbval, with plain and with warm kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client import KernelManager
from rich.progress import Progress

from quartet import QuartetError
from quartet.run import run_notebook
from quartet.warm import client
from quartet.warm.provisioner import use_warm_kernels
from quartet.warm.server import COMMON
from utils.tracks import ROOT, TRACKS

MIB = 2**20
TREE_ROUNDS = 3  # at most: a run over all notebooks takes minutes

# What the kernels are told; neither warm kernels nor the compile cache, then one after the other.
MODES = {
    "plain": {"QUARTET_WARM": "0", "QUARTET_JIT_CACHE": "0"},
    "warm": {"QUARTET_WARM": "1", "QUARTET_JIT_CACHE": "0"},
    "warm, cached": {"QUARTET_WARM": "1", "QUARTET_JIT_CACHE": "1"},
}
RUNS = {  # name -> (mode, processes of pytest)
    "plain": ("plain", 0),
    "plain, two at a time": ("plain", 2),
    "warm, two at a time": ("warm, cached", 2),
}

# Two notebooks a track: what starts dominates what runs.
TINY = {
    "keras": (
        "import keras\nprint(keras.layers.Dense(3)(keras.ops.ones((2, 4))).shape)",
        "import keras, numpy as np\nmodel = keras.Sequential([keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\nmodel.fit(np.ones((32, 4)), np.ones((32, 1)), verbose=0)",
    ),
    "pytorch": (
        "import torch\nprint(torch.nn.Linear(4, 3)(torch.ones(2, 4)).shape)",
        "import torch\nmodel = torch.nn.Linear(4, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters())\n"
        "model(torch.ones(32, 4)).sub(1).square().mean().backward()\noptimizer.step()",
    ),
    "tensorflow": (
        "import tensorflow as tf\nprint(tf.matmul(tf.ones((2, 4)), tf.ones((4, 3))).shape)",
        "import tensorflow as tf\nw = tf.Variable(tf.ones((4, 1)))\n"
        "with tf.GradientTape() as tape:\n"
        "    loss = tf.reduce_mean(tf.square(tf.matmul(tf.ones((32, 4)), w) - 1))\n"
        "w.assign_sub(0.1 * tape.gradient(loss, w))",
    ),
    "jax": (
        "import jax.numpy as jnp\nprint((jnp.ones((2, 4)) @ jnp.ones((4, 3))).shape)",
        "import jax, jax.numpy as jnp\nw = jnp.ones((4, 1))\n"
        "loss = lambda w: jnp.mean((jnp.ones((32, 4)) @ w - 1) ** 2)\n"
        "w = w - 0.1 * jax.jit(jax.grad(loss))(w)",
    ),
}


def warming(progress: Progress) -> dict[str, float]:
    """Return track -> seconds that its warm process takes to start; they run from then on."""
    found = {}
    for track in progress.track(TRACKS, description="warm processes"):
        for mode in ("warm", "warm, cached"):
            with _told(MODES[mode]):
                for status in client.running():
                    if status.track == track and mode == "warm":
                        client.stop(status.socket)
                begin = time.perf_counter()
                client.warm(track)
                found.setdefault(track, round(time.perf_counter() - begin, 3))
    return found


def starts(rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Time, per track and mode, a kernel from its start to a first line and to its framework."""
    found = _entries("first_line", "imported")
    for each in _in_rounds(found, "kernel starts", rounds, progress):
        framework = TRACKS[each["track"]].modules[0]
        with _kernel(each["track"], each["mode"], framework) as (first_line, imported, _):
            each["first_line"].append(round(first_line, 3))
            each["imported"].append(round(imported, 3))
    return found


def memory(rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Measure, per track, the memory of a plain kernel and of the second of two warm ones.

    All have imported the same: what the lessons of a track use. `pss_mib` counts a page that n
    processes share as one n-th of a page, `own_mib` (USS) not at all.
    """
    found = _entries("pss_mib", "own_mib")
    for each in _in_rounds(found, "memory", rounds, progress):
        track, mode = each["track"], each["mode"]
        modules = ", ".join((*COMMON, *TRACKS[track].modules))
        with _kernel(track, "warm", modules), _kernel(track, mode, modules) as (*_, pid):
            about = psutil.Process(pid).memory_full_info()
        each["pss_mib"].append(round(about.pss / MIB, 1))
        each["own_mib"].append(round(about.uss / MIB, 1))
    return found


def lessons(sources: list[Path], rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Time each notebook in each mode, from its kernel's start to its end.

    Raises
    ------
    QuartetError if one fails.
    """
    use_warm_kernels()
    paths = {(path.stem, path.parent.name): path for path in sources}
    found: list[dict[str, Any]] = [
        {"lesson": lesson, "track": track, "mode": mode, "seconds": [], "peak_mib": []}
        for lesson, track in paths
        for mode in MODES
    ]
    with tempfile.TemporaryDirectory() as out, Progress(disable=True) as quiet:
        for each in _in_rounds(found, "lessons", rounds, progress):
            with _told(MODES[each["mode"]]):
                ran = run_notebook(paths[each["lesson"], each["track"]], Path(out), quiet)
            if ran.outcome.error:
                raise QuartetError(f"{ran.lesson} fails in {ran.track}: {ran.outcome.error}")
            each["seconds"].append(round(ran.outcome.seconds, 3))
            each["peak_mib"].append(round(ran.outcome.peak_mib))
    return found


def tiny(rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Time nbval over eight tiny notebooks, two a track, in each kind of run."""
    with tempfile.TemporaryDirectory() as folder:
        for track, sources in TINY.items():
            for number, source in enumerate(sources):
                path = Path(folder, "notebooks", track, f"tiny_{number}.ipynb")
                path.parent.mkdir(parents=True, exist_ok=True)
                cells = [nbformat.v4.new_code_cell(line) for line in source.split("\n", 1)]
                nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return _nbval_in_rounds("eight tiny notebooks", [folder], rounds, progress)


def tree(sources: list[Path], rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Time nbval over the notebooks, all of them in one run, in each kind of run."""
    return _nbval_in_rounds("all notebooks", sources, min(rounds, TREE_ROUNDS), progress)


def _entries(*keys: str) -> list[dict[str, Any]]:
    """Return an entry per track for a plain and for a warm kernel, with an empty list per key."""
    pairs = [(track, mode) for track in TRACKS for mode in ("plain", "warm")]
    return [{"track": track, "mode": mode} | {key: [] for key in keys} for track, mode in pairs]


def _in_rounds(
    found: list[dict[str, Any]], what: str, rounds: int, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Give each entry once in each round, and show how far it is."""
    task = progress.add_task(what, total=rounds * len(found))
    for _ in range(rounds):
        for each in found:
            yield each
            progress.advance(task)


@contextmanager
def _kernel(track: str, mode: str, modules: str) -> Iterator[tuple[float, float, int]]:
    """Start a kernel; give the seconds to its first line and to its modules, and its process."""
    use_warm_kernels()
    manager = KernelManager()
    begin = time.perf_counter()
    env = dict(os.environ) | MODES[mode]
    manager.start_kernel(cwd=str(ROOT / "notebooks" / track), env=env)
    kernel = manager.client()
    kernel.start_channels()
    try:
        asked = [kernel.execute("1"), kernel.execute(f"import {modules}")]
        yield *(_answered(kernel, each) - begin for each in asked), manager.provisioner.pid
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)


def _answered(kernel: Any, asked: str) -> float:
    """Return when a kernel answered."""
    while kernel.get_shell_msg(timeout=120)["parent_header"].get("msg_id") != asked:
        pass
    return time.perf_counter()


def _nbval_in_rounds(
    what: str, paths: list[Any], rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    found = [{"run": name, "seconds": [], "processor_seconds": []} for name in RUNS]
    for each in _in_rounds(found, what, rounds, progress):
        before = psutil.cpu_times()
        each["seconds"].append(_nbval(*RUNS[each["run"]], paths))
        after = psutil.cpu_times()
        used = after.user + after.system - before.user - before.system
        each["processor_seconds"].append(round(used, 1))
    return found


def _nbval(mode: str, processes: int, paths: list[Any]) -> float:
    """Return the seconds of one run of nbval; several processes have one thread each for OpenMP.

    `make test` has it so too: threads of PyTorch and NumPy that wait for a processor slow all down.

    Raises
    ------
    QuartetError if a cell fails.
    """
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-c", ROOT / "pyproject.toml"]
    command += ["-n", str(processes), "--dist", "loadfile", *paths]
    threads = {"OMP_NUM_THREADS": "1"} if processes else {}
    begin = time.perf_counter()
    with _told(MODES[mode] | threads):
        done = subprocess.run(map(str, command), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise QuartetError(f"nbval fails: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return round(time.perf_counter() - begin, 3)


@contextmanager
def _told(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables while it is entered."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
