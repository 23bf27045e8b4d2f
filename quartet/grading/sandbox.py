"""Lock a process in: no network, no files but those named, little of everything else.

Four walls, each for what the others leave open: namespaces (network, processes, mounts), Landlock
(files), seccomp (system calls), resource limits; and a watcher outside for what all processes of a
sandbox take together. It needs Linux and no privileges; what each wall promises is written in
docs/grading.md.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from quartet.grading import landlock, seccomp
from quartet.grading.child import TOO_MUCH_MEMORY
from utils.tracks import ROOT

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
NEW_PIDS, NEW_NETWORK = 0x20000000, 0x40000000
PRIVATE = 0x4000 | 1 << 18  # MS_REC | MS_PRIVATE
NO_SETUID, NO_DEVICES, NO_PROGRAMS = 2, 4, 8
PARENT_DEATH_SIGNAL, DROP_FROM_BOUNDS = 1, 24  # prctl's
CAPABILITY_VERSION, LAST_CAPABILITY = 0x20080522, 63
FIRST_USER = 10**9  # of the users that only a sandbox has

TOO_MANY_PROCESSES = 91  # an exit status, as is TOO_MUCH_MEMORY
REASONS = {
    TOO_MUCH_MEMORY: "it took too much memory",
    TOO_MANY_PROCESSES: "it started too many processes",
}
WATCH_SECONDS = 0.1

SYSTEM = "/usr /lib /lib64 /bin /etc/ld.so.cache /etc/localtime /sys/devices/system /proc".split()
DEVICES = "/dev/null /dev/zero /dev/urandom /dev/random".split()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """What a sandbox may take: bytes, processes (a thread counts as one), seconds of processor."""

    memory: int = 3 * 2**30  # of all its processes together
    address_space: int = 8 * 2**30  # of each process; frameworks reserve much more than they use
    scratch: int = 2**28  # files
    processes: int = 200
    open_files: int = 512
    processor_seconds: int = 900


class NoSandbox(Exception):
    """Why no sandbox can be had here."""


def enter(scratch: Path, readable: Iterable[Path], limits: Limits) -> None:
    """Return in a new process that is locked in. The calling one watches it and ends with it.

    Parameters
    ----------
    scratch : an empty folder, the only place where the new process can write.
    readable : what it may read besides the system's libraries, Python and the data sets.

    Raises
    ------
    NoSandbox if one of the walls cannot be built; then nothing has changed but the namespaces.
    """
    if sys.platform != "linux" or not landlock.version():
        raise NoSandbox("it needs Linux with Landlock (5.13 or newer)")
    outside = os.getpid()
    ready, report = os.pipe()
    try:
        _leave_namespaces()
    except OSError as error:
        raise NoSandbox(f"the system gives this user no namespaces: {error}") from None
    first = os.fork()
    if first:
        os.close(report)
        _watch_if_ready(first, ready, limits)
    os.close(ready)
    try:
        _lock(scratch, readable, limits, outside)
    except OSError as error:
        os.write(report, f"{error}".encode())
        os._exit(1)
    os.write(report, b"\0")
    os.close(report)
    worker = os.fork()
    if worker:
        _close_all_files()
        os._exit(_reap(worker))


def _leave_namespaces() -> None:
    user, group = os.getuid(), os.getgid()
    wanted = NEW_MOUNTS | NEW_UTS | NEW_IPC | NEW_PIDS | NEW_NETWORK
    if _libc.unshare(wanted | (NEW_USER if user else 0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _watch_if_ready(first: int, ready: int, limits: Limits) -> None:
    """Watch the sandbox to its end if it was built, and end with it; raise NoSandbox if not."""
    said = os.read(ready, 1000)
    os.close(ready)
    if said != b"\0":
        os.waitpid(first, 0)
        raise NoSandbox(said.decode(errors="replace") or "it ended while it was built")
    _close_all_files()
    os._exit(_watch(first, limits))


def _lock(scratch: Path, readable: Iterable[Path], limits: Limits, outside: int) -> None:
    """Build the walls around this process, the first of its namespaces.

    `outside` is the process that watches it, whose number no other sandbox has.
    """
    _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _mount("none", "/", "", PRIVATE)
    size = f"size={limits.scratch},nr_inodes=20000,mode=0700"
    for place in (scratch, Path("/dev/shm")):
        _mount("tmpfs", str(place), "tmpfs", NO_SETUID | NO_DEVICES, size)
    _mount("proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_PROGRAMS)
    os.chdir(scratch)
    _limit(limits)
    _drop_privileges(outside)
    landlock.restrict([*_readable(), *readable], [scratch, Path("/dev/shm"), Path("/dev/null")])
    seccomp.restrict()


def _readable() -> list[Path]:
    """Return what the process may read: the system's libraries, Python, and no answers."""
    ours = [ROOT / name for name in ("utils", "quartet", "data")]
    return [*map(Path, SYSTEM), *map(Path, DEVICES), Path(sys.prefix), Path(sys.base_prefix), *ours]


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount {target}")


def _limit(limits: Limits) -> None:
    for name, most in {
        resource.RLIMIT_AS: limits.address_space,
        resource.RLIMIT_NPROC: limits.processes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.scratch,
        resource.RLIMIT_CPU: limits.processor_seconds,
        resource.RLIMIT_CORE: 0,
    }.items():
        _, hard = resource.getrlimit(name)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (most, most))


def _drop_privileges(outside: int) -> None:
    """Give up all capabilities. Root keeps only the right to read its files, as far as Landlock
    lets it. Its real user becomes one that nobody else is: Linux does not count root's processes,
    and counts those of another user in all sandboxes together."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresuid(FIRST_USER + outside, 0, 0)
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(DROP_FROM_BOUNDS, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _close_all_files() -> None:
    """Close what is open but standard input, output and error, so that the judge sees the end."""
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _reap(worker: int) -> int:
    """Be the first process of the sandbox: bury its dead until the worker is among them."""
    while True:
        pid, status = os.wait()
        if pid == worker:
            return max(0, os.waitstatus_to_exitcode(status))


def _watch(first: int, limits: Limits) -> int:
    """Wait for a sandbox to end; end it if its processes together take too much."""
    while True:
        pid, status = os.waitpid(first, os.WNOHANG)
        if pid:
            return max(0, os.waitstatus_to_exitcode(status))
        if reason := _too_much(first, limits):
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            return reason
        time.sleep(WATCH_SECONDS)


def _too_much(first: int, limits: Limits) -> int:
    """Return the exit status that says what is too much, 0 if nothing is."""
    try:
        inside = psutil.Process(first).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    if len(inside) > limits.processes:
        return TOO_MANY_PROCESSES
    if sum(_bytes(each, "rss") for each in inside) < limits.memory:
        return 0
    taken = sum(_bytes(each, "pss") for each in inside)  # shared pages count once; slower
    return TOO_MUCH_MEMORY if taken > limits.memory else 0


def _bytes(process: psutil.Process, what: str) -> int:
    with suppress(psutil.Error):
        return getattr(process.memory_info() if what == "rss" else process.memory_full_info(), what)
    return 0
