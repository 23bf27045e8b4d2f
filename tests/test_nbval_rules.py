"""Each thing that nbval lets pass in silence fails with our plugin, and sound notebooks pass."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from quartet import executed as cache
from quartet.build import build
from quartet.executed import executed
from utils.tracks import ROOT

CHECKED, RAISES = "nbval-check-output", "raises-exception"
TWO_WORKERS = ("-n", "2", "--dist", "loadfile")


@dataclass(frozen=True)
class Done:
    """A finished run of pytest: its status, what it printed, and the outcome of each cell."""

    status: int
    text: str
    cells: dict[str, list[tuple[str, str]]]

    def outcomes(self, notebook: str) -> list[str]:
        return [outcome for outcome, _ in self.cells[notebook]]

    def reason(self, notebook: str, number: int) -> str:
        return self.cells[notebook][number][1]


def pytest_run(folder: Path, *options: str, plugin: bool = True) -> Done:
    """Run nbval over a folder in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["--junitxml=report.xml", *options, *(["-p", "quartet.nbval_rules"] * plugin)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    cells: dict[str, list[tuple[str, str]]] = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        problem = next((each for each in case if each.tag in ("failure", "skipped", "error")), None)
        outcome = "passed" if problem is None else problem.tag
        text = "" if problem is None else f"{problem.get('message')}\n{problem.text}"
        name = case.get("classname", "").split(".")[0]
        cells.setdefault(name, []).append((outcome, text))
    return Done(done.returncode, done.stdout + done.stderr, cells)


def code(source: str, *tags: str, printed: str = "", count: int | None = None) -> dict:
    outputs = [new_output("stream", text=printed)] if printed else []
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, metadata=metadata, outputs=outputs, execution_count=count)


def wrong_exception() -> dict:
    cell = code("1 / 0", RAISES, CHECKED, count=1)
    cell.outputs = [new_output("error", ename="KeyError", evalue="1", traceback=[])]
    return cell


def write(folder: Path, notebooks: dict[str, list[dict]]) -> Path:
    for name, cells in notebooks.items():
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    return folder


