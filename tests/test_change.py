"""`--changed` leaves out what a change cannot have broken, and nothing else."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quartet import fingerprint
from quartet.build import build
from quartet.proof.change import PROVED, Fingerprints
from utils.tracks import ROOT

Edit = Callable[[str, str, str], Path]

TESTS = {  # file -> its text
    "test_each.py": "# run('01_tiny')",
    "test_named.py": "# 01_tiny",
    "test_all.py": "from quartet.source import lesson_names\n\nlesson_names()",
    "test_root.py": "from utils.tracks import ROOT\n\nROOT / 'README.md'",
    "test_parity.py": "from utils import parity",
    "test_plain.py": "def test_plain():\n    pass  # lesson_names(course), str(ROOT)",
}
UNITS = {  # short name -> unit
    "jax": "notebooks/jax/01_tiny.ipynb",
    "keras": "notebooks/keras/01_tiny.ipynb",
    "solution": "solutions/jax/01_tiny.ipynb",
    "each": "tests/test_each.py[01_tiny]",
    "each, quick": "tests/test_each.py[01_tiny] (quick)",
    "named": "tests/test_named.py",
    "named, quick": "tests/test_named.py (quick)",
    "all": "tests/test_all.py",
    "root": "tests/test_root.py",
    "root, quick": "tests/test_root.py (quick)",
    "parity": "tests/test_parity.py",
    "plain": "tests/test_plain.py",
    "plain, quick": "tests/test_plain.py (quick)",
}
READ_ALL = {"each, quick", "named, quick", "root, quick"}  # of a lesson
CODE = {"each", "named", "all"} | READ_ALL
NOTEBOOKS = {"jax", "keras", "solution"}


@pytest.fixture
def project(course: Path) -> Path:
    """Return a course that is built, and has tests."""
    build(root=course)
    for name, text in TESTS.items():
        (course / "tests").mkdir(exist_ok=True)
        (course / "tests" / name).write_text(text)
    return course


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of our packages in their place, which a test may edit."""
    folder = tmp_path / ".venv"  # no part of the project that lies there
    for name in fingerprint.PACKAGES:
        without = shutil.ignore_patterns(*fingerprint.NO_SOURCES)
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    monkeypatch.setattr(fingerprint, "ROOT", folder)
    return folder


def fingerprints(root: Path) -> dict[str, str]:
    """Return the fingerprints of all units, by their short names."""
    found = Fingerprints(root)
    return {name: found.of(unit) for name, unit in UNITS.items()}


def changed(root: Path, change: Callable[[], object]) -> set[str]:
    """Return the units that a change may have broken."""
    before = fingerprints(root)
    change()
    after = fingerprints(root)
    return {name for name in UNITS if before[name] != after[name]}


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("lesson.md", "One sum, four ways.", "Four sums.", READ_ALL),
        ("lesson.md", "1 + 1  # jax", "2  # jax", CODE | {"jax"}),
        ("lesson.md", "print(total", "print(2 * total", CODE | {"jax", "keras"}),
        ("lesson.md", ":tags: [jax]", ":tags: [jax, raises-exception]", CODE | {"jax"}),
        ("lesson.md", "## Recap", "## Summary", READ_ALL),
        (
            "lesson.md",
            ":name: add\n\ntotal = 1 + 1  # jax",
            ":name: sum\n\ntotal = 1 + 1  # jax",
            CODE,
        ),
        ("exercises.md", "Repair it.", "Mend it.", READ_ALL),
        ("exercises.md", "return 2 * x", "return x + x", CODE | {"solution"}),
        ("exercises.md", "### GIVEN half", "### GIVEN whole", CODE),
        ("checks.py", "points=1", "points=3", CODE | NOTEBOOKS),
    ],
)
def test_an_edit_of_a_lesson(
    file: str, old: str, new: str, expected: set[str], project: Path, edit: Edit
) -> None:
    def change() -> None:
        edit(file, old, new)
        build(root=project)

    assert changed(project, change) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("lessons/01_tiny/recorded.json", CODE | NOTEBOOKS),
        ("lessons/01_tiny/controls.toml", CODE),
        ("docs/page.md", {"root, quick"}),
        ("tools/set_up.py", {"root", "root, quick"}),
        ("tools/__pycache__/set_up.pyc", set()),
        (".quartet/costs.json", set()),
        ("pyproject.toml", {"root", "root, quick"}),
        ("tests/test_plain.py", {"plain", "plain, quick", "root, quick"}),
        ("tests/conftest.py", set(UNITS) - NOTEBOOKS),
        ("tests/helpers.py", set(UNITS) - NOTEBOOKS),
        ("data/index.toml", set(UNITS)),
    ],
)
def test_a_new_file(file: str, expected: set[str], project: Path) -> None:
    def change() -> None:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text("")

    assert changed(project, change) == expected


