"""The proof itself: its order, its costs, its end when a worker dies, and its closing words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from quartet.proof import __main__ as proof
from quartet.proof import cost, order
from quartet.warm.client import ForkedProcess
from utils.tracks import ROOT

LESSONS = ["03_dense_layers", "04_defining_models"]
GIB = 2**30


@pytest.mark.parametrize(
    ("nodeid", "lesson", "stage"),
    [
        ("notebooks/jax/03_dense_layers.ipynb::Cell 4", "03_dense_layers", "notebooks"),
        ("solutions/keras/04_defining_models.ipynb::Cell 0", "04_defining_models", "solutions"),
        ("tests/test_parity.py::test_x[03_dense_layers-jax]", "03_dense_layers", "parity"),
        ("tests/test_controls.py::test_x[03_dense_layers: a b]", "03_dense_layers", "controls"),
        ("tests/test_lesson_04.py::test_x", "04_defining_models", "its tests"),
        ("tests/test_warm.py::test_x[jax]", "", "tests/test_warm.py"),
        ("tests/test_warm.py::test_x[12_of_something]", "", "tests/test_warm.py"),
    ],
)
def test_each_test_has_its_place_in_the_table(nodeid: str, lesson: str, stage: str) -> None:
    assert cost.place(nodeid, LESSONS) == (lesson, stage)


def test_the_table_adds_up_and_says_what_is_too_dear() -> None:
    costs = {
        "notebooks/jax/03_dense_layers.ipynb::Cell 0": 100.0,
        "notebooks/jax/03_dense_layers.ipynb::Cell 1": 50.0,
        "tests/test_parity.py::test_x[03_dense_layers]": 30.0,
        "solutions/jax/04_defining_models.ipynb::Cell 0": 2.5,
        "tests/test_warm.py::test_x": 7.0,
    }
    found = cost.by_lesson(costs, LESSONS)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(cost.lesson_table(found))
    lines = [re.findall(r"[\w.]+", line) for line in console.export_text().splitlines()]
    assert ["lesson", "notebooks", "solutions", "parity", "all"] in lines
    assert ["03_dense_layers", "150.0", "0.0", "30.0", "180", "too", "dear"] in lines
    assert ["04_defining_models", "0.0", "2.5", "0.0", "2"] in lines
    assert ["average", "75.0", "1.2", "15.0", "91", "too", "dear"] in lines
    told = cost.other_lines(found, costs)
    assert told[0] == "Of no lesson: 7 s: tests/test_warm.py 7."
    assert told[1].endswith("Cell 0") and len(told) == 6


def test_a_test_is_charged_for_itself_its_children_and_its_kernels() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    meter = cost.Meter()
    exec(busy, {})  # this process has used more than that already
    assert meter.read() < 0.3
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert meter.read() >= 0.3
    ForkedProcess.processor_seconds += 5
    assert meter.read() >= 5
    ForkedProcess.processor_seconds -= 5


@pytest.mark.parametrize(
    ("processors", "gib", "workers"), [(2, 8, 2), (2, 24, 3), (8, 64, 9), (8, 12, 3), (4, 1, 1)]
)
def test_the_workers_fit_processors_and_memory(
    processors: int, gib: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(processors), raising=False)
    free = SimpleNamespace(available=gib * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert order.workers() == workers


def test_auto_means_so_many_workers(request: pytest.FixtureRequest, monkeypatch) -> None:
    monkeypatch.setattr(order, "workers", lambda: 17)
    config = request.config
    assert config.hook.pytest_xdist_auto_num_workers(config=config) == 17


class Item:
    """A test as far as it is put in order."""

    def __init__(self, nodeid: str, slow: bool = False) -> None:
        self.nodeid, self.slow = nodeid, slow

    def get_closest_marker(self, name: str) -> bool:
        return self.slow


def test_what_is_dear_comes_first_and_what_needs_notebooks_after_them() -> None:
    names = [
        "tests/test_parity.py::test_a[04_defining_models]",
        "tests/test_parity.py::test_a[03_dense_layers]",
        "tests/test_parity.py::test_b[03_dense_layers]",
        "tests/test_quick.py::test_a",
        "tests/test_warm.py::test_a",
        "notebooks/jax/03_dense_layers.ipynb::Cell 0",
        "notebooks/jax/03_dense_layers.ipynb::Cell 1",
    ]
    items = [Item(name, slow="warm" in name) for name in names]
    ordered = [each.nodeid for each in order.in_order(items, LESSONS, {})]
    assert ordered == [names[i] for i in (4, 5, 6, 3, 0, 1, 2)]
    remembered = order.in_order(items, LESSONS, {names[3]: 99, names[0]: 50})
    assert [each.nodeid for each in remembered] == [names[i] for i in (3, 4, 5, 6, 0, 1, 2)]


CRASHES = """
import os, pathlib, pytest

