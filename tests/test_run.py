"""Running notebooks: parameters, results and failures; recording, keeping and measuring them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from quartet import QuartetError, fingerprint, run
from quartet import executed as cache
from quartet.build import build, check
from quartet.cli import app
from quartet.executed import executed
from quartet.record import record
from utils.tracks import TRACKS

Edit = Callable[[str, str, str], Path]

RECORD = "from utils import parity\n\nparity.record(elsewhere=1e-6, loss=[1 / 3, 2], name='x')"


@pytest.fixture
def built(course: Path) -> Path:
    build(root=course)
    return course


def execute(folder: Path, *sources: str, **options: float) -> tuple[run.Outcome, list]:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    return run.execute(notebook, folder, **options), notebook.cells


def text(path: Path) -> str:
    """Return what the cells of a notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def test_a_notebook_runs_in_its_folder_and_is_measured(tmp_path: Path) -> None:
    calls: list[int] = []
    hog = "import time, os; x = bytearray(200 * 2**20); print(os.getcwd()); time.sleep(0.5)"
    notebook = new_notebook(cells=[new_code_cell(hog), new_code_cell("1")])
    outcome = run.execute(notebook, tmp_path, on_cell=lambda: calls.append(1))
    assert outcome.error == "" and len(calls) == 2
    assert notebook.cells[0].outputs[0].text.strip() == str(tmp_path)
    assert outcome.seconds > 0.5 and 200 < outcome.peak_mib < 400


def test_memory_of_child_processes_counts(tmp_path: Path) -> None:
    child = "x = bytearray(200 * 2**20); import time; time.sleep(3)"
    outcome, _ = execute(
        tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    assert outcome.peak_mib > 200


def test_a_failing_cell_is_named_with_its_first_line_and_error(tmp_path: Path) -> None:
    outcome, cells = execute(tmp_path, "x = 1", "y = 2\nraise ValueError('boom')", "z = 3")
    assert outcome.error == f"cell {cells[1].id!r} (`y = 2`): ValueError: boom"
    assert cells[2].execution_count is None


def test_a_kernel_that_dies_is_told_and_does_not_hang(tmp_path: Path) -> None:
    outcome, _ = execute(tmp_path, "import os; os._exit(1)")
    assert "the kernel died: it crashed, was killed, or memory ran out" in outcome.error


def test_a_cell_that_takes_too_long_is_told(tmp_path: Path) -> None:
    outcome, _ = execute(tmp_path, "import time; time.sleep(600)", timeout=1)
    assert "it ran for more than 1 seconds" in outcome.error and outcome.seconds < 600


def test_an_exception_that_is_meant_does_not_stop_the_notebook(tmp_path: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("1 / 0"), new_code_cell("print('on')")])
    notebook.cells[0].metadata.tags = ["raises-exception"]
    assert run.execute(notebook, tmp_path).error == ""
    assert notebook.cells[1].outputs[0].text == "on\n"


def test_runs_of_all_tracks_are_shown_and_saved(built: Path, tmp_path: Path, capsys) -> None:
    runs = run.run(["01"], root=built, out=tmp_path / "out", parameters={"SEED": 5})
    assert [(r.lesson, r.track) for r in runs] == [("01_tiny", track) for track in TRACKS]
    assert all(text(r.result) == "7\n" for r in runs)
    assert runs[0].result == tmp_path / "out" / "keras" / "01_tiny.ipynb"
    shown = capsys.readouterr().out
    for word in ("seconds", "peak MiB", "tensorflow", "01_tiny", "ok", "4/4"):
        assert word in shown


def test_a_result_can_be_html_and_a_solution(built: Path, tmp_path: Path) -> None:
    runs = run.run(["01"], ["jax"], root=built, out=tmp_path, kind="solution", html=True)
    assert [each.result for each in runs] == [tmp_path / "jax" / "01_tiny.html"]
    page = runs[0].result.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "Return twice x" in page


def test_the_built_notebook_is_left_as_it_is(built: Path, tmp_path: Path) -> None:
    run.run(["01"], ["jax"], root=built, out=tmp_path, parameters={"SEED": 5})
    assert check(root=built) == []


def test_after_a_failure_the_others_run_and_the_partial_result_is_kept(
    course: Path, edit: Edit, tmp_path: Path, capsys
) -> None:
    edit("lesson.md", "total = 1 + 1  # keras", "print('so far')\ntotal = 1 / 0")
    build(root=course)
    out = tmp_path / "out"
    (out / "keras").mkdir(parents=True)
    (out / "keras" / "01_tiny.ipynb").write_text("an older result")
    runs = run.run(["01"], ["keras", "jax"], root=course, out=out)
    assert "cell 'add' (`print('so far')`): ZeroDivisionError" in runs[0].outcome.error
    assert runs[1].outcome.error == "" and "failed" in capsys.readouterr().out
    assert [p.name for p in (out / "keras").iterdir()] == ["01_tiny.failed.ipynb"]
    assert text(runs[0].result) == "so far\n"


