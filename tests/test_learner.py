"""A learner's commands: check, hint, reset and solution, in a copy of the course's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from quartet import QuartetError, exercises, learner
from quartet.build import serialize
from quartet.cli import app
from quartet.source import lesson_names
from utils import checks, progress
from utils.tracks import ROOT, TRACKS

LESSON, TRACK = "03_dense_layers", "jax"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return the root of a course that holds lesson 03 only, for a learner to work in."""
    (tmp_path / "lessons").mkdir()
    shutil.copytree(ROOT / "lessons" / LESSON, tmp_path / "lessons" / LESSON)
    for folder in ("exercises", "solutions"):
        for track in TRACKS:
            (tmp_path / folder / track).mkdir(parents=True)
            name = f"{folder}/{track}/{LESSON}.ipynb"
            shutil.copy(ROOT / "solutions" / track / f"{LESSON}.ipynb", tmp_path / name)
            if folder == "exercises":
                fresh = exercises.original(nbformat.read(tmp_path / name, as_version=4))
                (tmp_path / name).write_text(serialize(fresh), encoding="utf-8")
    return tmp_path


@pytest.fixture
def write(desk: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a learner's answer into a cell."""

    def answer(name: str, source: str) -> Path:
        path = desk / "exercises" / TRACK / f"{LESSON}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        next(cell for cell in notebook.cells if cell.id == name).source = source
        path.write_text(serialize(notebook), encoding="utf-8")
        return path

    return answer


@pytest.mark.parametrize("lesson", lesson_names())
@pytest.mark.parametrize("track", TRACKS)
def test_a_solution_notebook_remembers_what_was_handed_out(lesson: str, track: str) -> None:
    solution = nbformat.read(ROOT / "solutions" / track / f"{lesson}.ipynb", as_version=4)
    fresh = exercises.original(solution)
    handed_out = json.loads((ROOT / "exercises" / track / f"{lesson}.ipynb").read_text())
    if not exercises.edited(handed_out):  # else someone has worked in it
        assert serialize(fresh) == serialize(nbformat.from_dict(handed_out))
    assert not exercises.edited(fresh)


def test_nothing_is_checked_before_work_has_begun(desk: Path) -> None:
    with pytest.raises(QuartetError, match="None of these exercises has been worked in"):
        learner.check(root=desk)


@pytest.mark.slow
def test_the_check_grades_what_was_worked_in(desk: Path, write: Callable, capsys) -> None:
    write("parameter_count", "def parameter_count(sizes, bias):\n    return 7")
    write("dense_forward", "def dense_forward(x, W, b):\n    return jax.nn.relu(x @ W + b)")
    (done,) = learner.check(root=desk)
    points = {result.exercise: result.points for result in done.grade.results}
    assert points == dict.fromkeys(points, 0) | {"dense_forward": 2}
    shown = capsys.readouterr().out
    assert "dense_forward" in shown and "2 of 2" in shown and "2 of 10" in shown


def test_a_broken_notebook_is_named(desk: Path, write: Callable, capsys) -> None:
    path = desk / "exercises" / TRACK / f"{LESSON}.ipynb"
    path.write_text("{\n<<<<<<< HEAD\n")
    (done,) = learner.check(root=desk)
    assert "line 2 is a mark of a merge conflict" in done.problem
    assert "merge" in capsys.readouterr().out


def test_hints_come_one_by_one(desk: Path) -> None:
    said = [learner.hint("03", "parameter_count", desk) for _ in range(4)]
    assert said[0].startswith("Hint 1 of 3: ") and said[1].startswith("Hint 2 of 3: ")
    assert said[2] == said[3] and len(set(said)) == 3
    with pytest.raises(QuartetError, match="has no exercise 'count'. It has: dense_forward"):
        learner.hint("03", "count", desk)
    with pytest.raises(QuartetError, match="There is no lesson '99'"):
        learner.hint("99", "count", desk)


def test_a_reset_keeps_the_work(desk: Path, write: Callable) -> None:
    assert learner.reset("03", TRACK, desk)[1] is None
    fresh = (desk / "exercises" / TRACK / f"{LESSON}.ipynb").read_text()
    for number, name in enumerate((".mine.ipynb", ".mine-2.ipynb")):
        path = write("parameter_count", f"# attempt {number}")
        worked = path.read_text()
        found, kept = learner.reset("03", TRACK, desk)
        assert found == path and path.read_text() == fresh
        assert kept.name == LESSON + name and kept.read_text() == worked


def test_a_solution_is_shown_after_an_attempt_or_when_asked_twice(
    desk: Path, write: Callable
) -> None:
    with pytest.raises(QuartetError, match="You have not tried parameter_count in jax yet"):
        learner.solution("03", "parameter_count", TRACK, desk)
    assert "zip" in learner.solution("03", "parameter_count", TRACK, desk)
    write("dense_forward", "def dense_forward(x, W, b):\n    return x")
    assert "relu" in learner.solution("03", "dense_forward", TRACK, desk)


def test_progress_is_read_from_the_saved_notebooks(desk: Path) -> None:
    assert "No check has been passed yet" in progress.show(desk).data
    path = desk / "exercises" / TRACK / f"{LESSON}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for name, points in (("dense_forward", 2), ("parameter_count", 0.5)):
        shown = {checks.MIME: {"exercise": name, "points": points, "max_points": 2}}
        output = nbformat.v4.new_output("display_data", data=shown)
        next(cell for cell in notebook.cells if cell.id == f"{name}-check").outputs = [output]
    nbformat.write(notebook, path)
    shown = progress.show(desk).data
    assert f"| {LESSON} | - | - | - | 2.5 of 10 |" in shown
    assert f"Next: [{LESSON} in JAX](exercises/jax/{LESSON}.ipynb), 7.5 points to go." in shown
    path.write_text("broken")
    assert "No check has been passed yet" in progress.show(desk).data


def test_the_commands_say_what_is_wrong() -> None:
    run = CliRunner().invoke
    for command in (["hint", "03", "x"], ["solution", "03", "x", "-t", "jax"], ["check", "99"]):
        done = run(app, command)
        assert (
            done.exit_code == 1 and done.exception is None or isinstance(done.exception, SystemExit)
        )
    assert run(app, ["reset", "03", "-t", "mxnet"]).exit_code == 1