def note(name):
    with open(pathlib.Path(__file__).with_name("ran"), "a") as file:
        file.write(name + "\\n")

@pytest.mark.parametrize("number", range(4))
def test_one(number):
    note(f"{__name__} {number}")
    if (__name__, number) == ("test_a", 1):
        os._exit(3)

def test_fails():
    note(f"{__name__} fails")
    assert not "wrong"
"""


def test_a_test_that_ends_its_worker_is_named_and_costs_no_other(tmp_path: Path) -> None:
    for name in ("test_a", "test_b", "test_c"):
        (tmp_path / f"{name}.py").write_text(CRASHES)
    (tmp_path / "lessons").mkdir()
    options = ["-p", "quartet.proof.plugin", "-n", "2", "--dist", "loadscope"]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", tmp_path, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [*command, tmp_path], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    ran = (tmp_path / "ran").read_text().split("\n")[:-1]
    everything = [f"{m} {n}" for m in ("test_a", "test_b", "test_c") for n in (*range(4), "fails")]
    assert sorted(ran) == sorted(everything), "each once"
    assert done.returncode == 1 and "INTERNALERROR" not in done.stdout
    assert "4 failed, 11 passed" in done.stdout.splitlines()[-1]
    crash = r"^FAILED test_a.py::test_one\[1\] - worker 'gw\d' crashed while running"
    assert len(re.findall(crash, done.stdout, re.M)) == 1
    assert len(re.findall(r"^FAILED test_.\.py::test_fails - ", done.stdout, re.M)) == 3


ALL_STAGES = ["built files", "ruff", "format", "tests"]


def run_stages(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, failing: str = "nothing"
) -> tuple[int, list[str]]:
    """Run the proof with commands that do nothing; return the status and the commands."""
    commands: list[str] = []

    def run(command: tuple[str, ...], quiet: bool = False) -> int:
        commands.append(" ".join(command))
        return int(failing in commands[-1])

    monkeypatch.setattr(proof, "_run", run)
    monkeypatch.setattr(proof, "adopt_orphans", lambda: None)
    return proof.main(arguments), commands


def test_all_stages_run_and_the_verdict_comes_last(monkeypatch, capsys) -> None:
    status, commands = run_stages(monkeypatch)
    shown = capsys.readouterr().out
    assert status == 0 and shown.splitlines()[-1] == "All stages passed."
    assert re.findall("^== (.*)$", shown, re.M) == ALL_STAGES
    assert "-n auto --nbval-lax notebooks solutions tests" in commands[3]
    assert commands[-1] == "quartet kernels stop"


@pytest.mark.parametrize(
    ("failing", "stage"), [("build --check", "built files"), ("pytest", "tests")]
)
def test_a_failing_stage_fails_the_run_and_stops_no_other(
    failing: str, stage: str, monkeypatch, capsys
) -> None:
    status, commands = run_stages(monkeypatch, failing=failing)
    assert status == 1 and len(commands) == 5
    assert capsys.readouterr().out.splitlines()[-1] == f"Failed: {stage}."


def test_fast_leaves_out_the_notebooks_and_an_unknown_kind_is_told(monkeypatch, capsys) -> None:
    _, commands = run_stages(monkeypatch, "fast")
    assert commands[3].endswith("-m not slow tests")
    assert run_stages(monkeypatch, "quick") == (2, [])
    assert "no 'quick'. Choose among whole, fast, changed." in capsys.readouterr().out


def test_a_command_of_the_environment_is_found_and_its_status_told(capfd) -> None:
    assert proof._run(("python", "-c", "import sys; print(sys.executable); sys.exit(3)")) == 3
    assert Path(capfd.readouterr().out.strip()).parent == Path(sys.executable).parent


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")


@on_linux
def test_an_orphan_that_ends_does_not_stay_as_a_zombie() -> None:
    orphan = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '']).pid)"
    code = f"""
import subprocess, sys
from quartet.proof.orphans import adopt_orphans, call
adopt_orphans()
pid = subprocess.run([sys.executable, "-c", {orphan!r}], capture_output=True, text=True).stdout
ask = "import psutil, time\\nwhile psutil.pid_exists(" + pid.strip() + "): time.sleep(0.05)"
print(call([sys.executable, "-c", ask]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "0\n", done.stderr


@on_linux
def test_what_outlives_its_parent_is_counted() -> None:
    busy = "import time; all(time.process_time() < 0.5 for _ in iter(int, 1))"
    code = f"""
import os, resource, subprocess, sys, time
from quartet.proof.orphans import adopt_orphans
adopt_orphans()
start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
subprocess.run([sys.executable, "-c", start, {busy!r}])
os.wait()
print(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) > 0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "True\n", done.stderr