def test_an_unknown_parameter_is_refused_with_the_known_ones(built: Path, tmp_path: Path) -> None:
    message = "notebooks/keras/01_tiny.ipynb has no parameter 'SED'. It has SEED."
    with pytest.raises(QuartetError, match=message):
        run.run(["01"], root=built, out=tmp_path / "out", parameters={"SED": 1})
    assert not (tmp_path / "out").exists()


def test_an_unknown_track_and_a_notebook_not_built_are_refused(course: Path) -> None:
    with pytest.raises(QuartetError, match="no track 'theano'. Choose among keras, pytorch"):
        run.find_notebooks(["01"], ["theano"], root=course)
    with pytest.raises(QuartetError, match="01_tiny.ipynb is missing. Run `quartet build 01`"):
        run.find_notebooks(["01"], root=course)


@pytest.mark.parametrize(
    ("given", "value"),
    [("1", 1), ("1e-3", 0.001), ("False", False), ("true", True), ("None", None), ("adam", "adam")],
)
def test_values_are_read_as_python_reads_them(given: str, value: object) -> None:
    assert run.parse_value(given) == value
    assert type(run.parse_value(given)) is type(value)


def test_the_command_takes_parameters_in_two_words(monkeypatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(run, "run", lambda *about: seen.append(about) or [])
    words = "run 03 --track jax -p SEED 1 --parameter FAST False -p NAME a=b --html --out here"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    parameters = {"SEED": 1, "FAST": False, "NAME": "a=b"}
    assert seen == [(["03"], ["jax"], parameters, Path("here"), "notebook", True)]


@pytest.mark.parametrize("words", ["run 03 -p", "run 03 -p SEED", "run 03 -p 1SEED 3"])
def test_half_a_parameter_is_refused(words: str, monkeypatch) -> None:
    monkeypatch.setattr(run, "run", lambda *about: [])
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code != 0
    assert result.stderr and "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    monkeypatch.setattr(run, "run", lambda *about: (tmp_path / "out" / "x").mkdir())
    result = CliRunner().invoke(app, ["run", "01"])
    assert result.exit_code == 1
    assert result.stderr.startswith("A file cannot be read or written: [Errno 20]")


def test_the_command_fails_if_a_notebook_fails(monkeypatch) -> None:
    bad = run.Run("01_tiny", "jax", run.Outcome(1, 1, "cell 'add': boom"), Path("x.failed.ipynb"))
    monkeypatch.setattr(run, "run", lambda *about: [bad])
    result = CliRunner().invoke(app, ["run", "01"])
    assert result.exit_code == 1
    assert result.stderr == "x.failed.ipynb: cell 'add': boom\n"


def prepare_recording(edit: Edit) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", f"total = 2\n{RECORD}")
    checked = "```{code-cell}\n:tags: [nbval-check-output]\n:name: shown\n\ntotal\n```\n\n## Recap"
    edit("lesson.md", "## Recap", checked)


def test_record_stores_numbers_and_outputs_builds_and_repeats_to_the_byte(
    course: Path, edit: Edit
) -> None:
    prepare_recording(edit)
    written = record(["01"], root=course)
    path = course / "lessons/01_tiny/recorded.json"
    assert written[0] == path.relative_to(course) and len(written) == 14
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert list(stored) == sorted(TRACKS) and stored["keras"]["numbers"] == {}
    assert stored["jax"]["numbers"] == {"loss": [0.333333333, 2.0], "name": "x"}
    output = stored["jax"]["outputs"]["shown"]["outputs"][0]
    assert output["data"] == {"text/plain": "2"} and output["execution_count"] is None
    notebook = nbformat.read(course / "notebooks/jax/01_tiny.ipynb", as_version=4)
    cell = next(each for each in notebook.cells if each.id == "shown")
    assert cell.execution_count == cell.outputs[0].execution_count == 3
    nbformat.validate(notebook)
    before = path.read_bytes()
    assert record(["01"], root=course) == [path.relative_to(course)] and path.read_bytes() == before


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("1 / 0", "01_tiny fails in jax, nothing is recorded: .*ZeroDivisionError"),
        (
            "total = 2\n" + RECORD.replace("1 / 3", "float('nan')"),
            "01_tiny fails in jax, nothing is recorded: .*loss holds NaN or infinity",
        ),
    ],
)
def test_nothing_is_recorded_if_a_track_fails(
    new: str, message: str, course: Path, edit: Edit
) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", new)
    with pytest.raises(QuartetError, match=message):
        record(["01"], root=course)
    assert not (course / "lessons/01_tiny/recorded.json").exists()
    assert not list(course.rglob("*.ipynb"))


