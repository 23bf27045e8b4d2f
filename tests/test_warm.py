"""A warm kernel behaves as a plain one, leaves nothing behind, and gives way where it cannot be."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pytest
from jupyter_client import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from nbformat.v4 import new_code_cell, new_notebook, writes
from typer.testing import CliRunner

from quartet import fingerprint, run
from quartet.cli import app
from quartet.warm import client, places, provisioner, server
from quartet.warm.client import ForkedProcess
from utils.tracks import ROOT, TRACKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not provisioner.can_fork(), reason="kernels are forked on Linux only"),
]
each_track = pytest.mark.parametrize("track", TRACKS)
# What is asked of the warm kernels is asked of a plain one too. It knows nothing of tracks.
KINDS = {"warm": {}, "plain": {"QUARTET_WARM": "0"}}
each_kind = pytest.mark.parametrize(
    ("track", "kind"), [*((track, "warm") for track in TRACKS), ("jax", "plain")]
)
NO_GPU = "-1"  # what the tests' kernels find in CUDA_VISIBLE_DEVICES
IMPORT = {name: f"import {track.modules[0].partition('.')[0]}" for name, track in TRACKS.items()}


class Kernel:
    """A kernel as a notebook uses it: run code, get its text; wrong code raises RuntimeError."""

    def __init__(self, folder: Path | None, env: dict[str, str] | None = None) -> None:
        self.manager = KernelManager()
        self.manager.shutdown_wait_time = 60  # it is not ended by force because others are at work
        about = {"cwd": str(folder)} if folder else {}
        self.manager.start_kernel(env=dict(os.environ) | (env or {}), **about)
        self.client = self.manager.client()
        self.images = 0

    @property
    def process(self) -> ForkedProcess | subprocess.Popen:
        return self.manager.provisioner.process

    @property
    def kind(self) -> str:
        return "warm" if isinstance(self.process, ForkedProcess) else "plain"

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    def run(self, code: str, answer: str | None = None, said: threading.Event | None = None) -> str:
        """Run a cell; `answer` is what the user types when it asks, `said` is set as it prints."""
        texts: list[str] = []
        if not self.client.channels_running:
            self.client.start_channels()
        self.client.wait_for_ready(timeout=90)

        def show(message: dict) -> None:
            content = message["content"]
            texts.append(content.get("text", ""))
            if said and texts[-1]:
                said.set()
            data = content.get("data", {})
            texts.append(data.get("text/plain", "") if "image/png" not in data else "")
            self.images += "image/png" in data

        def ask(message: dict) -> None:
            self.client.input(answer)

        about = {"output_hook": show, "stdin_hook": ask, "timeout": 90}
        reply = self.client.execute_interactive(code, allow_stdin=answer is not None, **about)
        if reply["content"]["status"] == "error":
            raise RuntimeError(f"{reply['content']['ename']}: {reply['content']['evalue']}")
        return "".join(texts).strip()

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[Path]:
    """Give the tests warm processes of their own, and end them; the folder's name is short."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        made = ("QUARTET_WARM_IDLE", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL")
        for name in ("QUARTET_WARM", *made):
            patch.delenv(name, raising=False)  # as it is under `make lab`
        patch.setenv("CUDA_VISIBLE_DEVICES", NO_GPU)
        factory = KernelProvisionerFactory.instance()
        patch.setattr(factory, "default_provisioner_name", provisioner.NAME)
        yield folder
        pids = [status.pid for status in client.running()]
        stop_all()
        _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
        shutil.rmtree(folder)
    assert not alive, "a warm process outlived the tests"


@pytest.fixture(autouse=True)
def no_failure_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test meet the failure of one before it, which is remembered for minutes."""
    monkeypatch.setattr(client, "_failures", {})


@pytest.fixture
def start() -> Iterator[Callable[..., Kernel]]:
    """Return a function that starts a kernel of a track; close those that it started."""
    with contextlib.ExitStack() as closing:

        def start_one(track: str, env: dict[str, str] | None = None) -> Kernel:
            kernel = Kernel(ROOT / "notebooks" / track, env)
            closing.callback(kernel.close)
            return kernel

        yield start_one


def server_of(track: str, env: dict[str, str] | None = None) -> client.Status:
    """Return what a track's warm process, which must run, says of itself, however busy it is."""
    place = places.address(track, client.interpreter(), os.environ | (env or {}))
    with contextlib.closing(client._connected(place)) as connection:
        return client._status(place, client.ask(connection, {"do": "tell"}))


def stop_all() -> None:
    for status in client.running():
        with contextlib.suppress(OSError):  # it has ended by itself since
            client.stop(status.socket)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


