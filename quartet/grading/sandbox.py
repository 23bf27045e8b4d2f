"""Lock a process in: no network, no files but those named, little of everything else.

Four walls, each for what the others leave open: namespaces (network, processes, read-only mounts),
Landlock (files), seccomp (system calls), resource limits; and a watcher outside for what all
processes of a sandbox take together, which ends it when nobody waits for its answers any more. It
needs Linux and no privileges; what each wall promises is written in docs/grading.md.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quartet.grading import landlock, seccomp
from quartet.grading.child import TOO_MUCH_MEMORY
from utils.tracks import ROOT

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
NEW_PIDS, NEW_NETWORK = 0x20000000, 0x40000000
READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8  # of mount and mount_setattr alike
MOUNT_SETATTR, PRIVATE, RECURSIVE = 442, 1 << 18, 0x8000  # the number is every architecture's
PARENT_DEATH_SIGNAL, DUMPABLE, IN_BOUNDS, DROP_FROM_BOUNDS = 1, 4, 23, 24  # prctl's
SECURITY, KEEP_CAPABILITIES, AMBIENT, RAISE = 28, 1 << 2, 47, 2
CAPABILITY_VERSION, LAST_CAPABILITY = 0x20080522, 63
READ_ALL = 2  # CAP_DAC_READ_SEARCH
FIRST_USER = 10**9  # of the users that only a sandbox has

TOO_MANY_PROCESSES, KILLED = 91, 92  # exit statuses, as is TOO_MUCH_MEMORY
REASONS = {
    TOO_MUCH_MEMORY: "it took too much memory",
    TOO_MANY_PROCESSES: "it started too many processes",
    KILLED: "it was killed",
}
WATCH_SECONDS = 0.1

SYSTEM = "/usr /lib /lib64 /bin /etc/ld.so.cache /etc/localtime /sys/devices/system /proc".split()
DEVICES = "/dev/null /dev/zero /dev/urandom /dev/random".split()
ANSWERS = "solutions lessons tests .git".split()  # what a course holds of them
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """What a sandbox may take: bytes, processes, seconds of processor."""

    memory: int = 3 * 2**30  # of all its processes together
    address_space: int = 8 * 2**30  # of each process; frameworks reserve much more than they use
    scratch: int = 2**28  # files
    shared: int = 2**27  # files in /dev/shm, which is memory beside that of the processes
    processes: int = 100  # more, and the sandbox ends
    tasks: int = 200  # processes and threads; the system refuses more
    open_files: int = 512
    processor_seconds: int = 900


class NoSandbox(Exception):
    """Why no sandbox can be had here."""


def enter(
    scratch: Path, readable: Iterable[Path], limits: Limits, grader: int | None = None
) -> None:
    """Return in a new process that is locked in. The calling one watches it and ends with it.

    Parameters
    ----------
    scratch : an empty folder, the only place where the new process can write.
    readable : what it may read besides the system's libraries, Python and the data sets.
    grader : a socket; when its other end is closed, the sandbox ends.

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
        _watch_if_ready(first, ready, limits, grader)
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


def _watch_if_ready(first: int, ready: int, limits: Limits, grader: int | None) -> None:
    """Watch the sandbox to its end if it was built, and end with it; raise NoSandbox if not."""
    said = os.read(ready, 1000)
    os.close(ready)
    if said != b"\0":
        os.waitpid(first, 0)
        raise NoSandbox(said.decode(errors="replace") or "it ended while it was built")
    hung_up = select.poll()
    if grader is not None:
        os.dup2(grader, 0)
        hung_up.register(0, 0)
    _close_all_files()
    os._exit(_watch(first, limits, hung_up))


def _lock(scratch: Path, readable: Iterable[Path], limits: Limits, outside: int) -> None:
    """Build the walls around this process, the first of its namespaces.

    `outside` is the process that watches it, whose number no other sandbox has.
    """
    _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    os.setsid()  # Linux shares processors among sessions: the watcher gets its part beside a bomb
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    user = os.getuid() or FIRST_USER + outside
    _mount_anew(scratch, limits, user)
    os.chdir(scratch)
    _limit(limits)
    _drop_privileges(user)
    # A change of user clears this. Had the watcher died in between, the pipe to it would be broken.
    _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    landlock.restrict([*_readable(), *readable], [scratch, Path("/dev/shm"), Path("/dev/null")])
    seccomp.restrict()


