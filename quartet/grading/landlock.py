"""Landlock: take from this process, for good, all files but those that are named.

The system calls and structures are those of Linux's `include/uapi/linux/landlock.h`; see
landlock(7). What a kernel does not know yet is left out of what is asked of it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # on every architecture
VERSION_FLAG, PATH_BENEATH, NO_NEW_PRIVILEGES = 1, 1, 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
ALL_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15  # what a rule on a file may say
TCP = {4: 0b11}  # bind and connect
SCOPES = {6: 0b11}  # abstract sockets and signals of processes outside

READ = EXECUTE | READ_FILE | READ_DIR
_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scopes")]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """Return the version of Landlock that the kernel has, 0 if it has none."""
    return max(0, _libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG))


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leave this process, and all that it starts, these files and folders only.

    Paths that do not exist, or that the user cannot reach, are passed over. TCP is taken away too,
    where the kernel can.

    Raises
    ------
    OSError if the kernel has no Landlock, or refuses.
    """
    known = version()
    files = _newest(ALL_FILES, known)
    rules = _Ruleset(files, _newest(TCP, known), _newest(SCOPES, known))
    ruleset = _call(CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    for path in readable:
        _allow(ruleset, path, READ)
    for path in writable:
        _allow(ruleset, path, files)
    if _libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _newest(table: dict[int, int], known: int) -> int:
    fitting = [version for version in table if version <= known]
    return table[max(fitting)] if fitting else 0


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # nothing to give
        return
    if not path.is_dir():
        access &= FILE_ONLY
    rule = _Beneath(access, place)
    _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(place)


def _call(number: int, *args: object) -> int:
    result = _libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: system call {number}")
    return result
