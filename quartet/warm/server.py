"""The warm process: it imports a framework, runs nothing, and forks itself into kernels.

It listens before it imports, so that who asks early only waits. It ends after a time idle, when a
file or package that it imported has changed, or when told; kernels that it forked go on, and it
stays for them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import importlib
import importlib.util
import json
import logging
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from quartet.warm import shelf
from quartet.warm.client import LONGEST_MESSAGE, is_listening, kill_group, peer, send
from quartet.warm.places import fingerprint
from utils.tracks import TRACKS

IDLE_SECONDS = float(os.environ.get("QUARTET_WARM_IDLE", 600))
LOOK_SECONDS = 5  # how often to look whether a file has changed
REQUEST_SECONDS = 5  # how long who connects may take to say what he wants
PAUSE_SECONDS = 1  # before a connection is tried again

# What the notebooks of all tracks use. A test says what a lesson imports beyond this and
# `Track.modules`.
COMMON = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "sklearn.cluster",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.neural_network",
    "tensorboard.backend.event_processing.event_accumulator",
    "tensorboard.summary",
    "tqdm",
    "utils.bench",
    "utils.checks",
    "utils.code",
    "utils.data",
    "utils.faults",
    "utils.parity",
    "utils.plots",
    "utils.tables",
)


@dataclass(frozen=True)
class Kernel:
    """A kernel to become: its command line, folder, environment, and standard streams."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    files: list[int]


class Server:
    """Listens, forks, and tells those that asked for a kernel how it ended."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.listener: socket.socket | None = None
        self.selector = selectors.DefaultSelector()
        self.kernels: set[int] = set()
        self.fingerprint = fingerprint()
        self.idle_since = time.monotonic()

    def listen(self) -> bool:
        """Listen for this user only; return False if another process does so already."""
        with open(self.place.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_listening(self.place):
                return False
            self.place.unlink(missing_ok=True)
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.listener.bind(str(self.place))
            self.place.chmod(0o600)
            self.inode = self.place.stat().st_ino
            self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        return True

    def serve(self) -> Kernel | None:
        """Answer requests to the end; in a forked process return what kernel it is to become."""
        while self.listener or self.kernels:
            for event, _ in self.selector.select(LOOK_SECONDS):
                if kernel := event.data():
                    return kernel
            if self.listener and (self._is_idle() or self._is_out_of_date()):
                self._retire()
        return None

    def _accept(self) -> Kernel | None:
        try:
            connection, _ = self.listener.accept()
        except OSError as error:  # who asked is gone, or there is no descriptor left
            print(f"A connection failed: {error!r}", flush=True)
            time.sleep(PAUSE_SECONDS)  # it may still wait, and would be tried again at once
            return None
        self.idle_since = time.monotonic()
        return self._heard(connection)

    def _heard(self, connection: socket.socket) -> Kernel | None:
        """Do what a request says; one that makes no sense does no harm."""
        files: list[int] = []
        try:
            connection.settimeout(REQUEST_SECONDS)
            if peer(connection)[1] != os.getuid():
                raise PermissionError(f"user {peer(connection)[1]} is not this user")
            message, files, *_ = socket.recv_fds(connection, LONGEST_MESSAGE, 3)
            return self._answer(connection, json.loads(message), files)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"A request failed: {error!r}", flush=True)
            _close(connection, *files)
        return None

    def _answer(
        self, connection: socket.socket, request: dict[str, Any], files: list[int]
    ) -> Kernel | None:
        if request["do"] == "fork":
            kernel = Kernel(request["argv"], request["cwd"], request["env"], files)
            return self._fork(connection, kernel)
        if request["do"] == "end":
            self._retire()
        about = {
            "pid": os.getpid(),
            "state": "ready",
            "backend": os.environ.get("KERAS_BACKEND", ""),
            "threads": len(os.listdir("/proc/self/task")),
            "kernels": sorted(self.kernels),
        }
        send(connection, about)
        _close(connection, *files)
        return None

    def _fork(self, connection: socket.socket, kernel: Kernel) -> Kernel | None:
        pid = os.fork()
        if not pid:
            self._forget(connection)
            return kernel
        try:
            ended = os.pidfd_open(pid)
        except OSError:  # nobody would notice its end
            kill_group(pid)
            os.waitpid(pid, 0)
            raise
        self.kernels.add(pid)
        for file, act in ((ended, self._reap), (connection, self._kill)):
            about = partial(act, pid, ended, connection)
            self.selector.register(file, selectors.EVENT_READ, about)
        with contextlib.suppress(OSError):  # who asked may be gone: then `_kill` is next
            send(connection, {"pid": pid})
        _close(*kernel.files)
        return None

    def _reap(self, pid: int, ended: int, connection: socket.socket) -> None:
        """Tell who asked for a kernel how it has ended, and what it and its children have used."""
        _, status, used = os.wait4(pid, 0)
        about = {"exit": os.waitstatus_to_exitcode(status)}
        with contextlib.suppress(OSError):
            send(connection, about | {"processor_seconds": used.ru_utime + used.ru_stime})
        self.selector.unregister(ended)
        with contextlib.suppress(KeyError):
            self.selector.unregister(connection)
        _close(connection, ended)
        self.kernels.remove(pid)
        self.idle_since = time.monotonic()

    def _kill(self, pid: int, ended: int, connection: socket.socket) -> None:
        """End a kernel and what it started: who asked for it has hung up."""
        if pid not in self.kernels:
            return
        self.selector.unregister(connection)
        kill_group(pid)

    def _forget(self, connection: socket.socket) -> None:
        """Close, in a forked process, all that is the warm process's own."""
        for key in self.selector.get_map().values():
            _close(key.fileobj)
        self.selector.close()
        _close(connection)

    def _is_idle(self) -> bool:
        return not self.kernels and time.monotonic() - self.idle_since > IDLE_SECONDS

    def _is_out_of_date(self) -> bool:
        try:
            return not self._is_reachable() or fingerprint() != self.fingerprint
        except OSError as error:  # without a descriptor it cannot look, and is asked again
            return error.errno not in (errno.EMFILE, errno.ENFILE)

    def _is_reachable(self) -> bool:
        """Return whether the socket is still where clients look for it."""
        with contextlib.suppress(OSError):
            return self.place.stat().st_ino == self.inode
        return False

    def _retire(self) -> None:
        """Fork no more, so that a new process can take this one's place."""
        if self._is_reachable():  # the name may be another process's by now
            self.place.unlink()
            self.place.with_suffix(".log").unlink(missing_ok=True)
        self.selector.unregister(self.listener)
        _close(self.listener)
        self.listener = None


