"""Where JAX keeps what it has compiled, so that the next kernel need not compile it again.

XLA compiles each operation that a lesson uses, which takes a third of a JAX lesson's time. JAX can
keep the results on disk. Its own key holds the program, the options and jaxlib's version; machine
code runs only on a processor that has the same instructions, so the folder is keyed by these too.
Off with QUARTET_JIT_CACHE=0, and where it is not known to be safe: XLA crashed while it loaded
large programs on macOS with jaxlib 0.9 (uwplasma/vmex, pull request 142).

JAX could bound the folder by itself (JAX_COMPILATION_CACHE_MAX_SIZE). But then each program that it
adds makes it read the dates of all that are there, under a lock for which all kernels wait: beside
3,000 programs (the course has 4,700) that took four times as long as not to keep anything
(jax 0.10.2, `jax/_src/lru_cache.py`). So it is bounded here, once a day. Without that lock a kernel
may meet a program that another has not yet written to its end: JAX warns, and compiles it; the
warning is switched off in config/ipython_kernel_config.py.

PyTorch's inductor keeps its own cache in the folder for temporary files without being asked.
TensorFlow and Keras have nothing of the kind for a processor that would be safe across versions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

MAX_BYTES = 200_000_000  # a lesson takes 2 MB
DAYS = 30  # after which the folder of another version or processor goes
SECONDS_OF_DAY = 86400
STAMP = ".bounded"  # its time says when the folder was last looked at
HALF_READ = "Error reading persistent compilation cache entry"  # how the warning begins


def settings() -> dict[str, str]:
    """Return the environment variables that switch the cache on, {} where it is to be off."""
    if sys.platform != "linux" or os.environ.get("QUARTET_JIT_CACHE", "1") == "0":
        return {}
    try:
        folder = make_folder()
    except OSError:  # nowhere to write
        return {}
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def make_folder() -> Path:
    """Return the folder for this jaxlib on this processor, which only this user can enter.

    Raises
    ------
    OSError if it cannot be made, or is somebody else's.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(home).expanduser() / "quartet" / "jax" / key()
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old(folder.parent)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022 or not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not this user's alone")
    os.utime(folder)
    _bound_daily(folder)
    return folder


def key() -> str:
    """Return what machine code depends on: jaxlib's version and the processor's instructions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = ("model name", "flags", "Features", "CPU part")
    processor = sorted({line for line in lines if line.startswith(names)})
    return f"{version('jaxlib')}-{hashlib.sha256(repr(processor).encode()).hexdigest()[:12]}"


def _remove_old(parent: Path) -> None:
    """Remove the folders of other versions and processors that were not used for long."""
    for folder in parent.iterdir():
        if time.time() - folder.stat().st_mtime > DAYS * SECONDS_OF_DAY:
            shutil.rmtree(folder, ignore_errors=True)


def _bound_daily(folder: Path) -> None:
    """Remove what was compiled first from a folder that has become too large."""
    stamp = folder / STAMP
    if stamp.exists() and time.time() - stamp.stat().st_mtime < SECONDS_OF_DAY:
        return
    stamp.touch()
    kept = 0
    with os.scandir(folder) as entries:
        newest = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in newest:
        kept += entry.stat().st_size
        if kept > MAX_BYTES:
            Path(entry).unlink(missing_ok=True)
