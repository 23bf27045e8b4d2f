"""The notebooks work in nbgrader, too: its own validate and autograde count the right points."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.validator import Validator
from traitlets.config import Config

from quartet.grading.release import release
from utils import checks
from utils.tracks import ROOT, TRACKS

LESSON, TRACK, FOLDER = "03_dense_layers", "jax", "week_1"
SOLUTION = ROOT / "solutions" / TRACK / f"{LESSON}.ipynb"
SLOW = "deeper"  # trains a network
QUICK = "01_tensors"  # trains none
PATIENT = Config()
PATIENT.Execute.timeout = PATIENT.ExecutePreprocessor.timeout = 120  # seconds for each cell
PATIENT.Execute.iopub_timeout = PATIENT.ExecutePreprocessor.iopub_timeout = 60

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("track", TRACKS)
def test_nbgrader_validates_a_solution_and_names_what_is_missing(
    track: str, tmp_path: Path
) -> None:
    path = tmp_path / track / f"{QUICK}.ipynb"  # nbgrader goes there: a track's kernel is warm
    path.parent.mkdir()
    shutil.copy(ROOT / "solutions" / track / path.name, path)
    assert Validator(config=PATIENT).validate(str(path)) == {}
    shutil.copy(ROOT / "exercises" / track / path.name, path)
    failed = Validator(config=PATIENT).validate(str(path))["failed"]
    assert len(failed) == len(checks.load_exercises(QUICK))
    assert "not written yet" in failed[0]["error"]


def test_nbgrader_gives_all_some_and_no_points(tmp_path: Path) -> None:
    config = Config(PATIENT)
    config.CourseDirectory.root = str(tmp_path)
    source = tmp_path / "source" / FOLDER
    source.mkdir(parents=True)
    shutil.copy(SOLUTION, source)
    api = NbGraderAPI(config=config)
    made = api.generate_assignment(FOLDER)
    assert made["success"], made
    answers = {
        "ada": {},
        "bob": {
            "parameter_count": "def parameter_count(sizes, bias):\n    return 101_770",
            "dense_forward": "def dense_forward(x, W, b):\n    return x",
        },
    }
    for learner, written in answers.items():
        folder = tmp_path / "submitted" / learner / FOLDER
        shutil.copytree(tmp_path / "release" / FOLDER, folder)
        hand_in(folder / SOLUTION.name, written)
        graded = api.autograde(FOLDER, learner)
        assert graded["success"], graded["log"]
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        scores = {name: book.find_submission(FOLDER, name).score for name in answers}
    assert scores == {"ada": 8, "bob": 5.25}  # of bob's count, one case of four is right


def test_nbgrader_validates_what_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = release(["03"], tmp_path / "handout", self_check=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "handout"))  # not this copy, with its answers
    (path,) = (path for path in written if path.parent.name == TRACK)
    names = [name for name in checks.load_exercises(LESSON) if name != SLOW]
    assert len(Validator(config=PATIENT).validate(str(path))["failed"]) >= len(names)
    hand_in(path, {})
    failed = Validator(config=PATIENT).validate(str(path)).get("failed", [])
    assert len(failed) <= 1 and all(SLOW in each["source"] for each in failed)
    hand_in(path, {"dense_forward": "def dense_forward(x, W, b):\n    return x"})
    failed = [each["source"] for each in Validator(config=PATIENT).validate(str(path))["failed"]]
    assert any("dense_forward" in source for source in failed)


def hand_in(path: Path, written: dict[str, str]) -> None:
    """Write the solutions but the slow one into a released notebook, or what is given instead."""
    solved = {cell.id: cell.source for cell in nbformat.read(SOLUTION, as_version=4).cells}
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in solved and name != SLOW:
            cell.source = written.get(name, solved[name])
    nbformat.write(notebook, path)
