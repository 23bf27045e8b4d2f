"""Ask a warm process for a kernel, ask what it does, and start it where it is not there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from quartet.warm.places import WarmError, address, sockets, track_at
from utils.tracks import ROOT

LONGEST_MESSAGE = 2**18  # bytes
START_SECONDS = 120  # to import a framework on a slow, busy machine
POLL_SECONDS = 0.02
RETRY_SECONDS = 300  # how long a warm process that failed is not tried again

_failures: dict[Path, tuple[float, str]] = {}  # by socket: when one failed, and why


class ForkedProcess:
    """A kernel that another process forked, with what jupyter_client uses of subprocess.Popen.

    The connection is the kernel's lease: when this end is closed, be it because this process died,
    the warm process kills the kernel. The exit status comes back over it.
    """

    stdin = stdout = stderr = None
    processor_seconds = 0.0  # of all that this process had forked and that have ended

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection
        connection.setblocking(False)

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                self.returncode = self._exit_status()
                self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once there is one.

        Raises
        ------
        subprocess.TimeoutExpired if there is none after `timeout` seconds.
        """
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"warm kernel {self.pid}", timeout or 0)
            time.sleep(POLL_SECONDS)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self.send_signal(signal.SIGKILL)

    def _exit_status(self) -> int:
        try:
            message = self._connection.recv(LONGEST_MESSAGE)
        except ConnectionError:
            message = b""
        if message:
            about = json.loads(message)
            ForkedProcess.processor_seconds += about["processor_seconds"]
            return about["exit"]
        with contextlib.suppress(ProcessLookupError):  # the warm process died: so must its kernels
            kill_group(self.pid)
        return -signal.SIGKILL


@dataclass(frozen=True)
class Status:
    """What a warm process says of itself.

    `state` is "starting" or "ready", `backend` the value of KERAS_BACKEND, `threads` the number of
    its threads, `kernels` the process numbers of those that it forked and that run.
    """

    socket: Path
    track: str
    pid: int
    state: str
    backend: str
    threads: int
    kernels: tuple[int, ...]


def fork(
    track: str, command: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[int]
) -> ForkedProcess:
    """Have a kernel forked; start the warm process first if there is none.

    Parameters
    ----------
    command : what would start a plain kernel: `python -m ipykernel_launcher -f FILE`.
    files : descriptors of standard input, output and error.

    Raises
    ------
    WarmError, OSError if there is no warm kernel to be had.
    """
    module = command.index("-m")
    request = {"do": "fork", "argv": list(command[module + 1 :]), "cwd": cwd, "env": dict(env)}
    _, connection, answer = _request(request, track, list(command[:module]), env, files)
    return ForkedProcess(connection, answer["pid"])


def warm(track: str, env: Mapping[str, str] = os.environ) -> Status:
    """Start the warm process of a track if it is not there; return its status once it is ready.

    Raises
    ------
    WarmError if it cannot start.
    """
    place, connection, answer = _request({"do": "tell"}, track, interpreter(), env)
    connection.close()
    return _status(place, answer)


def stop(place: Path) -> None:
    """Tell a warm process to end; kernels that it forked go on until they end themselves."""
    with contextlib.closing(_connected(place)) as connection:
        ask(connection, {"do": "end"})  # it answers when nobody finds it any more


def running() -> list[Status]:
    """Return what this checkout's warm processes say of themselves, by track."""
    found = []
    for place in sockets():
        with contextlib.suppress(OSError), contextlib.closing(_connected(place)) as connection:
            pid, _ = peer(connection)
            answer = {"pid": pid, "state": "starting", "backend": "", "threads": 0, "kernels": []}
            with contextlib.suppress(TimeoutError):
                answer = ask(connection, {"do": "tell"}, seconds=1)
            if answer:
                found.append(_status(place, answer))
    return found


def interpreter() -> list[str]:
    """Return the interpreter and options with which Jupyter starts this environment's kernels."""
    from jupyter_client.kernelspec import KernelSpecManager

    argv = KernelSpecManager().get_kernel_spec("python3").argv
    return [sys.executable, *argv[1 : argv.index("-m")]]