def test_a_checked_cell_that_shows_nothing_is_refused(course: Path, edit: Edit) -> None:
    edit("lesson.md", "[keras]\n:name", "[keras, nbval-check-output]\n:name")
    with pytest.raises(QuartetError, match="the checked cell 'add' shows nothing. Print something"):
        record(["01"], root=course)


def test_executed_runs_a_notebook_once(built: Path, monkeypatch) -> None:
    path = built / "notebooks/jax/01_tiny.ipynb"
    first = executed(path)
    assert first.cells[-2].outputs[0].text == "2\n"
    monkeypatch.setattr(cache, "_execute", lambda path: pytest.fail("it ran again"))
    assert executed(path) == first


def test_executed_has_the_prose_of_now(built: Path, edit: Edit, monkeypatch) -> None:
    path = built / "notebooks/jax/01_tiny.ipynb"
    executed(path)
    monkeypatch.setattr(cache, "_execute", lambda path: pytest.fail("it ran again"))
    edit("lesson.md", "One sum, four ways.", "Four sums.")
    edit("lesson.md", "It is two.", "It is two.\n\n## So\n\nOne more heading.")
    edit("lesson.md", "Addition, step by step.", "")
    build(root=built)
    found = executed(path)
    there = nbformat.read(path, as_version=4)
    assert [cell.source for cell in found.cells] == [cell.source for cell in there.cells]
    (last,) = [cell for cell in found.cells if cell.source == "print(total + SEED)"]
    assert last.outputs[0].text == "2\n" and last.execution_count == 3


def test_executed_runs_again_when_something_it_depends_on_changed(
    built: Path, edit: Edit, monkeypatch
) -> None:
    path = built / "notebooks/jax/01_tiny.ipynb"
    places = {cache.place(path)}
    for old, new in (("1 + 1  # jax", "2  # jax"), (":tags: [jax]", ":tags: [jax, compare]")):
        edit("lesson.md", old, new)
        build(root=built)
        places.add(cache.place(path))
    checks = built / "lessons/01_tiny/checks.py"
    checks.write_text(checks.read_text() + "\n")
    places.add(cache.place(path))
    (built / "lessons/01_tiny/recorded.json").write_text("{}")
    places.add(cache.place(path))
    (built / "data").mkdir()
    (built / "data/index.toml").write_text("")
    places.add(cache.place(path))
    monkeypatch.setattr(fingerprint, "environment", lambda: "of another machine")
    places.add(cache.place(path))
    assert len(places) == 7


def test_executed_runs_again_when_a_module_of_ours_that_it_uses_changed(
    built: Path, edit: Edit, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "copy")
    (tmp_path / "copy/utils").mkdir(parents=True)
    for name in ("__init__", "data", "code", "checks"):
        (tmp_path / f"copy/utils/{name}.py").write_text("")
    edit("lesson.md", "total = 1 + 1  # jax", "from utils import data")
    edit("checks.py", "from types", "import utils.checks\nfrom types")
    build(root=built)
    path = built / "notebooks/jax/01_tiny.ipynb"
    places = [cache.place(path)]
    for name in ("data", "checks", "code"):
        (tmp_path / f"copy/utils/{name}.py").write_text("x = 1")
        places.append(cache.place(path))
    assert len(set(places)) == 3 and places[2] == places[3]


def test_what_is_edited_while_a_notebook_runs_does_not_count_as_run(built: Path) -> None:
    path, checks = built / "notebooks/jax/01_tiny.ipynb", built / "lessons/01_tiny/checks.py"
    with cache.lock(path) as kept:
        checks.write_text(checks.read_text() + "\n")
        cache.store(kept, nbformat.read(path, as_version=4))
    assert kept.is_file() and not cache.place(path).is_file()


def test_only_the_newest_execution_is_kept(built: Path) -> None:
    path = built / "notebooks/jax/01_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for _ in range(2):
        cache.store(cache.place(path), notebook)
        (built / "lessons/01_tiny/recorded.json").write_text("{}")
    assert len(list((built / ".quartet/executed").glob("*.ipynb"))) == 1


def test_executed_tells_which_cell_failed_and_keeps_nothing(course: Path, edit: Edit) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", "total = 1 / 0")
    build(root=course)
    with pytest.raises(QuartetError, match="notebooks/jax/01_tiny.ipynb: cell 'add'.*ZeroDivision"):
        executed(course / "notebooks/jax/01_tiny.ipynb")
    assert not list((course / ".quartet/executed").glob("*.ipynb"))
