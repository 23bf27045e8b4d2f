"""What is built: the same bytes each time, links that lead on, exercises nbgrader accepts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbgrader.preprocessors import CheckCellMetadata
from typer.testing import CliRunner

from quartet import build as builder
from quartet.build import build, check
from quartet.cli import app
from quartet.source import Problem, Refused, fingerprint
from utils.tracks import ROOT, TRACKS

Edit = Callable[[str, str, str], Path]
EXERCISE = "exercises/jax/01_tiny.ipynb"


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def cell(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    return next(each for each in notebook.cells if each.id == name)


def solve(path: Path) -> str:
    """Write a learner's answer into an exercise notebook; return the text of the file."""
    notebook = read(path)
    cell(notebook, "double").source = "def double(x):\n    return x + x"
    nbformat.write(notebook, path)
    return path.read_text(encoding="utf-8")


def messages(course: Path) -> list[str]:
    return [str(problem) for problem in check(root=course)]


def add_second_lesson(course: Path) -> None:
    folder = course / "lessons" / "02_next"
    folder.mkdir()
    text = (course / "lessons/01_tiny/lesson.md").read_text(encoding="utf-8")
    text = text.replace("title: Tiny", "title: Next").replace("requires: []", "requires: [01_tiny]")
    (folder / "lesson.md").write_text(text, encoding="utf-8")


def test_a_lesson_gives_twelve_notebooks_and_the_start_page(course: Path) -> None:
    written = {path.as_posix() for path in build(root=course)}
    folders = ("notebooks", "exercises", "solutions")
    made = {f"{folder}/{track}/01_tiny.ipynb" for folder in folders for track in TRACKS}
    assert written == made | {"START.ipynb"}


def test_two_processes_with_other_hash_seeds_build_the_same_bytes(course: Path) -> None:
    code = (
        "from pathlib import Path; from quartet.build import build; "
        f"build(root=Path({str(course)!r}))"
    )

    def digest(seed: str) -> dict[str, str]:
        for old in course.rglob("*.ipynb"):
            old.unlink()
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        files = sorted(course.rglob("*.ipynb"))
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    first = digest("1")
    assert len(first) == 13 and digest("2") == first