LOGGING = ("", "absl", "tensorflow", "torch", "pytorch_lightning", "jax")
STATE = """
import json, logging, os, resource, signal, sys, threading, threadpoolctl, warnings
{imports}
print(json.dumps({{
    "argv": [sys.argv[0].rpartition("/")[2], *sys.argv[1:2]], "path": sys.path,
    "cwd": os.getcwd(), "env": sorted(set(os.environ) - {{"QUARTET_WARM"}}), "options": sys.flags,
    "signals": [str(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "filters": sorted(map(str, warnings.filters)),
    "loggers": sorted(
        f"{{name}} {{each.level}} {{each.handlers}}"
        for name, each in (("", logging.getLogger()), *logging.Logger.manager.loggerDict.items())
        if getattr(each, "handlers", []) and name.partition(".")[0] in {loggers}
    ),
    "streams": [str(type(s)) for s in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__)],
    "threads": sorted(t.name for t in threading.enumerate() if not t.name.startswith("Thread-")),
    "limits": [resource.getrlimit(n) for n in range(10)], "umask": os.umask(0o22),
    "leader": (os.getpid() == os.getpgid(0) == os.getsid(0)),
    "pools": sorted(
        (p["user_api"], p["num_threads"]) for p in threadpoolctl.threadpool_info()
    ),
    "names": sorted(vars(sys.modules["__main__"])), "recursion": sys.getrecursionlimit(),
}}))
"""


# What starts processes or threads, or counts devices, in a track or with another backend of Keras.
WORK = {
    "keras": """
        import keras, numpy as np, tensorflow as tf
        class Batches(keras.utils.PyDataset):
            def __len__(self): return 4
            def __getitem__(self, index): return np.ones((8, 3)), np.ones((8, 1))
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(Batches(workers=2, use_multiprocessing=False), epochs=2, verbose=0)
        rows = tf.data.Dataset.from_tensor_slices((np.ones((64, 3)), np.ones((64, 1))))
        rows = rows.map(lambda x, y: (x, y), num_parallel_calls=4).batch(8).prefetch(2)
        model.fit(rows, epochs=2, verbose=0)
        print(bool(model.evaluate(Batches(workers=2), verbose=0) < 9))
    """,
    "keras on torch": """
        import keras, torch
        from torch.utils.data import DataLoader, TensorDataset
        rows = DataLoader(TensorDataset(torch.ones(64, 3), torch.ones(64, 1)), 8, num_workers=2)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        history = model.fit(rows, epochs=2, verbose=0).history["loss"]
        print(history[1] < history[0])
    """,
    "keras on jax": """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
        import keras, numpy as np
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        history = model.fit(np.ones((64, 3)), np.ones((64, 1)), epochs=2, verbose=0).history
        devices = len(model.weights[0].value.sharding.device_set)
        print(devices == 4 and history["loss"][1] < history["loss"][0])
    """,
    "pytorch": """
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        rows = TensorDataset(torch.arange(64.0))
        for method in ("fork", "spawn", None):
            loader = DataLoader(rows, batch_size=8, num_workers=2, multiprocessing_context=method)
            total = sum(batch.sum() for batch, in loader)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(8, 3)).sum().backward()
        optimizer.step()
        torch.set_num_threads(2)
        print(float(total) == 63 * 32 and bool((torch.ones(999, 999) @ torch.ones(999)).sum() > 0))
    """,
    "tensorflow": """
        import tensorflow as tf
        rows = tf.data.Dataset.range(64).map(lambda x: x * 2, num_parallel_calls=4)
        rows = rows.batch(8).prefetch(tf.data.AUTOTUNE)
        @tf.function
        def total():
            result = tf.constant(0, tf.int64)
            for batch in rows:
                result += tf.reduce_sum(batch)
            return result
        print(int(total()) == 63 * 64)
    """,
    "jax": """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
        import jax, jax.numpy as jnp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        mesh = Mesh(jax.devices(), ("rows",))
        rows = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("rows")))
        print(jax.device_count() == 4 and float(jax.jit(jnp.sum)(rows)) == 28)
    """,
}


@pytest.mark.parametrize("case", WORK)
def test_workers_threads_and_devices(case: str, start: Callable[..., Kernel]) -> None:
    """What starts processes or threads, or counts devices, works in a forked process too."""
    track, _, backend = case.partition(" on ")
    kernel = start(track, {"KERAS_BACKEND": backend} if backend else {})
    assert kernel.kind == "warm"
    said = kernel.run(textwrap.dedent(WORK[case]))
    assert "True" in said.splitlines()  # a warning may come before it, or after it


