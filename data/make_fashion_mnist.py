"""Make data/fashion_mnist.npz again from Debian's package `dataset-fashion-mnist`.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb unpacked
    python data/make_fashion_mnist.py unpacked/usr/share/datasets/fashion-mnist
    python data/make_fashion_mnist.py --full unpacked/usr/share/datasets/fashion-mnist

With `--full` all 70,000 images go to data/fashion_mnist_full.npz, which git ignores; a lesson then
takes them with `-p DATA fashion_mnist_full`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

CLASSES = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split() + [
    "Ankle boot"
]
PER_CLASS = {"train": 1000, "test": 200}
PREFIX = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an IDX file: 2 zero bytes, type 8, the rank, then the sizes."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an IDX file of bytes.")
    sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 28, 28) uint8 and labels (n,) uint8 of "train" or "test"."""
    stem = PREFIX[split]
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
    return images, read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")


def stratified(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Return shuffled indices with `per_class` of each of the ten labels."""
    chosen = [
        rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in range(10)
    ]
    return rng.permutation(np.concatenate(chosen))


def collect(folder: Path, full: bool) -> dict[str, np.ndarray]:
    """Return the arrays of the file by name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        x, y = read_split(folder, split)
        keep = slice(None) if full else stratified(y, PER_CLASS[split], rng)
        arrays |= {f"x_{split}": x[keep], f"y_{split}": y[keep]}
    return arrays | {"classes": np.array(CLASSES)}


def main() -> None:
    """Write the file and print its checksum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the four *-ubyte.gz files are")
    parser.add_argument("--full", action="store_true", help="all 70,000 images")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="target folder")
    options = parser.parse_args()
    missing = [s for s in PREFIX.values() if not list(options.folder.glob(f"{s}-*-ubyte.gz"))]
    if missing:
        sys.exit(f"{options.folder} does not hold the package's files; --help says where they are.")
    target = options.out / f"fashion_mnist{'_full' if options.full else ''}.npz"
    np.savez_compressed(target, **collect(options.folder, options.full))
    print(f"{target}: sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