def import_ahead(track: str) -> None:
    """Import what the notebooks of a track use."""
    # As ipykernel does; the module itself must meet a running kernel when it is first imported.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    sys.ps1 = "In : "  # IPython's, by which TensorFlow knows that its log goes to a person
    for module in (*COMMON, *TRACKS[track].modules):
        importlib.import_module(module)
    del sys.ps1
    gc.collect()
    gc.freeze()  # collecting garbage in a kernel would copy the pages that it shares


def become(kernel: Kernel, set_since: dict[str, str]) -> None:
    """Turn this forked process into a kernel, and stay it to its end.

    `set_since` are the variables that settings and frameworks set while they were imported.
    """
    os.setsid()
    for number, file in enumerate(kernel.files):
        os.dup2(file, number)
    _close(*kernel.files)
    os.chdir(kernel.cwd)
    os.environ.clear()
    os.environ.update({**set_since, **kernel.env})
    sys.argv = [importlib.util.find_spec(kernel.argv[0]).origin, *kernel.argv[1:]]
    tempfile.tempdir = None
    time.tzset()
    reseed()
    shelf.hold_back()
    if kernel.argv[0] == "quartet.grading.child":
        importlib.import_module(kernel.argv[0]).main()
        return
    from ipykernel.kernelapp import IPKernelApp  # imported ahead

    app = IPKernelApp.instance(parent_handle=os.getppid())  # it ends when the warm process does
    before = {"stdout": sys.stdout, "stderr": sys.stderr}
    app.initialize(kernel.argv[1:])
    redirect_logs(before)
    app.start()


def redirect_logs(before: Mapping[str, TextIO]) -> None:
    """Let the handlers of loggers, which were made on import, write to the notebook.

    `before` is what `sys.stdout` and `sys.stderr` were until then.
    """
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):  # a placeholder has none
            for name, stream in before.items():
                if getattr(handler, "stream", None) is stream:
                    handler.setStream(getattr(sys, name))


def reseed() -> None:
    """Give this process random numbers of its own; Python's `random` has them after a fork."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def run(track: str, place: str, before: dict[str, str]) -> None:
    """Be the warm process of a track, and in its forks a kernel.

    Parameters
    ----------
    place : path of the socket.
    before : the environment before the kernels' settings were read.
    """
    server = Server(Path(place))
    if server.listen():
        import_ahead(track)
        set_since = {k: v for k, v in os.environ.items() if before.get(k) != v}
        if kernel := server.serve():
            become(kernel, set_since)


def _close(*files: Any) -> None:
    for file in files:
        os.close(file) if isinstance(file, int) else file.close()
