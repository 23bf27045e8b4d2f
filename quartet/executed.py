"""Executed notebooks, each run once: kept until something that its outputs depend on changes."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
from filelock import FileLock
from nbformat import NotebookNode

from quartet import QuartetError
from quartet.build import write
from utils.tracks import ROOT

PACKAGES = ("keras", "torch", "tensorflow", "jax", "jaxlib", "flax", "optax", "numpy", "ipykernel")
SETTINGS = ("KERAS_BACKEND", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")
UTILS = ("*.py", "*/*.py", "browser/*.json", "browser/page/**/*.*")  # never what npm installs
CELL_TIMEOUT = 300


def executed(path: Path) -> NotebookNode:
    """Return a built notebook as it is when executed; run it only if that was not done before.

    Parameters
    ----------
    path : a notebook such as `notebooks/jax/03_dense_layers.ipynb`.

    Raises
    ------
    QuartetError if a cell fails.
    """
    with lock(path):
        kept = place(path)
        if kept.is_file():
            return nbformat.read(kept, as_version=4)
        return _execute(path)


def store(path: Path, notebook: NotebookNode) -> None:
    """Keep the executed form of a built notebook, instead of any that was kept before."""
    kept = place(path)
    for old in kept.parent.glob(f"{kept.name.partition('.')[0]}.*.ipynb"):
        old.unlink(missing_ok=True)
    write(kept, nbformat.writes(notebook) + "\n")


def versions() -> dict[str, str]:
    """Return package -> version of what the outputs depend on, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time run a notebook, so that another can take what comes of it."""
    name = place(path).name.partition(".")[0]
    folder = _folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield


def place(path: Path) -> Path:
    """Return where the executed form of a notebook is kept while nothing that it uses changes."""
    kind, track = path.resolve().parts[-3:-1]
    return _folder(path) / f"{kind}-{track}-{path.stem}.{_digest(path)[:16]}.ipynb"


def _folder(path: Path) -> Path:
    return path.resolve().parents[2] / ".quartet" / "executed"


def _execute(path: Path) -> NotebookNode:
    from quartet.run import execute  # slow to import

    notebook = nbformat.read(path, as_version=4)
    outcome = execute(notebook, path.parent, timeout=CELL_TIMEOUT)
    if outcome.error:
        raise QuartetError(f"{'/'.join(path.parts[-3:])}: {outcome.error}")
    store(path, notebook)
    return notebook


def _digest(path: Path) -> str:
    """Return a fingerprint of all that the outputs of a notebook depend on."""
    root = path.resolve().parents[2]
    lesson = root / "lessons" / path.stem
    files = [path, lesson / "checks.py", lesson / "recorded.json", root / "data" / "index.toml"]
    for pattern in UTILS:
        files += sorted((ROOT / "utils").glob(pattern))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"-")
    settings = [os.environ.get(name, "") for name in SETTINGS]
    digest.update(repr((platform.python_version(), versions(), settings)).encode())
    return digest.hexdigest()