def _mount_anew(scratch: Path, limits: Limits, user: int) -> None:
    """Make all that is mounted read-only, hide answers, and mount folders that a user writes to.

    Landlock says nothing of a file's mode, owner, times and attributes, and nothing at all below a
    folder that may be read: a course may lie there, as in /usr/src.
    """
    wanted = (ctypes.c_uint64 * 4)(READ_ONLY, 0, PRIVATE, 0)  # struct mount_attr
    size = ctypes.sizeof(wanted)
    if _libc.syscall(MOUNT_SETATTR, -1, b"/", RECURSIVE, ctypes.byref(wanted), size):
        raise OSError(ctypes.get_errno(), "cannot make the file systems read-only")
    for name in ANSWERS:
        if os.path.isdir(ROOT / name):  # what this user cannot enter is none to it, and hidden
            _mount("tmpfs", str(ROOT / name), "tmpfs", READ_ONLY, "size=4k")
    for place, most in ((scratch, limits.scratch), (Path("/dev/shm"), limits.shared)):
        about = f"size={most},nr_inodes=20000,mode=0700,uid={user}"
        _mount("tmpfs", str(place), "tmpfs", NO_SETUID | NO_DEVICES, about)
    _mount("proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_PROGRAMS)


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
        resource.RLIMIT_NPROC: limits.tasks,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.scratch,
        resource.RLIMIT_CPU: limits.processor_seconds,
        resource.RLIMIT_CORE: 0,
    }.items():
        _, hard = resource.getrlimit(name)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (most, most))


def _drop_privileges(user: int) -> None:
    """Give up all capabilities. Root becomes a user that nobody else is: Linux does not count
    root's processes, and those of another user in all sandboxes together. It keeps only the right
    to read, as far as Landlock lets it, if it has it: in a container it may not."""
    root = os.getuid() == 0
    reads = root and _libc.prctl(IN_BOUNDS, READ_ALL, 0, 0, 0) == 1
    for capability in range(LAST_CAPABILITY + 1):
        if not (reads and capability == READ_ALL):
            _libc.prctl(DROP_FROM_BOUNDS, capability, 0, 0, 0)
    if root:
        os.setgroups([])
        _libc.prctl(SECURITY, KEEP_CAPABILITIES, 0, 0, 0)  # whoever the user is, also in access(2)
        os.setresuid(user, user, user)
        _libc.prctl(DUMPABLE, 1, 0, 0, 0)  # else its own /proc/self were root's
    kept = reads << READ_ALL
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, kept)):
        raise OSError(ctypes.get_errno(), "capset")
    if reads:  # also for programs that it starts
        _libc.prctl(AMBIENT, RAISE, READ_ALL, 0, 0)


def _close_all_files() -> None:
    """Close what is open but standard input, output and error, so that the judge sees the end."""
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _reap(worker: int) -> int:
    """Be the first process of the sandbox: bury its dead until the worker is among them."""
    while True:
        pid, status = os.wait()
        if pid == worker:
            return _exit_status(status)


def _watch(first: int, limits: Limits, hung_up: select.poll) -> int:
    """Wait for a sandbox to end; end it if its processes together take too much, or if the grader
    has hung up, be it because it died."""
    while True:
        pid, status = os.waitpid(first, os.WNOHANG)
        if pid:
            return _exit_status(status)
        reason = _too_much(limits)
        if reason or hung_up.poll(WATCH_SECONDS * 1000):
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            return reason


def _exit_status(status: int) -> int:
    """Return what to exit with for a process that ended with a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return KILLED if code == -signal.SIGKILL else max(0, code)


def _too_much(limits: Limits) -> int:
    """Return the exit status that says what is too much, 0 if nothing is."""
    inside, taken = _inside(), 0
    if len(inside) > limits.processes:
        return TOO_MANY_PROCESSES
    if sum(_bytes(each, "status", "VmRSS:") for each in inside) < limits.memory:
        return 0
    for each in inside:  # this takes long, and meanwhile they may multiply
        taken += _bytes(each, "smaps_rollup", "Pss:")  # shared pages count once
        if len(_inside()) > limits.processes:
            return TOO_MANY_PROCESSES
    return TOO_MUCH_MEMORY if taken > limits.memory else 0


def _inside() -> list[str]:
    """Return the numbers that the sandbox's processes have inside.

    The watcher shares the sandbox's mounts: its /proc lists these, and not the system's.
    """
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _bytes(process: str, file: str, name: str) -> int:
    """Return what a file in /proc says of a process's memory, 0 if the process has ended."""
    with suppress(OSError):
        for line in Path("/proc", process, file).read_text().splitlines():
            if line.startswith(name):
                return 1024 * int(line.split()[1])
    return 0
