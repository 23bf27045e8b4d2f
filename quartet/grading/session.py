"""A learner's process as the judge sees it: started, asked, limited, ended, started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from quartet import QuartetError
from quartet.compiled import MAX_BYTES
from quartet.grading.child import TOO_LATE
from quartet.grading.sandbox import KILLED, REASONS, Limits
from quartet.grading.submission import Submission
from quartet.warm import client
from quartet.warm.places import WarmError, runtime_folder
from quartet.warm.provisioner import are_wanted, can_fork
from utils import wire
from utils.checks import Answer, Case, Exercise
from utils.limits import longest

CELL_SECONDS = 60  # for each of the learner's cells, as `limits.limited` counts them
SUBMISSION_SECONDS = 1800  # for all cells and calls together; solutions take a minute or two
GRACE_SECONDS = 5  # for the process to notice a limit by itself
START_SECONDS = 120  # to import a framework on a slow, busy machine
MOST_STARTS = 5
LONGEST_TEXT = 2000  # characters of what a process says
MODULE = "quartet.grading.child"
KEPT = ("KERAS_BACKEND", "OMP_NUM_THREADS", "PATH", "PYTHONPATH", "QUARTET_WARM")
KEPT += ("QUARTET_WARM_IDLE", "XDG_RUNTIME_DIR")
LIMITS = Limits()
REMEDY = "With --no-sandbox they run like your own code, with all that you may do."


class Gone(Exception):
    """The process has ended, hung, or talked nonsense; the text says which.

    `killed`: perhaps not through anything that the learner's code did.
    """

    def __init__(self, text: str, killed: bool = False) -> None:
        super().__init__(text)
        self.killed = killed


class Handle(Protocol):
    """What is used of subprocess.Popen, and of a forked process."""

    pid: int

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass
class Process:
    """A learner's process and the socket to it."""

    handle: Handle
    connection: socket.socket
    deadline: float = 0

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a question and return the answer.

        Parameters
        ----------
        seconds : how long to wait by the clock; the question may have a limit of its own.

        Raises
        ------
        Gone if there is none within so many seconds and a grace, or it is nonsense.
        """
        self.deadline = time.monotonic() + seconds + GRACE_SECONDS
        name = secrets.token_hex(8)  # what the learner's code may have written by hand has none
        try:
            wire.send(self, {"seconds": seconds} | question | {"name": name})
            answer = wire.receive(self.read)
            if answer is not None and answer.get("name") != name:
                raise wire.WireError("it answers no question")
        except TimeoutError:
            text = f"it passed its time limit, {seconds:g} s by the clock, and did not stop"
            raise Gone(text) from None
        except ConnectionError:
            answer = None
        except (wire.WireError, OSError) as error:
            raise Gone(f"its process sent something that is no answer: {error}") from None
        if answer is None:
            raise self._ended()
        return answer

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.connection.settimeout(self._left())
        self.connection.sendall(data)

    def flush(self) -> None:
        """Do nothing: what is written is sent."""

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only if the other end is closed."""
        parts, missing = [], size
        while missing:
            self.connection.settimeout(self._left())
            part = self.connection.recv(min(missing, 2**20))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End the process and what it started."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.handle.pid, signal.SIGKILL)
        self.handle.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # where the warm process is stopped
            self.handle.wait(GRACE_SECONDS)

    def _ended(self) -> Gone:
        """Return why the process ended, as far as its exit status tells."""
        why, killed = "it closed the connection", False
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.handle.wait(GRACE_SECONDS)
            why = REASONS.get(status, "it exited, crashed or was killed")
            if status == TOO_LATE:
                why = "it passed its time limit and did not stop"
            killed = status in (KILLED, -signal.SIGKILL)
        return Gone(f"its process ended: {why}", killed)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def start(track: str, folder: Path, env: Mapping[str, str] = os.environ) -> Process:
    """Start a learner's process, forked from a warm one where that can be had."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", MODULE, track]
    with theirs, open(os.devnull, "wb") as nothing:
        files = [theirs.fileno(), nothing.fileno(), nothing.fileno()]
        handle = _fork(track, command, folder, env, files)
        if handle is None:
            streams = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
            handle = subprocess.Popen(
                command, cwd=folder, env=dict(env), start_new_session=True, **streams
            )
    return Process(handle, ours)


def start_clean(track: str, folder: Path) -> Process:
    """Start a learner's process without a sandbox, but with nothing in its environment."""
    _empty_cache_if_large()
    return start(track, folder, _clean_environment())


def start_locked(track: str, scratch: Path, limits: Limits = LIMITS) -> Process:
    """Start a learner's process and lock it in before any of the learner's code runs.

    Parameters
    ----------
    scratch : an empty folder, where the learner's code may write; it never sees what is written.

    Raises
    ------
    QuartetError if there is no sandbox to be had, Gone if the process ended.
    """
    process = start(track, scratch, _clean_environment())
    readable = [str(_home() / ".cache")]  # what JAX compiled for the solution
    question = {"do": "lock", "scratch": str(scratch), "readable": readable}
    question["limits"] = asdict(limits)
    try:
        problem = process.ask(question, START_SECONDS).get("problem")
    except Gone:
        process.kill()
        raise
    if problem:
        process.kill()
        raise QuartetError(f"There is no sandbox for submissions here: {problem}. {REMEDY}")
    return process