@each_track
def test_it_is_as_a_plain_kernel_is(track: str, start: Callable[..., Kernel]) -> None:
    ahead = ", ".join((*server.COMMON, *TRACKS[track].modules))
    code = STATE.format(imports=f"import {ahead}", loggers=LOGGING)
    warm, plain = (start(track, about) for about in KINDS.values())
    assert (warm.kind, plain.kind) == ("warm", "plain")
    of_warm, of_plain = json.loads(warm.run(code)), json.loads(plain.run(code))
    assert {key: of_warm[key] for key in of_plain if of_warm[key] != of_plain[key]} == {}
    said = plain.run(textwrap.dedent(WORK[track]))  # as a warm one is asked above
    assert "True" in said.splitlines()
    assert server_of(track).threads == 1  # a process with more must not fork


def test_the_switch_gives_a_plain_kernel(monkeypatch: pytest.MonkeyPatch, start) -> None:
    monkeypatch.setenv("QUARTET_WARM", "0")
    assert isinstance(start("jax").process, subprocess.Popen)


def test_a_kernel_outside_the_tracks_is_plain(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert isinstance(kernel.process, subprocess.Popen)
    kernel.close()


def test_a_kernel_starts_in_this_folder_if_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax").mkdir()
    monkeypatch.chdir(tmp_path / "jax")  # as `nbgrader validate` does
    kernel = Kernel(None)
    assert kernel.kind == "warm" and kernel.run("import os; print(os.getcwd())") == os.getcwd()
    kernel.close()


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_program_can_take_a_kernels_ports(kind: str, start, runtime: Path) -> None:
    kernel = start("pytorch", KINDS[kind])
    assert kernel.run("1 + 1") == "2" and kernel.kind == kind
    assert kernel.manager.transport == "ipc"
    assert len(list(runtime.rglob(f"kernel-{kernel.manager.provisioner.kernel_id}*"))) == 5
    kernel.manager.restart_kernel(now=True)
    assert kernel.run("1 + 1") == "2"
    kernel.close()
    assert list(runtime.rglob(f"kernel-{kernel.manager.provisioner.kernel_id}*")) == []


def test_another_languages_kernel_is_spoken_to_as_ever(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    argv = [sys.executable, "-m", "ipykernel", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Other", "language": "other"}
    (tmp_path / "other" / "kernel.json").write_text(json.dumps(spec))
    manager = KernelManager(kernel_name="other")
    manager.kernel_spec_manager.kernel_dirs = [str(tmp_path)]
    manager.start_kernel(cwd=str(ROOT / "notebooks" / "jax"))
    assert manager.transport == "tcp"
    manager.shutdown_kernel(now=True)


STEP = {
    "keras": "keras.ops.sum(keras.ops.ones((9, 9)))",
    "pytorch": "torch.ones(9, 9).sum()",
    "tensorflow": "tensorflow.reduce_sum(tensorflow.ones((9, 9)))",
    "jax": "jax.numpy.ones((9, 9)).sum()",
}


@each_kind
def test_interrupt_restart_shutdown(track: str, kind: str, start: Callable[..., Kernel]) -> None:
    kernel = start(track, KINDS[kind])
    assert float(kernel.run(f"{IMPORT[track]}\nx = {STEP[track]}\nprint(float(x))")) == 81
    with ThreadPoolExecutor() as pool:
        said = threading.Event()
        code = f"print('go', flush=True)\nwhile True: {STEP[track]}"
        endless = pool.submit(kernel.run, code, said=said)
        assert said.wait(60)
        while not endless.done():  # Python ignores what interrupts a destructor
            kernel.manager.interrupt_kernel()
            wait([endless], timeout=5)
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            endless.result()
    assert kernel.run("print(float(x))") == "81.0"

    before = kernel.pid
    kernel.manager.restart_kernel(now=False)
    with pytest.raises(RuntimeError, match="NameError"):
        kernel.run("x")
    assert kernel.pid != before and not psutil.pid_exists(before)
    assert kernel.kind == kind

    process = kernel.process
    kernel.manager.shutdown_kernel()
    assert process.returncode == 0 and not psutil.pid_exists(process.pid)


@each_kind
def test_a_crash_is_told_and_the_next_kernel_works(track: str, kind: str, start) -> None:
    kernel = start(track, KINDS[kind])
    kernel.run("1")
    kernel.client.execute("import os; os._exit(7)")
    wait_until(lambda: not kernel.manager.is_alive())
    assert kernel.process.returncode == 7
    kernel.manager.restart_kernel(now=True)
    assert kernel.run("print(1 + 1)") == "2" and kernel.kind == kind
    os.kill(kernel.pid, signal.SIGSEGV)
    wait_until(lambda: not kernel.manager.is_alive())
    assert kernel.process.returncode == -signal.SIGSEGV


# What a driver reads when it is opened is C's environment, not Python's.
VISIBLE = """
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"CUDA_VISIBLE_DEVICES").decode())
"""


@each_kind
def test_what_a_notebook_does_besides(track: str, kind: str, start: Callable[..., Kernel]) -> None:
    kernel = start(track, KINDS[kind] | {"QUARTET_TEST": "from outside"})
    assert kernel.kind == kind
    assert kernel.run("print(input('Who? ') + '!')", "Ada") == "Ada!"
    assert kernel.run("import os; print(os.environ['QUARTET_TEST'])") == "from outside"
    kernel.run("%env QUARTET_TEST=from inside")
    code = "import subprocess; print(subprocess.check_output('echo $QUARTET_TEST', shell=True))"
    assert "from inside" in kernel.run(code)
    assert kernel.run(VISIBLE) == NO_GPU
    assert kernel.run(f"import os; os.environ['CUDA_VISIBLE_DEVICES'] = '7'\n{VISIBLE}") == "7"
    kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.plot([2, 1]);")
    assert kernel.images == 2
    assert kernel.run("import sys; print(sys.executable)") == sys.executable
    assert kernel.run("%timeit -n1 -r1 pass")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        kernel.run("1 / 0")


def tiny_wheel(folder: Path) -> Path:
    """Write a package of one module, which pip can install without asking anybody."""
    wheel, about = folder / "quartet_tiny-1-py3-none-any.whl", "quartet_tiny-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in (
            ("quartet_tiny.py", "ANSWER = 42\n"),
            (f"{about}/METADATA", "Metadata-Version: 2.1\nName: quartet-tiny\nVersion: 1\n"),
            (f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{about}/RECORD", "quartet_tiny.py,,\n"),
        ):
            file.writestr(name, text)
    return wheel


@each_kind
def test_pip_installs_what_can_then_be_imported(
    track: str, kind: str, start: Callable[..., Kernel], tmp_path: Path
) -> None:
    kernel = start(track, KINDS[kind])
    assert str(Path(sys.prefix)) in kernel.run("%pip --version")
    kernel.run(f"import sys; sys.path.append({str(tmp_path)!r})")
    with pytest.raises(RuntimeError, match="No module named 'quartet_tiny'"):
        kernel.run("import quartet_tiny")
    quietly = "--quiet --disable-pip-version-check --no-index --no-deps"
    kernel.run(f"%pip install {quietly} --target {tmp_path} {tiny_wheel(tmp_path)}")
    assert kernel.run("import quartet_tiny; print(quartet_tiny.ANSWER)") == "42"


@each_track
def test_the_debugger_answers(track: str, start: Callable[..., Kernel]) -> None:
    kernel = start(track)
    kernel.run("1")
    about = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
    message = kernel.client.session.msg("debug_request", about)
    kernel.client.control_channel.send(message)
    assert kernel.client.get_control_msg(timeout=20)["content"]["success"]


DRAW = {
    "keras": "import keras; print(float(keras.random.uniform(())))",
    "pytorch": "import torch; print(float(torch.rand(())))",
    "tensorflow": "import tensorflow as tf; print(float(tf.random.uniform(())))",
    "jax": "import random; print(random.random())",  # JAX itself has no hidden state to share
}
DRAW_ALL = "\nimport numpy, random, uuid; print(numpy.random.rand(), random.random(), uuid.uuid4())"


@each_track
def test_two_forks_draw_different_numbers(track: str, start: Callable[..., Kernel]) -> None:
    first, second = (start(track).run(DRAW[track] + DRAW_ALL).split() for _ in range(2))
    assert len(first) == 4 and not set(first) & set(second)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_has_its_own_warm_process(backend: str, start: Callable[..., Kernel]) -> None:
    env = {"KERAS_BACKEND": backend}
    kernel = start("keras", env)
    assert isinstance(kernel.process, ForkedProcess)
    assert kernel.run("import keras; print(keras.backend.backend())") == backend
    assert kernel.run("import sys; print('tensorflow' in sys.modules)") == "False"
    assert server_of("keras", env).backend == backend


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_can_be_chosen_in_the_notebook(backend: str, start) -> None:
    code = f"import os; os.environ['KERAS_BACKEND'] = '{backend}'\nimport keras.ops\n"
    code += "print(keras.backend.backend(), type(keras.ops.ones(2)).__module__.partition('.')[0])"
    framework = {"jax": "jaxlib", "torch": "torch"}[backend]
    assert start("keras").run(code) == f"{backend} {framework}"


def test_variables_of_jax_can_be_set_in_the_notebook(start) -> None:
    code = "import os; os.environ['JAX_ENABLE_X64'] = '1'; os.environ['JAX_NUM_CPU_DEVICES'] = '3'"
    code += "\nimport jax.numpy as jnp, jax; print(jnp.ones(2).dtype, jax.device_count())"
    assert start("jax").run(code) == "float64 3"


def test_a_module_held_back_is_the_same_module(start: Callable[..., Kernel]) -> None:
    kernel = start("keras")
    code = "import sys; print(any(n.startswith('keras') for n in sys.modules))"
    assert kernel.run(code) == "False"
    kernel.run("from keras.src import layers; import keras, sys; from keras.src.layers import core")
    code = "print(keras.layers.Dense is layers.Dense is core.dense.Dense, keras.__spec__.origin)"
    assert kernel.run(code).startswith("True /")
    code = "import jax, optax, sys; print(optax._src.base.jax is jax is sys.modules['jax'])"
    assert start("jax").run(code) == "True"


@each_track
def test_a_lesson_imports_nothing_that_is_not_warm(track: str, start) -> None:
    """Of what the notebooks of a track import, only what must wait for a kernel is missing.

    Notebooks that need packages which not everybody has are left out: nobody else should wait.
    """
    kernel = start(track)
    notebooks = [path.read_text() for path in (ROOT / "notebooks" / track).glob("*.ipynb")]
    lines = {
        line.strip()
        for text in notebooks
        if "extras.need(" not in text
        for cell in json.loads(text)["cells"]
        if "compare"
        not in cell["metadata"].get("tags", ())  # what is another framework's comes late
        for line in ("".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else ())
        if line.startswith(("import ", "from ")) and not line.endswith("(")
    }
    code = f"import sys\nhad = set(sys.modules)\nfor line in {sorted(lines)!r}: exec(line)\n"
    code += "import json; print(json.dumps(sorted({m.partition('.')[0] for m in "
    code += "set(sys.modules) - had if hasattr(sys.modules[m], '__file__')})))"
    late = set(json.loads(kernel.run(code))) - {"keras", "jax"}  # held back: see shelf.py
    assert late <= set(sys.stdlib_module_names), f"add {sorted(late)} to Track.modules"


@each_track
def test_files_of_ours_that_are_imported_ahead_are_watched(
    track: str, start: Callable[..., Kernel]
) -> None:
    code = "import json, sys; print(json.dumps([module.__file__ for name, module in"
    code += " sys.modules.items() if name.partition('.')[0] in ('quartet', 'utils')]))"
    ours = {Path(name).resolve() for name in json.loads(start(track).run(code))}
    assert ROOT / "quartet" / "compiled.py" in ours
    assert sorted(ours - set(places._watched())) == []


def test_nothing_is_left_after_200_starts_and_kills(start, record_property) -> None:
    kernel = start("jax")
    warm = psutil.Process(server_of("jax").pid)
    files, kernels, children = warm.num_fds(), [kernel.pid], []
    child = "import multiprocessing as m, time; p = m.Process(target=time.sleep, args=(999,))"
    for number in range(199):
        if number % 50 == 0:  # most are killed while they start, some at work
            children.append(int(kernel.run(f"{child}; p.start(); print(p.pid)").split()[-1]))
            assert psutil.pid_exists(children[-1])
        kernel.manager.restart_kernel(now=True)
        kernels.append(kernel.pid)
    assert server_of("jax").kernels == (kernel.pid,)
    assert warm.num_fds() < files + 10  # a leak would be of 200
    kernel.close()
    wait_until(lambda: not server_of("jax").kernels)
    assert len(set(kernels)) == 200 and len(set(children)) == 4
    wait_until(lambda: not [pid for pid in (*kernels, *children) if psutil.pid_exists(pid)])
    assert not warm.children(recursive=True) and server_of("jax").threads == 1
    record_property("warm kernels: started and killed without an orphan", len(kernels))


STARTER = """
import sys
from jupyter_client import KernelManager
manager = KernelManager()
print("ready", flush=True)
sys.stdin.readline()
manager.start_kernel(cwd=sys.argv[1])
print(manager.provisioner.pid, type(manager.provisioner.process).__name__, flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def starter_of(track: str) -> Iterator[subprocess.Popen]:
    """Run another process, which starts a kernel when it is sent a line; end it."""
    command = [sys.executable, "-c", STARTER, str(ROOT / "notebooks" / track)]
    env = os.environ | {"JUPYTER_DEFAULT_PROVISIONER_NAME": provisioner.NAME}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as starter:
        try:
            assert starter.stdout.readline() == "ready\n"
            yield starter
        finally:
            starter.kill()


def send_line(starter: subprocess.Popen) -> None:
    starter.stdin.write("\n")
    starter.stdin.flush()


def forked_by(starter: subprocess.Popen) -> int:
    """Return the process number of the kernel that was started, which must be a warm one."""
    pid, kind = starter.stdout.readline().split()
    assert kind == "ForkedProcess"
    return int(pid)


@each_track
def test_a_kernel_ends_with_who_started_it(track: str) -> None:
    with starter_of(track) as starter:
        send_line(starter)
        pid = forked_by(starter)
        assert psutil.pid_exists(pid)
    wait_until(lambda: not psutil.pid_exists(pid))


def test_a_kernel_ends_with_its_warm_process(start: Callable[..., Kernel]) -> None:
    kernel = start("jax")
    kernel.run("1")
    os.kill(server_of("jax").pid, signal.SIGKILL)
    wait_until(lambda: not kernel.manager.is_alive())
    wait_until(lambda: not psutil.pid_exists(kernel.pid))
    kernel.manager.restart_kernel(now=True)
    assert kernel.run("print(1 + 1)") == "2" and isinstance(kernel.process, ForkedProcess)


def test_kernels_that_start_at_once_share_one_process(start: Callable[..., Kernel]) -> None:
    stop_all()
    places_of = ROOT / "notebooks" / "pytorch"
    with ThreadPoolExecutor(4) as pool:
        kernels = list(pool.map(lambda _: Kernel(places_of), range(4)))
    assert all(isinstance(kernel.process, ForkedProcess) for kernel in kernels)
    assert sorted(server_of("pytorch").kernels) == sorted(kernel.pid for kernel in kernels)
    for kernel in kernels:
        kernel.close()


def test_kernels_of_two_clients_that_start_at_once_share_one_process() -> None:
    stop_all()
    with starter_of("jax") as first, starter_of("jax") as second:
        for starter in (first, second):
            send_line(starter)
        kernels = [forked_by(starter) for starter in (first, second)]
        assert server_of("jax").kernels == tuple(sorted(kernels))


def test_a_stopped_process_stays_for_its_kernels(start: Callable[..., Kernel]) -> None:
    kernel = start("jax")
    kernel.run("x = 1")
    old = server_of("jax")
    client.stop(old.socket)
    assert kernel.run("print(x)") == "1"
    assert start("jax").run("print(2)") == "2"
    assert server_of("jax").pid != old.pid
    kernel.close()
    wait_until(lambda: not psutil.pid_exists(old.pid))


def test_a_change_of_files_ends_it(tmp_path: Path, start: Callable[..., Kernel]) -> None:
    home = {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))  # ~/.keras/keras.json is one of the files
        start("jax", home).run("1")
        old = server_of("jax")
        (tmp_path / ".keras").mkdir()
        (tmp_path / ".keras" / "keras.json").write_text("{}")
        wait_until(lambda: not old.socket.exists())
        start("jax", home).run("1")
        assert server_of("jax").socket != old.socket


def test_it_ends_after_a_time_idle(runtime: Path) -> None:
    socket = runtime / "idle.sock"
    code = "import quartet.warm.server as s; s.LOOK_SECONDS = 0.1\n"
    code += f"s.COMMON = (); s.run('jax', {str(socket)!r}, {{}})"
    env = os.environ | {"QUARTET_WARM_IDLE": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env)
    wait_until(lambda: client.is_listening(socket))
    assert process.wait(30) == 0 and not socket.exists()


@pytest.fixture
def why_plain(start, caplog, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that starts a kernel, which must be plain, and returns its line of log."""
    log = KernelManager().log
    monkeypatch.setattr(log, "propagate", True)

    def line_of(track: str, env: dict[str, str] | None = None) -> str:
        caplog.clear()
        with caplog.at_level("WARNING", log.name):
            kernel = start(track, env)
        assert kernel.kind == "plain" and kernel.run("print(1)") == "1"
        texts = [record.getMessage() for record in caplog.records if record.name == log.name]
        (line,) = [text for text in texts if text.startswith("A plain kernel starts")]
        return line

    return line_of


def test_without_a_sound_package_a_plain_kernel_starts(
    tmp_path: Path, why_plain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sklearn.py").write_text("raise ImportError('a broken package')")
    starts, really_start = [], client._start
    monkeypatch.setattr(client, "_start", lambda *to: starts.append(to) or really_start(*to))
    lines = [why_plain("jax", {"PYTHONPATH": str(tmp_path)}) for _ in range(2)]
    assert lines[0] == lines[1] and "a broken package" in lines[0]
    tried = len(starts)
    assert tried <= 2, "the second kernel did not wait for another attempt"
    monkeypatch.setattr(client, "RETRY_SECONDS", 0)
    assert "a broken package" in why_plain("jax", {"PYTHONPATH": str(tmp_path)})
    assert len(starts) > tried, "after a time it is tried again"


def test_without_a_private_folder_a_plain_kernel_starts(why_plain: Callable[..., str]) -> None:
    folder = places.runtime_folder()
    folder.chmod(0o755)
    try:
        assert "only this user can enter" in why_plain("keras")
    finally:
        folder.chmod(0o700)


def test_where_sockets_have_too_long_a_name_a_plain_kernel_starts(
    tmp_path: Path, why_plain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert "too long" in why_plain("jax")


def test_where_the_warm_process_hangs_a_plain_kernel_starts(
    why_plain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.warm("pytorch")
    process = psutil.Process(server_of("pytorch").pid)
    monkeypatch.setattr(client, "START_SECONDS", 1)
    process.suspend()
    try:
        assert "timed out" in why_plain("pytorch")
    finally:
        process.resume()
    wait_until(lambda: server_of("pytorch").state == "ready" and not process.children())


def test_where_nothing_can_be_forked_a_plain_kernel_starts(
    why_plain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioner, "can_fork", lambda: False)
    assert why_plain("tensorflow").endswith(f"on {sys.platform} it cannot be forked")


@contextlib.contextmanager
def files_left(pid: int, count: int) -> Iterator[None]:
    """Let a warm process that waits for a request open only so many more files."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = open_files_at_rest(pid)
    free = [number for number in range(len(taken) + count + 1) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count], usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def open_files_at_rest(pid: int) -> set[int]:
    """Return the files that a process holds while it sleeps and has no one to answer.

    A warm process closes a connection after its answer, and opens files to look for changes: what
    it holds is known only if it slept from before they were counted until after.
    """
    process = psutil.Process(pid)
    found: list[set[int]] = []

    def counted_in_its_sleep() -> bool:
        before = process.num_ctx_switches(), process.status()
        found[:] = [{int(name) for name in os.listdir(f"/proc/{pid}/fd")}]
        after = process.num_ctx_switches(), process.status()
        return before == after and after[1] == psutil.STATUS_SLEEPING

    wait_until(counted_in_its_sleep)
    return found[0]


def test_a_warm_process_that_can_open_no_file_waits(start: Callable[..., Kernel]) -> None:
    before = client.warm("jax")
    log = before.socket.with_suffix(".log")
    with ThreadPoolExecutor() as pool:
        with files_left(before.pid, 0):
            status = pool.submit(client.warm, "jax")
            wait_until(lambda: "A connection failed" in log.read_text())
        assert status.result(30).pid == before.pid


def test_a_kernel_that_cannot_be_watched_is_ended(
    why_plain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = client.warm("jax")
    with files_left(status.pid, 1):  # for the connection
        assert os.strerror(errno.EMFILE) in why_plain("jax")
    assert not psutil.Process(status.pid).children()
    assert server_of("jax").kernels == () and server_of("jax").pid == status.pid


def test_without_its_warm_process_a_kernel_is_killed_before_it_leads_a_group() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(["sleep", "999"]) as child:  # it is in the group of the tests
        kernel = ForkedProcess(ours, child.pid)
        assert kernel.poll() is None
        theirs.close()
        try:
            assert kernel.poll() == child.wait(20) == -signal.SIGKILL
        finally:
            child.kill()


def test_one_is_started_again_if_the_one_that_was_first_has_ended(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[subprocess.Popen] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second:

        def start_one(place: Path, *about: object) -> subprocess.Popen:
            if starts:
                second.bind(str(place))
                second.listen()
            starts.append(subprocess.Popen(["true"]))  # as one that finds another one listening
            return starts[-1]

        monkeypatch.setattr(client, "_start", start_one)
        monkeypatch.setattr(client, "START_SECONDS", 20)
        client.connect(runtime / "lost.sock", "jax", client.interpreter(), os.environ).close()
    assert len(starts) == 2


def test_who_starts_one_too_many_leaves_the_log_of_the_first(runtime: Path) -> None:
    log = runtime / "first.log"
    log.write_text("why it failed\n")
    client._start(log.with_suffix(".sock"), "jax", ["true"], os.environ).wait()
    assert client.last_line(log) == "why it failed"


def test_only_this_user_can_ask(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.warm("jax")
    socket = server_of("jax").socket
    assert socket.parent.stat().st_mode & 0o777 == 0o700 and socket.stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 4711)
        with pytest.raises(places.WarmError, match="another user listens"):
            client.stop(socket)
    socket.parent.chmod(0o755)
    try:
        with pytest.raises(places.WarmError, match="only this user can enter"):
            places.runtime_folder()
    finally:
        socket.parent.chmod(0o700)


def test_a_warm_process_answers_no_other_user(runtime: Path, monkeypatch) -> None:
    monkeypatch.setattr(server, "peer", lambda connection: (1, os.getuid() + 1))
    warm = server.Server(runtime / "mine.sock")
    warm.listen()
    with contextlib.closing(client._connected(warm.place)) as connection:
        assert warm._accept() is None and connection.recv(99) == b""  # hung up, unread
    warm._retire()


def test_a_request_that_is_none_does_no_harm(start: Callable[..., Kernel]) -> None:
    client.warm("jax")
    status = server_of("jax")
    for message in (b"", b"not JSON", b"[]", b"{}", b'{"do": "fork"}'):
        with contextlib.closing(client._connected(status.socket)) as connection:
            connection.send(message)
    assert start("jax").run("print(3)") == "3"
    assert server_of("jax").pid == status.pid


@pytest.fixture
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one that has chosen no provisioner yet."""
    name = KernelProvisionerFactory.default_provisioner_name_env
    monkeypatch.setenv(name, "")  # so that it is as before afterwards, whoever sets it
    monkeypatch.delenv(name)
    factory = KernelProvisionerFactory.instance()
    monkeypatch.setattr(factory, "default_provisioner_name", "local-provisioner")


IS_WARM = "import sys; assert 'quartet.warm.server' in sys.modules, 'the kernel is a plain one'"


def test_quartet_run_uses_them_by_itself(nothing_chosen: None) -> None:
    notebook = new_notebook(cells=[new_code_cell(IS_WARM)])
    assert run.execute(notebook, ROOT / "notebooks" / "jax").error == ""


def test_nbval_uses_them_by_itself(nothing_chosen: None, tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    notebook = new_notebook(cells=[new_code_cell(IS_WARM)])
    (tmp_path / "jax" / "mine.ipynb").write_text(writes(notebook))
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "quartet.nbval_rules", "--nbval-lax", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_the_command_lists_warms_and_stops() -> None:
    stop_all()
    quartet = CliRunner().invoke
    assert re.match(r"jax: ready, \d+ MiB", quartet(app, ["kernels", "warm", "jax"]).stdout)
    row = rf"│ jax +│ +{server_of('jax').pid} +│ ready +│ - +│ +[1-9]\d+ │"
    wait_until(lambda: re.search(row, quartet(app, ["kernels"]).stdout))
    assert "jax: stopped" in quartet(app, ["kernels", "stop", "jax"]).stdout
    assert quartet(app, ["kernels"]).stdout.startswith("No warm process runs.")
    wrong = quartet(app, ["kernels", "warm", "tensorfow"])
    assert wrong.exit_code == 1 and "There is no track 'tensorfow'" in wrong.stderr


@pytest.mark.parametrize(
    ("folder", "track"),
    [
        ("/course/notebooks/jax", "jax"),
        ("/course/exercises/keras/mine", "keras"),
        ("/jax/notebooks/pytorch", "pytorch"),
        ("/course", None),
        (None, None),
    ],
)
def test_the_folder_tells_the_track(folder: str | None, track: str | None) -> None:
    assert places.track_of(folder) == track


def test_a_new_package_makes_a_warm_process_out_of_date(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fingerprint.sysconfig, "get_path", lambda name: str(tmp_path))
    before = places.fingerprint()
    (tmp_path / "numpy-9.9.dist-info").mkdir()
    assert places.fingerprint() != before


def test_an_edit_makes_a_warm_process_out_of_date_and_a_date_does_not(
    tmp_path, monkeypatch
) -> None:
    (tmp_path / "utils").mkdir()
    helper = tmp_path / "utils" / "helper.py"
    helper.write_text("x = 1")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    before = places.fingerprint()
    os.utime(helper, (0, 0))
    assert places.fingerprint() == before
    helper.write_text("x = 2")
    assert places.fingerprint() != before


def test_variables_that_are_read_on_import_count() -> None:
    env = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "0"}
    env |= {"LANG": "C", "NPY_DISABLE_CPU_FEATURES": "X86_V4", "JPY_PARENT_PID": "1"}
    assert set(places.read_on_import(env | {"PATH": "/bin"})) == set(env) - {"JPY_PARENT_PID"}
