"""What is handed out to a class holds no answers, and its checks still answer if they are to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from quartet import QuartetError
from quartet.grading.release import release
from utils import checks
from utils.tracks import ROOT, TRACKS

LESSON = "03_dense_layers"
ASK = """
import numpy as np
from utils import checks
check = checks.load("03_dense_layers", "jax")
right = check("parameter_count", lambda sizes, bias: sum(
    a * b + bias * b for a, b in zip(sizes[:-1], sizes[1:])))
print(right.points, check("parameter_count", lambda *args: 7).points, check("deeper", len))
"""


def asked(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env={"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_release_holds_exercises_and_no_answers(tmp_path: Path) -> None:
    out = tmp_path / "handout"
    written = release(["03"], out)
    assert [path.relative_to(out).as_posix() for path in written] == [
        f"exercises/{track}/{LESSON}.ipynb" for track in TRACKS
    ]
    for path in written:
        same = ROOT / path.relative_to(out)
        assert path.read_text(encoding="utf-8") == same.read_text(encoding="utf-8")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert not [n for n in names if n.startswith("solutions") or n.endswith(("checks.py", ".md"))
                and n.startswith("lessons")]  # fmt: skip
    assert "START.ipynb" in names and f"notebooks/jax/{LESSON}.ipynb" in names
    assert "0 of 1 points" not in asked(out) and "checked when it is handed in" in asked(out)


def test_a_self_check_answers_from_cases(tmp_path: Path) -> None:
    release(["03"], tmp_path, self_check=True)
    said = asked(tmp_path)
    assert said.startswith("1 0.0 ") or said.startswith("1.0 0.0 ")
    assert "checked when it is handed in" in said  # `deeper` is judged by its accuracy
    raw = (tmp_path / "lessons" / LESSON / checks.CASES).read_bytes()
    assert b"import" not in raw and b"def " not in raw


def test_no_line_of_a_solution_is_handed_out(tmp_path: Path) -> None:
    release(["03"], tmp_path, self_check=True)
    solved = {line for track in TRACKS for line in _lines("solutions", track)}
    given = {line for track in TRACKS for line in _lines("exercises", track)}
    ours = {line.strip() for path in (ROOT / "utils").glob("*.py") for line in path.open()}
    secret = {line for line in solved - given - ours if len(line) > 25}
    assert len(secret) > 20
    rest = [folder for folder in tmp_path.iterdir() if folder.name != "notebooks"]  # which teach
    files = [path for folder in rest for path in [folder, *folder.rglob("*")]]
    files = [path for path in files if path.is_file() and path.suffix != ".npz"]
    handed_out = b"\n".join(path.read_bytes() for path in files)
    assert [line for line in secret if json.dumps(line)[1:-1].encode() in handed_out] == []


def _lines(folder: str, track: str) -> set[str]:
    notebook = nbformat.read(ROOT / folder / track / f"{LESSON}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return {line.strip() for source in code for line in source.splitlines()}


def test_a_release_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(QuartetError, match="is not empty"):
        release(["03"], tmp_path)


def test_cases_handed_out_are_those_of_the_self_check(tmp_path: Path, monkeypatch) -> None:
    whole = checks.load_exercises(LESSON)["dense_forward"].cases(np.random.default_rng(0))
    release(["03"], tmp_path, self_check=True)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    handed_out = checks.load_exercises(LESSON)["dense_forward"].cases(np.random.default_rng(5))
    for ours, theirs in zip(whole, handed_out, strict=True):
        np.testing.assert_equal(theirs.args, ours.args)
        np.testing.assert_array_equal(theirs.expected, ours.expected)
