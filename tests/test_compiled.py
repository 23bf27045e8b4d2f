"""JAX finds in a new kernel what an earlier one compiled; keyed, bounded, private, can be off."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from quartet import compiled
from quartet.run import execute

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the cache is on on Linux only")

COUNT = """
import os, time
from jax._src import monitoring
hits = []
monitoring.register_event_listener(lambda event, **about: hits.append(event))
import jax, jax.numpy as jnp
total = jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(jnp.arange(12.0).reshape(3, 4) / 12)
print(float(total).hex(), sum(event.endswith("cache_hits") for event in hits))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("QUARTET_JIT_CACHE", raising=False)
    return tmp_path / "quartet" / "jax"


def test_a_second_process_compiles_nothing_and_gets_the_same_number() -> None:
    env = os.environ | compiled.settings()

    def run() -> tuple[str, int]:
        done = subprocess.run([sys.executable, "-c", COUNT], env=env, capture_output=True)
        number, hits = done.stdout.decode().split()
        return number, int(hits)

    (first, none), (second, hits) = run(), run()
    assert (first, none) == (second, 0) and hits > 0


def test_what_was_compiled_first_makes_room_once_a_day(home: Path, monkeypatch) -> None:
    folder = compiled.make_folder()
    for age, name in enumerate(("newest", "middle", "oldest")):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compiled, "MAX_BYTES", 250)
    compiled.make_folder()
    assert (folder / "oldest").exists(), "it was looked at today"
    os.utime(folder / compiled.STAMP, (1e9, 1e9))
    compiled.make_folder()
    left = {path.name for path in folder.iterdir()}
    assert left == {"newest", "middle", compiled.STAMP}


def test_a_program_that_is_half_written_is_compiled_without_a_word(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTET_WARM", "0")
    notebook = new_notebook(cells=[new_code_cell(COUNT)])
    assert execute(notebook, tmp_path).error == ""
    number = notebook.cells[0].outputs[0].text.split()[0]
    programs = list(home.rglob("*-cache"))
    for path in programs:
        path.write_bytes(path.read_bytes()[:-20])
    assert programs and execute(notebook, tmp_path).error == ""
    assert [output.text.split() for output in notebook.cells[0].outputs] == [[number, "0"]]


def test_the_switch(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert compiled.settings()["JAX_COMPILATION_CACHE_DIR"] == str(home / compiled.key())
    assert "JAX_COMPILATION_CACHE_MAX_SIZE" not in compiled.settings(), "see compiled.py"
    monkeypatch.setenv("QUARTET_JIT_CACHE", "0")
    assert compiled.settings() == {}


def test_the_key_tells_version_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    key = compiled.key()
    monkeypatch.setattr(compiled, "version", lambda package: "9.9")
    assert compiled.key() == "9.9-" + key.rpartition("-")[2]
    monkeypatch.setattr(Path, "read_text", lambda self: "flags : sse\nbogomips : 1\n")
    assert compiled.key() != "9.9-" + key.rpartition("-")[2]


def test_a_folder_that_others_can_write_into_is_not_used(home: Path) -> None:
    folder = compiled.make_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert compiled.settings() == {}


def test_no_folder_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiled.settings() == {}


def test_folders_of_other_versions_go_when_unused_for_long(home: Path) -> None:
    for name, days in (("old", compiled.DAYS + 1), ("other", 1)):
        (home / name).mkdir(parents=True)
        (home / name / "entry").write_text("")
        then = time.time() - days * 86400
        os.utime(home / name, (then, then))
    compiled.make_folder()
    assert not (home / "old").exists() and (home / "other" / "entry").exists()