def test_files_that_git_ignores_do_not_count(project: Path) -> None:
    if not shutil.which("git"):
        pytest.skip("there is no git")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    (project / ".gitignore").write_text("*.log\n")
    assert changed(project, lambda: (project / "a.log").write_text("")) == set()
    assert changed(project, lambda: (project / "a.txt").write_text("")) == {"root, quick"}


def test_an_edit_of_a_module_changes_what_imports_it(project: Path, edit: Edit, ours: Path) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", "from utils import parity")
    build(root=project)

    def change(name: str) -> None:
        path = ours / name
        path.write_text(path.read_text() + "\n")

    assert changed(project, lambda: change("utils/parity.py")) == {"jax", "parity"}
    assert changed(project, lambda: change("quartet/source.py")) == {"all"}
    assert changed(project, lambda: change("quartet/build.py")) == set()


def test_a_package_changes_everything_and_a_date_nothing(project: Path, monkeypatch) -> None:
    packages = project / ".venv"
    packages.mkdir()
    monkeypatch.setattr(fingerprint.sysconfig, "get_path", lambda name: str(packages))
    new = packages / "onnx-1.0.dist-info"
    assert changed(project, new.mkdir) == set(UNITS)
    assert changed(project, lambda: new.rename(packages / "onnx-1.1.dist-info")) == set(UNITS)
    files = [path for path in project.rglob("*") if path.is_file()]
    assert changed(project, lambda: [os.utime(path, (0, 0)) for path in files]) == set()


def test_an_output_that_nbval_compares_counts(project: Path) -> None:
    path = project / UNITS["jax"]

    def change() -> None:
        notebook = json.loads(path.read_text())
        cell = next(each for each in notebook["cells"] if each["cell_type"] == "code")
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
        path.write_text(json.dumps(notebook))

    # Its executed form stays what it is, and so does all that is asked of that.
    assert changed(project, change) == {"jax"} | READ_ALL


OPTIONS = ["-c", os.devnull, "-p", "quartet.nbval_rules", "-p", "quartet.proof.plugin"]
OPTIONS += ["-p", "no:hypothesispytest"]  # it would import all of Hypothesis, for its summary
OPTIONS += ["--import-mode=importlib", "--junitxml=report.xml", "-o", "markers=slow"]


def run(root: Path, *options: str, fork: bool = True) -> tuple[int, list[str], str]:
    """Run pytest in a process of its own; return its status, the files that ran, and its text.

    A fork has imported everything already: most of these tests take a tenth of the time.
    """
    arguments = [*OPTIONS, "--rootdir", str(root), *options]
    if fork and hasattr(os, "fork"):
        status = forked(root, arguments)
    else:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with open(root / "log", "w") as log:
            command = [sys.executable, "-m", "pytest", *arguments]
            status = subprocess.call(command, cwd=root, env=env, stdout=log, stderr=log)
    cases = ElementTree.parse(root / "report.xml").iter("testcase")
    ran = {case.get("classname", "").replace(".", "/") for case in cases}
    return status, sorted(ran), (root / "log").read_text()


def forked(root: Path, arguments: list[str]) -> int:
    """Run pytest in a fork of this process; return its status."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 99
    gc.freeze()  # pytest collects garbage at its end, and would copy all memory
    try:
        os.chdir(root)
        os.environ |= {"PYTHONPATH": str(ROOT)}
        with open("log", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log
            status = int(pytest.main(arguments))
    finally:
        os._exit(status)


TWO = """
import pathlib, pytest

@pytest.mark.slow
def test_slow():
    assert not pathlib.Path("broken").exists()

