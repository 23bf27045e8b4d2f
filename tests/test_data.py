"""Data sets load with their checksum verified, and say clearly what is wrong when it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils import data
from utils.data import DATA, DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("index.toml", "fashion_mnist.npz"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


def test_fashion_mnist_is_what_its_page_says() -> None:
    clothes = data.load("fashion_mnist")
    assert clothes["x_train"].shape == (10_000, 28, 28) and clothes["x_train"].dtype == np.uint8
    assert clothes["x_test"].shape == (2_000, 28, 28)
    assert set(np.bincount(clothes["y_train"])) == {1000} and set(
        np.bincount(clothes["y_test"])
    ) == {200}
    assert len(clothes.classes) == 10 and clothes.classes[9] == "Ankle boot"
    assert "MIT" in clothes.license


def test_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(DataError, match="No data set is named 'mnist'. Known: fashion_mnist"):
        data.load("mnist", folder)


def test_a_missing_file_says_how_to_get_it(folder: Path) -> None:
    (folder / "fashion_mnist.npz").unlink()
    with pytest.raises(DataError, match="is missing. Restore it with `git checkout"):
        data.load("fashion_mnist", folder)


def test_the_full_set_says_how_to_make_it(folder: Path) -> None:
    with pytest.raises(DataError, match="make_fashion_mnist.py --full"):
        data.load("fashion_mnist_full", folder)


@pytest.mark.parametrize("at", [0, 1000, -1])
def test_one_changed_byte_is_noticed(folder: Path, at: int) -> None:
    path = folder / "fashion_mnist.npz"
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is damaged"):
        data.load("fashion_mnist", folder)


def test_every_data_set_is_described_with_its_checksum() -> None:
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for name, entry in data._index(DATA).items():
        assert f"`{entry['file']}`" in page or f"## {name}" in page
        assert entry["sha256"] in page or "not in git" in entry["recipe"]


def test_a_table_has_its_columns_with_what_is_missing() -> None:
    penguins, concrete = data.load("penguins"), data.load("concrete")
    assert len(penguins.arrays) == 8 and len(concrete.arrays) == 10
    assert set(penguins["sex"]) == {"female", "male", ""} and (penguins["sex"] == "").sum() == 11
    assert np.isnan(penguins["body_mass_g"]).sum() == 2 and penguins["year"].dtype == np.float64
    assert len(np.unique(concrete["mix_id"])) == 427 and len(concrete["age"]) == 1030


def test_a_text_comes_line_by_line() -> None:
    lines = data.load("austen")["lines"]
    assert lines[0] == "PRIDE AND PREJUDICE" and len(lines) == 12_846


@pytest.mark.parametrize("script", ["make_fashion_mnist.py", "make_tables.py"])
def test_the_recipe_refuses_a_wrong_folder(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(DATA / script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "does not hold" in done.stderr


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_recipe_makes_the_same_arrays(tmp_path: Path) -> None:
    script = [sys.executable, str(DATA / "make_fashion_mnist.py"), "--out", str(tmp_path)]
    subprocess.run([*script, str(DEBIAN)], check=True)
    made, kept = np.load(tmp_path / "fashion_mnist.npz"), np.load(DATA / "fashion_mnist.npz")
    assert all(np.array_equal(made[name], kept[name]) for name in kept.files)


def test_who_changes_an_array_changes_it_for_nobody_else() -> None:
    first = data.load("fashion_mnist")
    first["x_train"][:] = 7
    assert data.load("fashion_mnist")["x_train"].min() == 0