def test_what_is_in_step_is_not_written_again(course: Path) -> None:
    build(root=course)
    before = {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")}
    assert build(root=course) == []
    assert {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")} == before
    assert check(root=course) == []


def test_a_built_notebook_is_valid_and_unrun(course: Path) -> None:
    for path in build(root=course):
        notebook = read(course / path)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.display_name == "Python 3 (ipykernel)"
        assert notebook.metadata.language_info.version == "3"
        code = [each for each in notebook.cells if each.cell_type == "code"]
        assert all(each.execution_count is None and not each.outputs for each in code)


def test_a_notebook_holds_its_track_and_the_shared_cells_only(course: Path) -> None:
    build(root=course)
    for track, rival in (("jax", "# keras"), ("keras", "# jax")):
        notebook = read(course / f"notebooks/{track}/01_tiny.ipynb")
        assert cell(notebook, "add").source.endswith(f"# {track}")
        assert not any(rival in each.source for each in notebook.cells)
        about = {"lesson": "01_tiny", "track": track, "kind": "notebook"}
        assert notebook.metadata.quartet == about


def test_tags_that_tools_use_are_kept_and_tracks_are_not(course: Path, edit: Edit) -> None:
    edit("lesson.md", "[jax]", "[jax, compare]")
    build(root=course)
    notebook = read(course / "notebooks/jax/01_tiny.ipynb")
    assert cell(notebook, "tiny-2").metadata.tags == ["parameters"]
    assert cell(notebook, "add").metadata.tags == ["compare"]


def test_header_and_footer_say_what_the_front_matter_says(course: Path) -> None:
    add_second_lesson(course)
    build(root=course)
    notebook = read(course / "notebooks/jax/02_next.ipynb")
    assert [each.id for each in notebook.cells][:2] == ["tiny-1", "header"]
    header, footer = cell(notebook, "header").source, notebook.cells[-1].source
    assert header.startswith("**JAX** · about 5 minutes · part 1 Foundations")
    assert "- add two numbers\n- name a track\n- read a table" in header
    assert "It builds on [Tiny](01_tiny.ipynb)." in header
    assert "Before: [Tiny](01_tiny.ipynb)" in footer and "exercises" not in footer
    first = read(course / "notebooks/jax/01_tiny.ipynb")
    assert "Next: [Next](02_next.ipynb)" in first.cells[-1].source
    assert "[exercises](../../exercises/jax/01_tiny.ipynb)" in first.cells[-1].source


def test_every_link_of_a_built_notebook_leads_to_a_file(course: Path) -> None:
    add_second_lesson(course)
    count = 0
    for path in build(root=course):
        for each in read(course / path).cells:
            for target in re.findall(r"\]\(([^)#:]+)\)", each.source):
                assert (course / path.parent / target).resolve().is_file(), f"{path}: {target}"
                count += 1
    assert count > 100


def test_the_table_of_lessons_stands_in_readme_and_start(course: Path) -> None:
    readme = course / "README.md"
    readme.write_text("Top\n<!-- lessons -->\nold\n<!-- /lessons -->\nEnd\n", encoding="utf-8")
    build(root=course)
    row = "| 01 Tiny | 5 | [lesson](notebooks/keras/01_tiny.ipynb) · [exercises](exercises/keras/"
    text = readme.read_text(encoding="utf-8")
    assert row in text and "old" not in text and text.startswith("Top\n") and text.endswith("End\n")
    assert any(row in each.source for each in read(course / "START.ipynb").cells)
    assert build(root=course) == []


def test_nbgrader_accepts_the_exercises(course: Path) -> None:
    build(root=course)
    for track in TRACKS:
        for folder in ("exercises", "solutions"):
            notebook = read(course / f"{folder}/{track}/01_tiny.ipynb")
            CheckCellMetadata().preprocess(notebook, {})
            marked = [each for each in notebook.cells if "nbgrader" in each.metadata]
            ids = [each.metadata.nbgrader.grade_id for each in marked]
            assert ids == ["double", "double-check", "halve", "halve-check"]
            assert [each.id for each in marked] == ids
            points = [each.metadata.nbgrader.get("points") for each in marked]
            assert points == [None, 1, None, 2]


def test_solutions_are_cleared_and_given_code_takes_the_place_of_the_stub(course: Path) -> None:
    build(root=course)
    exercise, solution = (
        read(course / f"{f}/jax/01_tiny.ipynb") for f in ("exercises", "solutions")
    )
    stub = '    """Return twice x."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    assert cell(exercise, "double").source == f"def double(x):\n{stub}"
    given = "def halve(x):\n    half = x // 2\n    return half"
    assert cell(exercise, "halve").source == given
    solved = "def halve(x):\n    ### BEGIN SOLUTION\n    return x / 2\n    ### END SOLUTION"
    assert cell(solution, "halve").source == solved


def test_only_the_lessons_named_are_built(course: Path) -> None:
    add_second_lesson(course)
    written = {path.as_posix() for path in build(["02"], root=course)}
    assert written == {f"notebooks/{track}/02_next.ipynb" for track in TRACKS} | {"START.ipynb"}


def record_output(course: Path, edit: Edit) -> None:
    """Mark a cell as checked and store an output for it in all tracks."""
    edit(
        "lesson.md", "```{code-cell}\nprint(", "```{code-cell}\n:tags: [nbval-check-output]\nprint("
    )
    output = {"name": "stdout", "output_type": "stream", "text": "2\n"}
    entry = {"source_sha256": fingerprint("print(total + SEED)"), "outputs": [output]}
    stored = {track: {"numbers": {}, "outputs": {"recap-2": entry}} for track in TRACKS}
    path = course / "lessons/01_tiny/recorded.json"
    path.write_text(json.dumps(stored), encoding="utf-8")


def test_a_checked_cell_takes_its_recorded_output_and_its_number(course: Path, edit: Edit) -> None:
    record_output(course, edit)
    build(root=course)
    for track in TRACKS:
        notebook = read(course / f"notebooks/{track}/01_tiny.ipynb")
        assert cell(notebook, "recap-2").outputs[0].text == "2\n"
        assert cell(notebook, "recap-2").execution_count == 3
        assert cell(notebook, "add").execution_count is None


def test_an_output_of_an_older_source_is_refused(course: Path, edit: Edit) -> None:
    record_output(course, edit)
    edit("lesson.md", "print(total", "print(1 * total")
    with pytest.raises(Refused, match="the cell has changed since. Run `quartet record 01`"):
        build(root=course)


def test_a_learners_work_is_not_overwritten(course: Path, edit: Edit) -> None:
    build(root=course)
    work = solve(course / EXERCISE)
    edit("exercises.md", "Double a number.", "Double any number.")
    with pytest.raises(
        Refused, match=f"{EXERCISE}:1: Someone has worked in this notebook.*--force"
    ):
        build(root=course)
    assert (course / EXERCISE).read_text(encoding="utf-8") == work
    other = read(course / "exercises/keras/01_tiny.ipynb")
    assert "any number" not in cell(other, "double-1").source, "nothing is half-written"


def test_work_is_found_also_where_cells_were_added_or_the_file_is_broken(course: Path) -> None:
    build(root=course)
    notebook = read(course / EXERCISE)
    notebook.cells.append(nbformat.v4.new_markdown_cell("My notes"))
    nbformat.write(notebook, course / EXERCISE)
    broken = course / "exercises/keras/01_tiny.ipynb"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(Refused) as refused:
        build(root=course)
    assert len(refused.value.problems) == 2


def test_an_exercise_that_was_only_run_is_built_anew(course: Path) -> None:
    build(root=course)
    clean = (course / EXERCISE).read_text(encoding="utf-8")
    notebook = read(course / EXERCISE)
    cell(notebook, "double-check").outputs = [nbformat.v4.new_output("stream", text="0 points")]
    nbformat.write(notebook, course / EXERCISE)
    assert build(root=course) == [Path(EXERCISE)]
    assert (course / EXERCISE).read_text(encoding="utf-8") == clean


def test_force_resets_an_exercise(course: Path) -> None:
    build(root=course)
    solve(course / EXERCISE)
    assert build(root=course, force=True) == [Path(EXERCISE)]
    assert check(root=course) == []


def test_check_reports_what_is_missing_and_writes_nothing(course: Path) -> None:
    found = messages(course)
    assert len(found) == 13 and not list(course.rglob("*.ipynb"))
    assert "START.ipynb:1: This file is missing. Run `quartet build`." in found


def test_check_reports_a_hand_edited_notebook_with_its_line(course: Path) -> None:
    build(root=course)
    path = course / "notebooks/jax/01_tiny.ipynb"
    text = path.read_text(encoding="utf-8")
    line = 1 + text.splitlines().index('    "It is two."')
    path.write_text(text.replace("It is two.", "It is 2."), encoding="utf-8")
    assert messages(course) == [
        f"notebooks/jax/01_tiny.ipynb:{line}: This file differs from its source: it is out of date "
        "or was edited by hand. Edit the source in lessons/ and run `quartet build`."
    ]


def test_check_reports_a_changed_source(course: Path, edit: Edit) -> None:
    build(root=course)
    edit("lesson.md", "It is two.", "It is 2.")
    assert len(messages(course)) == 4


def test_check_reports_strays_but_not_a_learners_own_copies(course: Path) -> None:
    build(root=course)
    text = (course / EXERCISE).read_text(encoding="utf-8")
    strays = ["notebooks/jax/00_old.ipynb", "notebooks/x.ipynb", "solutions/jax/old/01_tiny.ipynb"]
    for stray in [*strays, "exercises/jax/Untitled.ipynb"]:
        (course / stray).parent.mkdir(parents=True, exist_ok=True)
        (course / stray).write_text(text, encoding="utf-8")
    (course / "exercises/jax/01_tiny.mine.ipynb").write_text(text, encoding="utf-8")
    (course / "exercises/jax/.ipynb_checkpoints").mkdir()
    (course / "exercises/jax/.ipynb_checkpoints/01_tiny-checkpoint.ipynb").write_text(text)
    found = messages(course)
    assert [line.partition(":")[0] for line in found] == sorted(
        [*strays, "exercises/jax/Untitled.ipynb"]
    )
    assert all("No lesson makes this notebook. Remove it" in line for line in found)


def test_check_tells_an_exercise_that_someone_works_in(course: Path) -> None:
    build(root=course)
    solve(course / EXERCISE)
    message = (
        f"{EXERCISE}:1: Someone has worked in this exercise. `quartet build --force` resets it."
    )
    assert messages(course) == [message]


def test_a_file_is_written_whole_or_not_at_all(course: Path, monkeypatch) -> None:
    build(root=course)
    path = course / "START.ipynb"
    before = path.read_text(encoding="utf-8")

    def fail(*about: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(builder.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        builder.write(path, "new")
    assert path.read_text(encoding="utf-8") == before
    assert not list(course.glob(".START*"))


def test_the_command_shows_refusals_on_stderr_without_a_traceback() -> None:
    command = [sys.executable, "-m", "quartet.cli", "build", "99_none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("There is no lesson '99_none'.")
    assert "Traceback" not in done.stderr


def test_the_command_check_fails_if_something_is_not_in_step(monkeypatch) -> None:
    problem = Problem(Path("notebooks/jax/01_tiny.ipynb"), 1, "This file is missing.")
    monkeypatch.setattr(builder, "check", lambda names: [problem])
    result = CliRunner().invoke(app, ["build", "--check"])
    assert result.exit_code == 1
    assert result.stderr == "notebooks/jax/01_tiny.ipynb:1: This file is missing.\n"
    monkeypatch.setattr(builder, "check", lambda names: [])
    result = CliRunner().invoke(app, ["build", "--check"])
    assert (result.exit_code, result.stdout) == (0, "Everything is in step.\n")


def test_the_command_says_how_to_install_what_building_needs(monkeypatch) -> None:
    def fail(*about: object, **more: object) -> None:
        raise ModuleNotFoundError("No module named 'jupytext'", name="jupytext")

    monkeypatch.setattr(builder, "build", fail)
    result = CliRunner().invoke(app, ["build"])
    assert result.exit_code == 1
    assert result.stderr.startswith("This needs jupytext, which is not installed. Run `pip install")


def test_help_needs_none_of_the_slow_imports() -> None:
    code = "import sys, quartet.cli; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    slow = ("nbformat", "numpy", "papermill", "jupytext", "nbgrader")
    assert not any(f"'{module}'" in done.stdout for module in slow)
