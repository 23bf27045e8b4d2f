"""JAX finds in a new kernel what an earlier one compiled; keyed, bounded, private, can be off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quartet import compiled

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


COMPILE = """
import jax, jax.numpy as jnp
for rows in range(2, 8):
    jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(jnp.ones((rows, 4)))
"""


def test_what_was_used_least_recently_makes_room(home: Path, monkeypatch) -> None:
    def size_kept() -> int:
        command = [sys.executable, "-c", COMPILE]
        subprocess.run(command, env=os.environ | compiled.settings(), check=True)
        return sum(path.stat().st_size for path in home.rglob("*-cache"))

    whole = size_kept()
    shutil.rmtree(home)
    monkeypatch.setattr(compiled, "MAX_BYTES", whole // 2)
    assert 0 < size_kept() <= whole // 2


def test_the_switch(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert compiled.settings()["JAX_COMPILATION_CACHE_DIR"] == str(home / compiled.key())
    assert int(compiled.settings()["JAX_COMPILATION_CACHE_MAX_SIZE"]) == compiled.MAX_BYTES
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