def test_quick():
    pass
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a project of three files of tests; one test in two of them can be broken."""
    (tmp_path / "tests").mkdir()
    for name in ("test_a", "test_b"):
        (tmp_path / "tests" / f"{name}.py").write_text(TWO)
    skipped = "import pytest\n\ndef test_skipped():\n    pytest.skip('there is no browser')\n"
    (tmp_path / "tests" / "test_c.py").write_text(skipped)
    return tmp_path


def units(root: Path) -> list[str]:
    return sorted(json.loads((root / PROVED).read_text())) if (root / PROVED).is_file() else []


ALL_OF_TWO = [f"tests/test_{name}.py{quick}" for name in "ab" for quick in ("", " (quick)")]


@pytest.mark.slow
def test_what_passed_is_left_out_and_the_line_says_so(two: Path) -> None:
    assert run(two, "tests")[0] == 0 and units(two) == ALL_OF_TWO
    status, ran, text = run(two, "--changed", "tests")
    assert status == 0 and ran == ["tests/test_c"], "it was skipped: that proves nothing"
    assert "Left out: 4 tests, in 4 notebooks and files, that have passed" in text
    (two / "tests" / "test_c.py").unlink()
    assert run(two, "--changed", "tests")[:2] == (0, []), "nothing to run is no failure"
    (two / "tests" / "test_b.py").write_text(TWO.replace("quick", "other"))
    assert run(two, "--changed", "tests")[:2] == (0, ["tests/test_b"])
    assert run(two, "--changed", "tests")[:2] == (0, [])


@pytest.mark.slow
def test_workers_leave_out_the_same(two: Path) -> None:
    run(two, "tests")
    (two / "tests" / "test_b.py").write_text(TWO.replace("quick", "other"))
    options = ("--changed", "-n", "2", "--dist", "loadscope", "tests/test_a.py", "tests/test_b.py")
    status, ran, text = run(two, *options)
    assert (status, ran) == (0, ["tests/test_b"]) and "Left out: 2 tests" in text
    status, ran, text = run(two, *options)
    assert (status, ran) == (0, []) and "Left out: 4 tests" in text


@pytest.mark.slow
def test_what_failed_runs_again_although_it_had_passed_before(two: Path) -> None:
    run(two, "tests")
    (two / "broken").write_text("")
    assert run(two, "tests/test_a.py")[0] == 1 and units(two) == ALL_OF_TWO[2:]
    assert run(two, "--changed", "tests/test_a.py")[:2] == (1, ["tests/test_a"])
    (two / "broken").unlink()
    assert run(two, "--changed", "tests/test_a.py")[:2] == (0, ["tests/test_a"])
    assert units(two) == ALL_OF_TWO


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-m", "not slow", "tests"), ALL_OF_TWO[1::2]),
        (("-k", "test_slow", "tests"), ALL_OF_TWO[::2]),
        (("-k", "test_b", "tests"), ALL_OF_TWO[2:]),
        (("tests/test_a.py::test_quick",), []),
        (("--collect-only", "tests"), []),
    ],
)
def test_only_what_ran_as_a_whole_is_proved(
    options: tuple[str, ...], expected: list[str], two: Path
) -> None:
    run(two, *options)
    assert units(two) == expected


@pytest.mark.slow
def test_half_of_the_quick_tests_of_a_file_do_not_prove_it(two: Path) -> None:
    both = two / "tests" / "test_c.py"
    both.write_text("def test_one():\n    pass\n\ndef test_other():\n    pass\n")
    run(two, "-k", "test_one", "tests")
    assert units(two) == []
    run(two, "-x", "tests/test_c.py")
    assert units(two) == ["tests/test_c.py (quick)"]


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_had_passed(two: Path) -> None:
    text = "def test_a():\n    pass\n\ndef test_z():\n    raise KeyboardInterrupt\n"
    (two / "tests" / "test_c.py").write_text(text)
    assert run(two, "tests/test_a.py", "tests/test_c.py")[0] == pytest.ExitCode.INTERRUPTED
    assert units(two) == ALL_OF_TWO[:2]


@pytest.mark.slow
def test_notebooks_run_again_after_an_edit_of_their_code_not_of_their_prose(
    project: Path, edit: Edit
) -> None:
    options = ("--nbval-lax", "notebooks/jax", "notebooks/keras", "tests/test_plain.py")
    status, ran, _ = run(project, *options, fork=False)
    jax, keras = (f"notebooks/{track}/01_tiny/ipynb" for track in ("jax", "keras"))
    assert status == 0 and ran == [jax, keras, "tests/test_plain"]
    edit("lesson.md", "One sum, four ways.", "Four sums.")
    build(root=project)
    assert run(project, "--changed", *options)[:2] == (0, [])
    edit("lesson.md", "1 + 1  # jax", "2  # jax")
    build(root=project)
    assert run(project, "--changed", *options, fork=False)[:2] == (0, [jax])
