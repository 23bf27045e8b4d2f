"""What a result depends on, in one text: contents of files, packages, settings; never dates.

Executed notebooks, warm kernels, grades and tests that passed are kept for as long as it is equal.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from utils.tracks import ROOT

# Variables that change numbers, and what they are in a kernel if nobody has set them.
SETTINGS = {
    "KERAS_BACKEND": "",
    "CUDA_VISIBLE_DEVICES": "",
    "NVIDIA_TF32_OVERRIDE": "0",
    "JAX_PLATFORMS": "",
    "JAX_ENABLE_X64": "",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "XLA_FLAGS": "",
    "TF_XLA_FLAGS": "",
    "TF_ENABLE_ONEDNN_OPTS": "",
    "ONEDNN_MAX_CPU_ISA": "",
    "ONEDNN_DEFAULT_FPMATH_MODE": "",
    "ATEN_CPU_CAPABILITY": "",
    "MKL_CBWR": "",
    "MKL_ENABLE_INSTRUCTIONS": "",
    "MKL_NUM_THREADS": "",
    "NPY_DISABLE_CPU_FEATURES": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "",
    "OPENBLAS_NUM_THREADS": "",
}
NO_SOURCES = {"node_modules", "__pycache__"}
PACKAGES = ("utils", "quartet")  # of this project
# Text is searched, not parsed: so code in strings, and modules that are started by name, count too.
_IMPORT = re.compile(rf"\bfrom ({'|'.join(PACKAGES)}) import (\([^)]*\)|.*)")
_DOTTED = re.compile(rf"(?<![.\w])({'|'.join(PACKAGES)})\.(\w+)")


def of(paths: Iterable[Path], *about: Any, root: Path = ROOT) -> str:
    """Return a text that changes with the contents or names of files, or with what is said of them.

    Parameters
    ----------
    paths : their order does not matter; a file that is missing counts as such.
    about : anything that JSON can hold.
    root : names are relative to it, or to the project, so that a copy elsewhere gives the same.

    Raises
    ------
    OSError if this process has no descriptor left to look with.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, path in sorted((_name(path, root), path) for path in set(paths)):
        digest.update(f"\n{name} {_contents(path)}".encode())
    return digest.hexdigest()


def environment() -> str:
    """Return the fingerprint of what all kernels of this environment share."""
    values = {name: os.environ.get(name, usual) for name, usual in SETTINGS.items()}
    return of(kernel_settings(), installed(), values)


def installed() -> list[str]:
    """Return Python's version, and the name and version of each package beside it."""
    found = [platform.python_version()]
    for folder in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".dist-info"):
                found.append(name)
            elif name.endswith(".pth"):  # what it adds to the path may be anywhere
                found.append(f"{name} {_contents(Path(folder, name))}")
    return found


def kernel_settings() -> list[Path]:
    """Return the files that set up each kernel: IPython's, what they import, and Keras's."""
    files = sorted(Path(sys.prefix, "etc", "ipython").glob("*.py"))
    return [*files, *imported(map(_text, files)), Path.home() / ".keras" / "keras.json"]


def imported(sources: Iterable[str]) -> set[Path]:
    """Return the files of `utils` and `quartet` that sources use, directly or not.

    A module in a folder of its own, as `utils.serving.load`, brings the whole folder: pages and
    settings lie there, and modules that are started by name.
    """
    waiting, found = list(sources), set()
    while waiting:
        for package, module in _names(waiting.pop()):
            for path in _files(package, module):
                if path not in found:
                    found.add(path)
                    waiting += [_text(path)] if path.suffix == ".py" else []
    return found


def code(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook's file, as they are there."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def about_code(cells: Iterable[dict[str, Any]]) -> list[Any]:
    """Return what of code cells decides what comes out; not their ids, which headings may give."""
    return [[source(cell), cell["metadata"].get("tags", [])] for cell in cells]


def source(cell: dict[str, Any]) -> str:
    """Return the text of a cell, which a file may hold as a list of lines."""
    return "".join(cell["source"])


@lru_cache(maxsize=1024)
def _names(text: str) -> frozenset[tuple[str, str]]:
    """Return package and module of all that a text may import."""
    found = set(_DOTTED.findall(text))
    for package, names in _IMPORT.findall(text):
        found |= {(package, name) for name in re.findall(r"\w+", names)}
    return frozenset(found)


def _files(package: str, module: str) -> Iterator[Path]:
    """Yield the files of a module, or of the folder that it stands for, with the package's own."""
    folder = ROOT / package
    yield folder / "__init__.py"
    if (folder / f"{module}.py").is_file():
        yield folder / f"{module}.py"
    elif (folder / module / "__init__.py").is_file():
        yield from walk(folder / module)


def walk(folder: Path, without: Iterable[str] = NO_SOURCES) -> Iterator[Path]:
    """Yield all files under a folder, but not those in folders of some names."""
    for place, folders, names in os.walk(folder):
        folders[:] = set(folders) - set(without)
        yield from (Path(place, name) for name in names)


def _name(path: Path, root: Path) -> str:
    for folder in (root, ROOT):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.as_posix()


def _contents(path: Path) -> str:
    raw = _read(path)
    return "" if raw is None else hashlib.sha256(raw).hexdigest()


def _text(path: Path) -> str:
    return (_read(path) or b"").decode(errors="replace")


def _read(path: Path) -> bytes | None:
    """Return what is in a file; None if it is not there (any more: pip may be at work)."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