def _clean_environment() -> dict[str, str]:
    """Return what a learner's process may know: nothing of whoever grades."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    fixed = {"HOME": str(_home()), "LANG": "C.UTF-8", "QUARTET_GRADING": "1"}
    return kept | fixed


def _home() -> Path:
    """Return the home folder of learners' processes, which no sandbox can write to."""
    home = runtime_folder() / "grading"
    home.mkdir(mode=0o700, exist_ok=True)
    return home


def _empty_cache_if_large() -> None:
    """Bound what JAX keeps of solutions: JAX itself could not without writing when it reads."""
    cache = _home() / ".cache"
    with contextlib.suppress(FileNotFoundError):  # another grader does the same
        if sum(path.stat().st_size for path in cache.rglob("*")) > MAX_BYTES:
            shutil.rmtree(cache, ignore_errors=True)


def _fork(
    track: str, command: list[str], folder: Path, env: Mapping[str, str], files: list[int]
) -> client.ForkedProcess | None:
    if can_fork() and are_wanted(env):
        with contextlib.suppress(WarmError, OSError):
            return client.fork(
                track, [*client.interpreter(), *command[1:]], str(folder), env, files
            )
    return None


@dataclass
class Session:
    """Runs a submission's cells in a process of its own and calls its functions.

    A cell or a call that ends or blocks the process costs only itself: the cells run again in a
    new process, that cell left out. All of it together has SUBMISSION_SECONDS.
    """

    submission: Submission
    folder: Path
    start: Callable[[str, Path], Process] = start
    problems: dict[str, str] = field(default_factory=dict)  # id of a cell -> what it raised
    _process: Process | None = None
    _left_out: set[str] = field(default_factory=set)
    _called: set[str] = field(default_factory=set)  # exercises that this process has compiled
    _starts: int = 0
    _end: float = 0
    _was_killed: bool = False

    def ask(self, exercise: Exercise, case: Case) -> Answer:
        """Call the learner's function of an exercise with a case's arguments."""
        question = {"do": "call", "exercise": exercise.name, "args": case.args}
        try:
            process = self._ready()
            if problem := self._check_problem(exercise.name):
                return problem
            seconds = exercise.limit(first=exercise.name not in self._called)
            self._called.add(exercise.name)
            return _answer(self._ask(process, question, seconds))
        except Gone as gone:
            self.close()
            return self.ask(exercise, case) if self._again(gone) else Answer(problem=str(gone))

    def close(self) -> None:
        """End the process, if one runs."""
        if self._process:
            self._process.kill()
        self._process = None
        self._called.clear()

    def _ready(self) -> Process:
        """Return a process that has run all cells but those that ended one before."""
        while self._process is None:
            self._left()
            if self._starts == MOST_STARTS:
                raise Gone("its process ended again and again")
            self._starts += 1
            self._process = self.start(self.submission.track, self.folder)
            self._run_cells(self._process)
        return self._process

    def _run_cells(self, process: Process) -> None:
        seconds: float = CELL_SECONDS + START_SECONDS
        for step in self.submission.steps:
            if step.id in self._left_out:
                continue
            question = {"do": "run", "source": step.source, "check": step.check}
            try:
                found = self._ask(process, question, seconds)
                self.problems[step.id] = str(found.get("problem", ""))[:LONGEST_TEXT]
            except Gone as gone:
                if not self._again(gone):
                    self.problems[step.id] = str(gone)
                    self._left_out.add(step.id)
                return self.close()
            seconds = CELL_SECONDS

    def _ask(self, process: Process, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Ask within what the submission has left; an answer that was cut short by it is none."""
        left = self._left()
        question = question | {"seconds": min(seconds, left)}
        try:
            return process.ask(question, min(longest(seconds), left))
        finally:
            self._left()

    def _left(self) -> float:
        """Return how many seconds the submission has left.

        Raises
        ------
        Gone if it has none.
        """
        self._end = self._end or time.monotonic() + SUBMISSION_SECONDS
        left = self._end - time.monotonic()
        if left <= 0:
            raise Gone(f"the submission passed its time limit of {SUBMISSION_SECONDS:g} s")
        return left

    def _again(self, gone: Gone) -> bool:
        """Return whether to try again: once, if the process was killed, which may have been the
        system's doing where memory is short."""
        again = gone.killed and not self._was_killed
        self._was_killed |= gone.killed
        return again

    def _check_problem(self, exercise: str) -> Answer | None:
        """Return why there is no function to call, if there is none."""
        step = next(step for step in self.submission.steps if step.check == exercise)
        if not (problem := self.problems.get(step.id, "")):
            return None
        own = self.problems.get(exercise)
        return Answer(problem=f"its cell raised {own}" if own else problem, uncalled=True)


def _answer(found: dict[str, Any]) -> Answer:
    problem = str(found.get("problem", ""))[:LONGEST_TEXT]
    value = found.get("value")
    try:
        plain = _is_plain(value)
    except RecursionError:
        plain = False
    if not plain:
        return Answer(problem="its process sent something that is no result")
    return Answer(value, problem, found.get("unwritten") is True)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, np.ndarray))
