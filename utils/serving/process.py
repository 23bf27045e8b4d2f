"""Start a server as a process of its own, and leave nothing behind: no process and no port.

    with serving.start([sys.executable, "-m", "uvicorn", "app:app", "--port", "{port}"]) as server:
        requests.get(f"{server.url}/health", timeout=5)

A server ends with its block, with `stop`, when nothing refers to it any more, and when the kernel
ends or is killed. It listens on 127.0.0.1: its command must say so.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

GUARD = Path(__file__).with_name("guard.py")
LOOK_SECONDS = 0.05
LAST_LINES = 15
ATTEMPTS = 3  # at a port that nobody else takes in the moment before the server does
TAKEN = "address already in use"  # what the system says then, and servers pass on


class ServerError(RuntimeError):
    """A server did not start, or did not answer; its log's last lines are in the message."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(
    command: Sequence[str | Path],
    *,
    ready: str = "/health",
    seconds: float = 60,
    grace: float = 5,
    env: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
) -> Server:
    """Start a server on a free port of 127.0.0.1, and return when it answers.

    command, env: each `{port}` in them becomes the port.
    ready: the path that answers 200 when the server can serve.
    seconds: how long to wait for that. grace: how long it may take to stop.
    env: variables on top of this process's own. folder: where it runs.

    Raises ServerError, with the end of its log, where it ends or does not answer in time. Where it
    ends because its port was taken meanwhile, it is started on another one.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        server = Server([str(part) for part in command], grace, env or {}, folder)
        try:
            server.wait(ready, seconds)
        except BaseException as error:
            server.stop()
            if not attempts_left or TAKEN not in str(error).lower():
                raise
        else:
            break
    return server


class Server:
    """A running server: `url`, `port`, `pid`, `text` (its log), `alive`, `stop`."""

    def __init__(
        self, command: list[str], grace: float, env: Mapping[str, str], folder: str | Path | None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # A file without a name, so that a killed kernel leaves none; it is closed in `stop`.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [self._with_port(part) for part in command]
        env = {name: self._with_port(value) for name, value in env.items()}
        self._guard = subprocess.Popen(
            [sys.executable, "-S", str(GUARD), str(grace), *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **env},
            start_new_session=True,  # an interrupt of the kernel is none of the server's
        )
        weakref.finalize(self, _let_go, self._guard.stdin, self._log)

    def _with_port(self, text: str) -> str:
        return text.replace("{port}", str(self.port))

    @property
    def pid(self) -> int | None:
        """The process of the command itself, while it runs."""
        path = Path(f"/proc/{self._guard.pid}/task/{self._guard.pid}/children")
        pids = path.read_text().split() if self.alive and path.exists() else []
        return int(pids[0]) if pids else None

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self._guard.poll() is None

    @property
    def text(self) -> str:
        """What the server has written so far, until `stop`."""
        file = self._log.fileno()  # the server writes where it stands: read without moving that
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def wait(self, ready: str, seconds: float) -> None:
        """Return when the path `ready` answers 200; raise ServerError otherwise."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.alive:
                raise ServerError(f"The server ended with {self._guard.returncode}.\n{self._end()}")
            if _answers(self.port, ready):
                return
            time.sleep(LOOK_SECONDS)
        raise ServerError(f"No answer from {self.url}{ready} in {seconds:g} s.\n{self._end()}")

    def stop(self) -> int:
        """Let the server finish what it is at, end it, and return its exit status."""
        self._guard.stdin.close()
        status = self._guard.wait()
        self._log.close()
        return status

    def _end(self) -> str:
        return "\n".join(self.text.splitlines()[-LAST_LINES:])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _let_go(*files: IO[bytes]) -> None:
    for file in files:
        file.close()


def _answers(port: int, path: str) -> bool:
    """Return whether a GET of `path` on a port of 127.0.0.1 is answered with 200.

    By http.client, whose errors leave no cycle behind: one would keep the frames of the callers,
    and with them a server that nobody uses any more, until the garbage collector runs.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
