"""The data sets in `data/` as NumPy arrays, each checked against its checksum before use."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.tracks import ROOT

DATA = ROOT / "data"


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
    Dataset with the file's arrays; see `data/README.md` for their shapes and dtypes.

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
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    classes = tuple(str(label) for label in arrays.pop("classes", ()))
    about = {key: entry[key] for key in ("title", "origin", "license", "sha256")}
    return Dataset(name=name, arrays=arrays, classes=classes, **about)


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
