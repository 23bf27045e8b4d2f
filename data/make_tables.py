"""Make concrete.csv, penguins.csv and austen.txt again from three Debian packages of R data.

apt-get download r-cran-modeldata r-cran-palmerpenguins r-cran-janeaustenr
for package in r-cran-*.deb; do dpkg-deb -x $package unpacked; done
pip install rdata
python data/make_tables.py unpacked/usr/lib/R/site-library
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import lzma
import re
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("modeldata", "palmerpenguins", "janeaustenr")
AGE, STRENGTH = "age", "compressive_strength"  # the other columns of the table are the mixture


def read_lazy(library: Path, package: str, name: str) -> Any:
    """Return one object of an R package: Rdata.rdx says where in Rdata.rdb it is."""
    import rdata

    base = library / package / "data"
    start, length = rdata.read_rds(base / "Rdata.rdx")["variables"][name]
    raw = (base / "Rdata.rdb").read_bytes()[start : start + length]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a tibble is taken for a data frame
        return rdata.conversion.convert(rdata.parser.parse_data(_decompressed(raw)))


def _decompressed(raw: bytes) -> bytes:
    """Undo R's compression: 4 bytes of size, then zlib, or the letter Z and raw LZMA2."""
    if raw[4:5] == b"Z":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(raw[5:])
    return zlib.decompress(raw[4:])


def concrete(library: Path, target: Path) -> None:
    """Write the table with one more column: the number of the mixture, in order of appearance."""
    table = read_lazy(library, "modeldata", "concrete")
    mixture = [name for name in table.columns if name not in (AGE, STRENGTH)]
    seen: dict[tuple[float, ...], int] = {}
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*table.columns, "mix_id"])
        for row in table.to_dict("records"):
            mix = seen.setdefault(tuple(row[name] for name in mixture), len(seen))
            writer.writerow([*(float(value) for value in row.values()), mix])


def penguins(library: Path, target: Path) -> None:
    """Copy the table that the package ships."""
    shutil.copyfile(library / "palmerpenguins" / "extdata" / "penguins.csv", target)


def austen(library: Path, target: Path) -> None:
    """Write the book without the underscores that mark stress and without double blank lines."""
    text = "\n".join(read_lazy(library, "janeaustenr", "prideprejudice")).replace("_", "")
    target.write_text(re.sub(r"\n{3,}", "\n\n", text) + "\n", encoding="utf-8", newline="\n")


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "concrete.csv": concrete,
    "penguins.csv": penguins,
    "austen.txt": austen,
}


def main() -> None:
    """Write the files and print their checksums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path, help="the folder that holds the unpacked R packages")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="target folder")
    options = parser.parse_args()
    missing = [name for name in PACKAGES if not (options.library / name).is_dir()]
    if missing:
        sys.exit(
            f"{options.library} does not hold {', '.join(missing)}; --help says how to get it."
        )
    for name, make in MAKERS.items():
        target = options.out / name
        make(options.library, target)
        print(f"{target}: sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
