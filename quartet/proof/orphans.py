"""Run a command so that the processor time of all that it leaves running is counted, too."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER, in linux/prctl.h


def adopt_orphans() -> None:
    """Have what a child leaves running counted when it ends: warm processes outlive their tests.

    From then on this process has to wait for orphans, as `call` does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)


def call(command: Sequence[str], **options: Any) -> int:
    """Run a command as `subprocess.call` does; wait for orphans, too, lest they stay as zombies."""
    process = subprocess.Popen(command, **options)
    while True:
        ended, status = os.wait()
        if ended == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