def connect(place: Path, track: str, python: list[str], env: Mapping[str, str]) -> socket.socket:
    """Return a connection to a warm process, which is started if it is not there."""
    started: subprocess.Popen | None = None
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return _connected(place)
        if started is None:
            started = _start(place, track, python, env)
        if started.poll():
            raise WarmError(f"the warm process did not start: {last_line(place)}")
        if started.returncode == 0:  # another one was first: it listens, or has ended since
            started = None
        time.sleep(POLL_SECONDS)
    raise WarmError(f"the warm process did not listen within {START_SECONDS} s")


def ask(
    connection: socket.socket,
    request: dict[str, Any],
    files: Sequence[int] = (),
    seconds: float = START_SECONDS,
) -> dict[str, Any]:
    """Send a request; return the answer, {} if the other end hung up.

    Raises
    ------
    TimeoutError if there is none after so many seconds.
    """
    connection.settimeout(seconds)
    try:
        send(connection, request, files)
        return json.loads(connection.recv(LONGEST_MESSAGE) or b"{}")
    except ConnectionError:
        return {}


def send(connection: socket.socket, message: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send one message and the files that go with it."""
    socket.send_fds(connection, [json.dumps(message).encode()], list(files))


def kill_group(pid: int) -> None:
    """End a forked process and what it started.

    Raises
    ------
    ProcessLookupError if it is gone.
    """
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not yet become the leader of its own group
        os.kill(pid, signal.SIGKILL)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return the process and user number at the other end, as the operating system knows them."""
    size = struct.calcsize("3i")
    about = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return struct.unpack("3i", about)[:2]


def is_listening(place: Path) -> bool:
    """Return whether a process listens on a socket."""
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        _connected(place).close()
        return True
    return False


def last_line(place: Path) -> str:
    """Return the last line that a warm process wrote."""
    with contextlib.suppress(OSError):
        lines = place.with_suffix(".log").read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return "it said nothing"


def _request(
    request: dict[str, Any],
    track: str,
    python: list[str],
    env: Mapping[str, str],
    files: Sequence[int] = (),
) -> tuple[Path, socket.socket, dict[str, Any]]:
    """Return a warm process's socket, the connection to it, which stays open, and its answer."""
    place = address(track, python, env)
    when, why = _failures.get(place, (float("-inf"), ""))
    if time.monotonic() - when < RETRY_SECONDS:  # else each kernel would wait for it to fail again
        raise WarmError(why)
    try:
        for _ in range(2):  # one that was about to end hangs up; the next is new
            with contextlib.ExitStack() as closing:
                connection = closing.enter_context(connect(place, track, python, env))
                if answer := ask(connection, request, files, START_SECONDS):
                    closing.pop_all()
                    return place, connection, answer
        raise WarmError(f"the warm process ended: {last_line(place)}")
    except (WarmError, TimeoutError) as error:
        _failures[place] = time.monotonic(), str(error)
        raise


def _connected(place: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(place))
        if peer(connection)[1] != os.getuid():
            raise WarmError(f"another user listens on {place}")
    except BaseException:
        connection.close()
        raise
    return connection


def _start(place: Path, track: str, python: list[str], env: Mapping[str, str]) -> subprocess.Popen:
    command = [*python, "-m", "quartet.warm", track, str(place)]
    with open(place.with_suffix(".log"), "a") as log:  # others may start one at this moment
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    threading.Thread(target=_see_off, args=(process,), daemon=True).start()
    return process


def _see_off(process: subprocess.Popen) -> None:
    """Wait for the end of a warm process, so that it leaves no zombie, and do not count its time.

    With the time of a child that has ended comes that of its own children. Its kernels have told
    theirs already.
    """
    with contextlib.suppress(OSError, psutil.Error):  # somebody else has waited for it
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        times = psutil.Process(process.pid).cpu_times()
        ForkedProcess.processor_seconds -= sum(times[:4])  # its own, and its children's
    process.wait()


def _status(place: Path, answer: Mapping[str, Any]) -> Status:
    about = {**answer, "kernels": tuple(answer["kernels"])}
    return Status(socket=place, track=track_at(place), **about)
