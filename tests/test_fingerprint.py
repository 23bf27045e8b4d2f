"""A fingerprint changes with what it stands for, by content, and with nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quartet import fingerprint
from utils.tracks import ROOT


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of our packages in their place, which a test may edit."""
    for name in fingerprint.PACKAGES:
        without = shutil.ignore_patterns(*fingerprint.NO_SOURCES)
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=without)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "copy")
    return tmp_path / "copy"


def names(*sources: str) -> set[str]:
    """Return the files that sources import, as names in the project."""
    found = fingerprint.imported(sources)
    return {path.relative_to(fingerprint.ROOT).as_posix() for path in found}


PARITY = {f"utils/{name}.py" for name in ("__init__", "parity", "plots", "tables", "tracks")}


@pytest.mark.parametrize(
    "source",
    [
        "from utils import parity",
        "from utils import parity as p, plots",
        "from utils import (\n    parity,  # the same numbers\n    plots,\n)",
        "import utils.parity",
        "from utils.parity import record",
        "def later():\n    from utils import parity",
        "%timeit -n1 1\n!ls\nfrom utils import parity",
        "this is (no Python\nfrom utils import parity",
        "run([sys.executable, '-m', 'utils.parity'])",
        "kernel.run('from utils import parity')",
    ],
)
def test_what_a_source_imports_is_found_with_what_that_imports(source: str) -> None:
    assert names(source) == PARITY


@pytest.mark.parametrize("source", ["from torch.utils.data import Dataset", "x.utils.parity", ""])
def test_utils_of_others_are_not_ours(source: str) -> None:
    assert names(source) == set()


def test_a_folder_of_modules_comes_as_a_whole_but_nothing_that_was_installed(copy: Path) -> None:
    installed = copy / "utils" / "browser" / "node_modules" / "tfjs" / "index.js"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    found = names("from utils.browser import visitors")
    expected = {"utils/browser/package.json", "utils/browser/page/index.html"}
    assert expected | {"utils/browser/server.py", "utils/serving/load.py"} <= found
    assert not [name for name in found if "node_modules" in name or "__pycache__" in name]


def test_a_module_of_quartet_brings_what_it_needs() -> None:
    found = names("from quartet.source import read_course")
    assert found == {
        *("quartet/__init__.py", "quartet/source.py"),
        *("utils/__init__.py", "utils/tracks.py"),
    }


def test_content_and_name_count_and_dates_do_not(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    missing = fingerprint.of([file], root=tmp_path)
    file.write_text("1")
    before = fingerprint.of([file], root=tmp_path)
    os.utime(file, (0, 0))
    assert fingerprint.of([file, file], root=tmp_path) == before
    other.write_text("1")
    file_moved = fingerprint.of([other], root=tmp_path)
    file.write_text("2")
    edited = fingerprint.of([file], root=tmp_path)
    said = fingerprint.of([file], "more", root=tmp_path)
    assert len({missing, before, file_moved, edited, said}) == 5
    both = [fingerprint.of(paths, root=tmp_path) for paths in ([file, other], [other, file])]
    assert both[0] == both[1] != edited


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    there = [path for path in (tmp_path / "config").iterdir() if path.is_file()]
    here = [ROOT / "config" / path.name for path in there]
    assert fingerprint.of(there, root=tmp_path) == fingerprint.of(here)


def test_without_a_descriptor_nothing_is_taken_for_missing(tmp_path: Path, monkeypatch) -> None:
    def fails(number: int) -> Callable[[Path], bytes]:
        def read(path: Path) -> bytes:
            raise OSError(number, os.strerror(number))

        return read

    monkeypatch.setattr(Path, "read_bytes", fails(errno.ENOENT))
    fingerprint.of([tmp_path / "a"])
    monkeypatch.setattr(Path, "read_bytes", fails(errno.EMFILE))
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        fingerprint.of([tmp_path / "a"])


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that packages are installed in, as far as a fingerprint knows."""
    folder = tmp_path / "site-packages"
    (folder / "onnx-1.0.dist-info").mkdir(parents=True)
    (folder / "onnx").mkdir()
    monkeypatch.setattr(fingerprint.sysconfig, "get_path", lambda name: str(folder))
    return folder


def test_any_package_counts(packages: Path) -> None:
    places = [fingerprint.environment()]
    (packages / "onnx" / "cache.pyc").write_text("")
    assert fingerprint.environment() == places[0]
    (packages / "onnx-1.0.dist-info").rename(packages / "onnx-1.1.dist-info")
    places.append(fingerprint.environment())
    (packages / "ours.pth").write_text("/here")
    places.append(fingerprint.environment())
    (packages / "ours.pth").write_text("/there")
    places.append(fingerprint.environment())
    assert len(set(places)) == 4


def test_what_vanishes_while_pip_is_at_work_does_no_harm(packages: Path, monkeypatch) -> None:
    (packages / "gone.pth").symlink_to(packages / "nothing")
    folder = packages / "etc" / "ipython"
    folder.mkdir(parents=True)
    (folder / "gone.py").symlink_to(packages / "nothing")
    monkeypatch.setattr(sys, "prefix", str(packages))
    assert fingerprint.environment()


def test_the_settings_of_kernels_count(copy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    places = [fingerprint.environment()]
    for name, text in (
        ("etc/ipython/ipython_config.py", "from quartet import lighter"),
        ("copy/quartet/lighter.py", "x = 1"),
        (".keras/keras.json", "{}"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        places.append(fingerprint.environment())
    assert len(set(places)) == 4


@pytest.mark.parametrize("name", fingerprint.SETTINGS)
def test_each_variable_that_changes_numbers_counts(name: str, monkeypatch) -> None:
    monkeypatch.delenv(name, raising=False)
    unset = fingerprint.environment()
    monkeypatch.setenv(name, fingerprint.SETTINGS[name])
    assert fingerprint.environment() == unset, "a kernel has this value anyway"
    monkeypatch.setenv(name, "other")
    assert fingerprint.environment() != unset


SET_UP = """
import json, os, sys
from unittest.mock import MagicMock
get_config = MagicMock
exec(open(sys.argv[1]).read())
print(json.dumps(dict(os.environ)))
"""


def test_kernels_have_the_values_that_are_taken_for_usual() -> None:
    env = {name: value for name, value in os.environ.items() if name not in fingerprint.SETTINGS}
    command = [sys.executable, "-c", SET_UP, ROOT / "config" / "ipython_kernel_config.py"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert {n: found.get(n, "") for n in fingerprint.SETTINGS} == fingerprint.SETTINGS
