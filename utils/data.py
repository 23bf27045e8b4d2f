"""The data sets in `data/` as NumPy arrays, each checked against its checksum before use."""

from __future__ import annotations

import csv
import functools
import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.tracks import ROOT

DATA = ROOT / "data"
MISSING = "NA"  # how a table says that a value is not known


class DataError(RuntimeError):
    """A data set that is unknown, missing or damaged; the message says what to do about it."""


@dataclass(frozen=True)
class Dataset:
    """Arrays of one data set and where they come from.

    `arrays` holds each array under its name in the file; `classes` names the labels in order and
    is empty where there are none. `origin`, `license` and `sha256` come from `data/index.toml`.
    """

    name: str
    title: str
    origin: str
    license: str
    sha256: str
    arrays: dict[str, np.ndarray] = field(repr=False)
    classes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]


def names(folder: Path = DATA) -> list[str]:
    """List the data sets that `load` knows, in the order of `data/index.toml`."""
    return list(_index(folder))


def load(name: str, folder: Path = DATA) -> Dataset:
    """Return a data set with its checksum verified.

    Parameters
    ----------
    name : one of `names()`, such as "fashion_mnist".
    folder : where `index.toml` and the files are.

    Returns
    -------
    Dataset with the file's arrays; see `data/README.md` for their shapes and dtypes. A table (CSV)
    has one array for each column: float64 with NaN where a number is missing, or str with "" where
    a text is. A text file has one array, `lines`, of str.

    Raises
    ------
    DataError if the name is not known, the file is missing, or its bytes are not the recorded ones.
    """
    index = _index(folder)
    if name not in index:
        raise DataError(f"No data set is named {name!r}. Known: {', '.join(index)}.")
    entry = index[name]
    path = folder / entry["file"]
    _verify(path, entry)
    arrays = {key: array.copy() for key, array in _read(path, entry["sha256"]).items()}
    classes = tuple(str(label) for label in arrays.pop("classes", ()))
    about = {key: entry[key] for key in ("title", "origin", "license", "sha256")}
    return Dataset(name=name, arrays=arrays, classes=classes, **about)


@functools.lru_cache(maxsize=4)
def _read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return a file's arrays; checks ask for the same data again and again."""
    return _READERS[path.suffix](path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return {
        name: _column(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)
    }


def _column(cells: Sequence[str]) -> np.ndarray:
    """Return the cells as numbers if all of them are numbers or missing, else as text."""
    cells = ["" if cell == MISSING else cell for cell in cells]
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return np.array(cells)


def _read_text(path: Path) -> dict[str, np.ndarray]:
    return {"lines": np.array(path.read_text(encoding="utf-8").splitlines())}


_READERS = {".npz": _read_npz, ".csv": _read_csv, ".txt": _read_text}


def _index(folder: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads((folder / "index.toml").read_text(encoding="utf-8"))


def _verify(path: Path, entry: dict[str, str]) -> None:
    """Raise DataError unless the file is there with the recorded bytes."""
    remedy = f"Restore it with `git checkout -- data/{path.name}`, or {entry['recipe']}."
    if not path.is_file():
        raise DataError(f"The data file {path} is missing. {remedy}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry["sha256"]:
        raise DataError(
            f"The data file {path} is damaged: its SHA-256 is {digest[:12]}…, "
            f"data/index.toml says {entry['sha256'][:12]}…. {remedy}"
        )
