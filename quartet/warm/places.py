"""Where a warm process listens: a private folder, and a name that changes when the process must."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from quartet.fingerprint import installed, kernel_settings, of
from utils.tracks import ROOT, TRACKS

# Variables that Python, the frameworks and their libraries read when they are imported. Kernels
# that differ in one of them are not forked from the same process.
_READ_ON_IMPORT = re.compile(
    r"(ATEN|CUDA|DNNL|GOMP|JAX|KERAS|KMP|LD|LC|MALLOC|MKL|MPL|NCCL|NPY|NUMEXPR|NVIDIA|OMP|ONEDNN"
    r"|OPENBLAS|PYTHON|PYTORCH|QUARTET_GRADING|QUARTET_JIT|TF|TORCH|XLA)[A-Z0-9_]*|HOME|LANG|TMPDIR"
)


class WarmError(Exception):
    """Why no warm kernel can be had."""


def track_of(folder: str | os.PathLike | None) -> str | None:
    """Return the track that a kernel's working folder belongs to: its innermost part that is one.

    >>> track_of("/course/notebooks/jax")
    'jax'
    """
    parts = Path(folder).parts if folder else ()
    return next((part for part in reversed(parts) if part in TRACKS), None)


def runtime_folder() -> Path:
    """Return the folder of sockets, made if it is missing, which only this user can enter.

    Raises
    ------
    WarmError if somebody else could use it.
    """
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(run if os.path.isdir(run) else tempfile.gettempdir()) / f"quartet-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    private = stat.S_ISDIR(about.st_mode) and not about.st_mode & 0o077
    if not private or about.st_uid != os.getuid():
        raise WarmError(f"{folder} is not a folder that only this user can enter. Remove it.")
    return folder


def address(track: str, python: list[str], env: Mapping[str, str]) -> Path:
    """Return the socket of the warm process that fits, whether it runs or not.

    Parameters
    ----------
    python : the interpreter and its options, as `["/usr/bin/python3", "-X", "dev"]`.
    env : the kernel's environment.
    """
    about = [python, fingerprint(), sorted(read_on_import(env).items())]
    return runtime_folder() / f"{track}.{_checkout()}.{_digest(json.dumps(about))}.sock"


def sockets() -> list[Path]:
    """Return the sockets of this checkout's warm processes, by track."""
    found = runtime_folder().glob(f"*.{_checkout()}.*.sock")
    return sorted(found, key=lambda path: list(TRACKS).index(track_at(path)))


def track_at(socket: Path) -> str:
    """Return the track that a socket is for."""
    return socket.name.partition(".")[0]


def read_on_import(env: Mapping[str, str]) -> dict[str, str]:
    """Return those environment variables that matter while modules are imported."""
    return {name: value for name, value in env.items() if _READ_ON_IMPORT.fullmatch(name)}


def fingerprint() -> str:
    """Return what changes when a package, a shared helper or a kernel's settings change."""
    return of(_watched(), installed())


def _watched() -> list[Path]:
    """Return the files whose contents tell of a change."""
    ours = [*(ROOT / "utils").glob("*.py"), *Path(__file__).parent.glob("*.py")]
    return [*ours, ROOT / "quartet" / "fingerprint.py", *kernel_settings()]


def _checkout() -> str:
    return _digest(str(ROOT))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