NOTEBOOKS = {
    "sound": [
        code("x = 1"),
        code("print(x)", CHECKED, printed="1\n", count=2),
        code("1 / 0", RAISES),
    ],
    "dead": [code("1"), code("import os; os._exit(1)"), code("2")],
    "fails": [code("x = 1 / 0"), code("print(x)"), code("y = x")],
    "slow": [code("import time; time.sleep(60)"), code("1")],
    "stripped": [code("print(1)", CHECKED)],
    "stripped_output": [code("print(1)", CHECKED, count=1)],
    "stripped_count": [code("print(1)", CHECKED, printed="1\n")],
    "comment": [code("# NBVAL_CHECK_OUTPUT\nprint(1)")],
    "differs": [code("print(2)", CHECKED, printed="1\n", count=1)],
    "raised_nothing": [code("1", RAISES)],
    "wrong_exception": [wrong_exception()],
    "semicolon": [code("print(1)\n2;", CHECKED, printed="1\n", count=1)],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All notebooks above, run with the plugin by two workers."""
    folder = write(tmp_path_factory.mktemp("plugin"), NOTEBOOKS)
    return pytest_run(folder, "--nbval-lax", "--nbval-cell-timeout", "15", *TWO_WORKERS)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same notebooks without the plugin."""
    folder = write(tmp_path_factory.mktemp("bare"), NOTEBOOKS)
    options = ("--nbval-lax", "--nbval-cell-timeout", "15", *TWO_WORKERS)
    return pytest_run(folder, *options, plugin=False)


def test_a_sound_notebook_passes(done: Done) -> None:
    assert done.outcomes("sound") == ["passed"] * 3


def test_a_dead_kernel_fails_at_once_and_is_named(done: Done, bare: Done) -> None:
    assert done.outcomes("dead") == ["passed", "failure", "skipped"]
    message = "The kernel died in this cell: it crashed, was killed, or memory ran out."
    assert message in done.reason("dead", 1) and "Timeout" not in done.reason("dead", 1)
    assert "Timeout of 15 seconds" in bare.reason("dead", 1), "nbval alone waits"


def test_after_a_failure_the_later_cells_are_skipped_and_say_why(done: Done, bare: Done) -> None:
    assert done.outcomes("fails") == ["failure", "skipped", "skipped"]
    reason = "fails.ipynb: cell 0 failed before: Cell execution caused an exception"
    assert reason in done.reason("fails", 1) and reason in done.reason("fails", 2)
    summary = next(line for line in done.text.splitlines() if reason in line)
    assert summary.startswith("SKIPPED [2]"), "without any option"
    assert bare.outcomes("fails") == ["failure"] * 3


def test_a_cell_that_takes_too_long_fails_and_the_rest_is_skipped(done: Done) -> None:
    assert done.outcomes("slow") == ["failure", "skipped"]
    assert "Timeout of 15 seconds exceeded" in done.reason("slow", 0)


@pytest.mark.parametrize("name", ["stripped", "stripped_output", "stripped_count", "comment"])
def test_a_checked_cell_without_stored_output_fails(name: str, done: Done) -> None:
    assert done.outcomes(name) == ["failure"]
    assert "This cell's output is to be checked, but none is stored" in done.reason(name, 0)


def test_nbval_alone_lets_stripped_outputs_pass(bare: Done) -> None:
    assert bare.outcomes("stripped") == bare.outcomes("comment") == ["passed"]


def test_a_stripped_output_fails_where_all_outputs_are_compared_too(tmp_path: Path) -> None:
    write(tmp_path, {name: NOTEBOOKS[name] for name in ("stripped", "stripped_count")})
    done = pytest_run(tmp_path, "--nbval")
    for name in done.cells:
        assert "none is stored" in done.reason(name, 0)


def test_a_checked_output_that_differs_fails(done: Done) -> None:
    assert "Cell outputs differ" in done.reason("differs", 0)


def test_a_cell_that_should_raise_and_does_not_fails(done: Done, bare: Done) -> None:
    message = "This cell is tagged `raises-exception`, but it raised nothing."
    assert message in done.reason("raised_nothing", 0)
    assert bare.outcomes("raised_nothing") == ["passed"]


def test_a_checked_exception_must_be_the_one_that_is_stored(done: Done) -> None:
    reason = done.reason("wrong_exception", 0)
    assert "KeyError" in reason and "ZeroDivisionError" in reason


def test_a_semicolon_hides_the_result_as_in_jupyterlab(done: Done, bare: Done) -> None:
    assert done.outcomes("semicolon") == ["passed"]
    assert bare.outcomes("semicolon") == ["failure"]


def test_a_notebook_without_code_fails(tmp_path: Path) -> None:
    write(tmp_path, {"text": [new_markdown_cell("Only text.")]})
    done = pytest_run(tmp_path, "--nbval-lax")
    assert done.status != 0 and "text.ipynb has no code cell: nothing would be run" in done.text


@pytest.mark.parametrize("options", [(), TWO_WORKERS])
def test_a_notebook_of_which_no_cell_ran_fails_the_suite(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    skipped = [code("1", "nbval-skip"), code("2", "nbval-skip")]
    write(tmp_path, {"idle": skipped, "busy": [code("1")]})
    done = pytest_run(tmp_path, "--nbval-lax", *options)
    assert done.outcomes("idle") == ["skipped"] * 2 and done.outcomes("busy") == ["passed"]
    assert done.status == 1 and "FAILED idle.ipynb: none of its cells ran" in done.text
    assert "FAILED busy.ipynb" not in done.text


def test_what_passed_is_kept_with_all_its_outputs_and_what_failed_is_not(
    course: Path, edit: Callable[[str, str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    show = (
        "from IPython.display import display\n\n"
        'display({"application/vnd.quartet.record+json": {"total": 2}}, raw=True)\ntotal'
    )
    edit("lesson.md", "print(total + SEED)", show)
    edit("lesson.md", "total = 1 + 1  # torch", "total = 1 / 0")
    build(root=course)
    pytest_run(course, "--nbval-lax", *TWO_WORKERS, "notebooks")
    kept = sorted(path.name for path in (course / ".quartet/executed").glob("*.ipynb"))
    assert [name.split(".")[0] for name in kept] == [
        f"notebooks-{track}-01_tiny" for track in ("jax", "keras", "tensorflow")
    ]
    monkeypatch.setattr(cache, "_execute", lambda path: pytest.fail("it ran again"))
    notebook = executed(course / "notebooks/jax/01_tiny.ipynb")
    nbformat.validate(notebook)
    recorded, result = notebook.cells[-2].outputs
    assert recorded.data == {"application/vnd.quartet.record+json": {"total": 2}}
    assert result.data == {"text/plain": "2"} and result.execution_count == 3
