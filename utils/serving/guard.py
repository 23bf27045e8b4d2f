"""Run a server's command, and end it, with all that it started, when the one who asked is gone.

    python guard.py SECONDS COMMAND [ARGUMENT ...]

The one who asks holds the other end of standard input. When it closes, whether on purpose or
because a kernel was killed, the command gets SIGTERM, SECONDS to finish what it is at, then all
its processes are killed. Standard library only: this starts in a few milliseconds.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LINUX = sys.platform == "linux"
LOOK_SECONDS = 0.05


def main() -> int:
    """Run the command to its end, or to the end of standard input; return its exit status."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)  # only the end of standard input ends it
    if LINUX:  # whoever loses its parent among the server's processes becomes a child of this one
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    while child.poll() is None and not _asked_to_end():
        pass
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    _kill_all(child)
    return child.returncode


def _die_with_parent() -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _asked_to_end() -> bool:
    readable, _, _ = select.select([sys.stdin.fileno()], [], [], LOOK_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _kill_all(child: subprocess.Popen) -> None:
    """Kill what the command left, until nothing is left."""
    if child.poll() is None:
        child.kill()
    child.wait()
    while pids := _children() if LINUX else []:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(LOOK_SECONDS)


def _children() -> list[int]:
    """Return the processes whose parent is this one; grandchildren follow when those are dead."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    sys.exit(main())
