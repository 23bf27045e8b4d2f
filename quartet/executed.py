"""Executed notebooks, each run once: kept until something that its outputs depend on changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
from filelock import FileLock
from nbformat import NotebookNode

from quartet import QuartetError, fingerprint
from quartet.build import write

PACKAGES = ("keras", "torch", "tensorflow", "jax", "jaxlib", "flax", "optax", "numpy", "ipykernel")
CELL_TIMEOUT = 300


def executed(path: Path) -> NotebookNode:
    """Return a built notebook as it is when executed; run it only if that was not done before.

    Its prose is that of now, whenever its code was run.

    Parameters
    ----------
    path : a notebook such as `notebooks/jax/03_dense_layers.ipynb`.

    Raises
    ------
    QuartetError if a cell fails.
    """
    with lock(path) as kept:
        if not kept.is_file():
            store(kept, _execute(path))
        return _with_outputs(path, nbformat.read(kept, as_version=4))


def store(kept: Path, notebook: NotebookNode) -> None:
    """Keep the executed form of a notebook at its place, instead of any that was kept before."""
    for old in kept.parent.glob(f"{kept.name.partition('.')[0]}.*.ipynb"):
        old.unlink(missing_ok=True)
    write(kept, nbformat.writes(notebook) + "\n")


def versions() -> dict[str, str]:
    """Return package -> version of those that a benchmark names, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def lock(path: Path) -> Iterator[Path]:
    """Let one process at a time run a notebook, so that another can take what comes of it.

    It gives the place that fits what is there now: what is edited while the notebook runs does not
    count as run.
    """
    name = place(path).name.partition(".")[0]
    folder = _folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield place(path)


def place(path: Path) -> Path:
    """Return where the executed form of a notebook is kept while nothing that it uses changes."""
    kind, track = path.resolve().parts[-3:-1]
    return _folder(path) / f"{kind}-{track}-{path.stem}.{digest(path)[:16]}.ipynb"


def _folder(path: Path) -> Path:
    return path.resolve().parents[2] / ".quartet" / "executed"


def _with_outputs(path: Path, ran: NotebookNode) -> NotebookNode:
    """Return the notebook as it is there now, with the outputs of an earlier run of its code."""
    notebook = nbformat.read(path, as_version=4)
    code, done = ([c for c in nb.cells if c.cell_type == "code"] for nb in (notebook, ran))
    for cell, old in zip(code, done, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def _execute(path: Path) -> NotebookNode:
    from quartet.run import execute  # slow to import

    notebook = nbformat.read(path, as_version=4)
    outcome = execute(notebook, path.parent, timeout=CELL_TIMEOUT)
    if outcome.error:
        raise QuartetError(f"{'/'.join(path.parts[-3:])}: {outcome.error}")
    return notebook


def digest(path: Path) -> str:
    """Return the fingerprint of all that the outputs of a notebook depend on: not of its prose."""
    root = path.resolve().parents[2]
    lesson = root / "lessons" / path.stem
    checks, cells = lesson / "checks.py", fingerprint.code(path)
    texts = [fingerprint.source(cell) for cell in cells]
    texts += [checks.read_text(encoding="utf-8")] if checks.is_file() else []
    files = [checks, lesson / "recorded.json", root / "data" / "index.toml"]
    files += fingerprint.imported(texts)
    about = (fingerprint.about_code(cells), fingerprint.environment())
    return fingerprint.of(files, *about, root=root)
