"""The benchmark measures what it says, and its page shows what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from quartet import QuartetError
from quartet.bench import PARTS, about, bench, checking, grading, measure, merged, page, proof
from quartet.bench.steps import epochs
from quartet.build import build
from quartet.run import find_notebooks
from utils.tracks import ROOT, TRACKS

QUIET = Progress(disable=True)


def results() -> dict:
    """Return made-up results in the shape of real ones: warm takes a tenth, or a fifth."""
    pairs = [(track, mode) for track in TRACKS for mode in ("plain", "warm")]
    first = {"plain": [1.0, 1.0], "warm": [0.1, 0.2]}
    starts = [
        {"track": t, "mode": m, "first_line": first[m], "imported": first[m]} for t, m in pairs
    ]
    memory = [{"track": t, "mode": m, "pss_mib": first[m], "own_mib": first[m]} for t, m in pairs]
    lessons = [
        {"lesson": "03", "track": "jax", "mode": m, "seconds": [s, s], "peak_mib": [9]}
        for m, s in (("plain", 8.0), ("warm", 4.0), ("warm, cached", 2.0))
    ]
    runs = [
        {"run": name, "seconds": [s], "processor_seconds": [used * os.cpu_count()]}
        for name, s, used in (("plain", 9.0, 4.5), ("warm, two at a time", 3.0, 2.7))
    ]
    warming = dict.fromkeys(TRACKS, 5.0)
    epochs = {"lesson_epoch": [0.2, 0.3], "builtin_epoch": [0.4, 0.4]}
    found = {"starts": starts, "memory": memory, "lessons": lessons, "warming": warming}
    found |= {"tiny": runs, "tree": runs, "steps": [{"lesson": "05", "track": "jax"} | epochs]}
    found["checks"] = [
        {"lesson": "03", "track": "jax", "exercise": e, "seconds": [s, s]}
        for e, s in (("quick", 0.01), ("slow", 0.3), ("middle", 0.1))
    ]
    found["grading"] = [
        {"lesson": "03", "track": "jax", "grader": g, "seconds": s, "peak_mib": 9}
        | {"points": {"ada": 10.0, "bob": p}}
        for g, s, p in (("nbgrader", 40.0, 7), ("quartet", 8.0, 7.5))
    ]
    counts = {"submissions": 1000, "kept": 501, "lost": 0, "twice": 0}
    found["many"] = counts | {"seconds": 300.2, "peak_mib": 900, "early_mib": 80, "late_mib": 90}
    proofs = [("1234567", 60.0), ("89abcde", 20.0), ("89abcde, JOBS=1", 39.0)]
    found["proof"] = {
        "runs": [
            {"run": n, "seconds": [s, s], "processor_seconds": [2 * s, 2 * s], "peak_mib": [9, 8]}
            | {"passed": [n != "1234567", True]}
            for n, s in proofs
        ],
        "plan": [{"workers": 4, "gib": 14, "processor_seconds": 11}],
    }
    return about() | found | {"measured": dict.fromkeys(found, "2026-11-21")}


def test_the_page_shows_medians_and_the_median_of_ratios(tmp_path: Path) -> None:
    text = page.table(results())
    assert "| Keras | 1.00 | 0.15 | 7.5 × | 1.00 | 0.15 | 7.5 × | 8 × | 5.0 |" in text
    assert "| 03 | JAX | 8.00 | 4.00 | 2.00 | 2.0 × | 4.0 × | 9 |" in text
    assert text.count("| plain | 9.00 | 1.0 × | - | 50% |") == 2
    assert text.count("| warm, two at a time | 3.00 | 3.0 × | 3 × | 90% |") == 1
    assert "| 05 | JAX | 250 | 400 | 0.62 | 1.1 |" in text
    assert text.count("Measured on 2026-11-21, 2 rounds.") == 6
    assert "| `89abcde` | 20 | 3.0 × | 40 | 3.0 × | 9 | 2 of 2 |" in text
    assert "| `1234567` | 60 |" in text and "| 1 of 2 |" in text and "| 4 | 14 | 11 |" in text
    assert "| JAX | 20.00 | 4.00 | 5.0 × | 3 × | 9 | 9 | 1 of 2 |" in text
    assert "killed when 501 results were there, and started again: 0 lost, 0 graded twice" in text
    assert "| JAX | 3 | 0.100 | 0.300 | 03 `slow` | 1 |" in text
    page.plot(results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_the_page_in_the_docs_is_made_from_its_results() -> None:
    folder = ROOT / "docs" / "bench"
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert page.table(found) == (folder / "README.md").read_text(encoding="utf-8")
    assert len(found["starts"][0]["imported"]) >= 5 and len(found["memory"][0]["pss_mib"]) >= 5


def test_what_is_not_measured_again_stays(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results()), encoding="utf-8")
    found = merged(path, {"tiny": []})
    assert found["tiny"] == [] and found["tree"] == results()["tree"]
    assert found["measured"]["tiny"] >= found["measured"]["tree"] == "2026-11-21"
    with pytest.raises(QuartetError, match="no part 'size'. Choose among warming"):
        bench(["size"], root=tmp_path)
    with pytest.raises(QuartetError, match="against an earlier commit: say --against COMMIT"):
        bench(["proof"], root=tmp_path)


def test_a_part_that_fails_leaves_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = results()
    monkeypatch.setattr("quartet.bench.find_notebooks", lambda *about, **named: [])

    def fail(*about: object) -> None:
        raise QuartetError("no memory left")

    for name, part in {"many": lambda *about: found["many"], "tree": fail}.items():
        monkeypatch.setitem(PARTS, name, part)
    with pytest.raises(QuartetError, match="no memory left"):
        bench(["many", "tree"], root=tmp_path)
    kept = json.loads((tmp_path / "docs" / "bench" / "results.json").read_text(encoding="utf-8"))
    assert kept["many"] == found["many"] and "tree" not in kept
    assert "501 results were there" in page.table(kept)


@pytest.mark.slow
def test_training_steps_are_timed_in_turns(course: Path, edit: Callable) -> None:
    assert epochs([], 1, QUIET) == [] and "steps" in PARTS
    cell = "```{code-cell}\n:name: epochs_to_compare\n\n"
    cell += "calls = []\ndef lesson_epoch():\n    calls.append(1)\n\n\n"
    cell += "def builtin_epoch():\n    assert len(calls) % 2\n    calls.append(2)\n```\n\n## Recap"
    edit("lesson.md", "## Recap", cell)
    build(root=course)
    (found,) = epochs(find_notebooks((), ["jax"], root=course), 3, QUIET)
    assert found["track"] == "jax" and len(found["builtin_epoch"]) == 3


@pytest.mark.slow
def test_a_kernel_is_timed_and_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "TRACKS", {"jax": TRACKS["jax"]})
    plain, warm = measure.starts(1, QUIET)
    assert (plain["mode"], warm["mode"]) == ("plain", "warm")
    assert 0 < plain["first_line"][0] < plain["imported"][0]
    plain, warm = measure.memory(1, QUIET)
    assert warm["own_mib"][0] < warm["pss_mib"][0] < plain["pss_mib"][0]
    assert "QUARTET_WARM" not in os.environ


@pytest.mark.slow
def test_lessons_are_timed_in_each_mode(course: Path) -> None:
    build(root=course)
    found = measure.lessons(find_notebooks((), ["jax", "keras"], root=course), 2, QUIET)
    assert [(e["track"], e["mode"]) for e in found] == [
        (track, mode) for track in ("keras", "jax") for mode in measure.MODES
    ]
    assert all(len(each["seconds"]) == len(each["peak_mib"]) == 2 for each in found)


@pytest.mark.slow
def test_a_notebook_that_fails_ends_it(
    course: Path, edit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", "1 / 0")
    build(root=course)
    sources = find_notebooks((), ["jax"], root=course)
    with pytest.raises(QuartetError, match="01_tiny fails in jax: .*ZeroDivisionError"):
        measure.lessons(sources, 1, QUIET)
    monkeypatch.setattr(measure, "RUNS", {"warm": ("warm", 0)})
    with pytest.raises(QuartetError, match="(?s)nbval fails: .*ZeroDivisionError"):
        measure.tree(sources, 1, QUIET)


def test_a_check_is_timed_without_the_learners_function(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(checking, "display", lambda bundle, raw: shown.append(bundle))

    def check(name: str, function: Callable) -> None:
        time.sleep(0.05)
        assert [function(1), function(x=2)] == [1, 2] and function.__name__ == "slow"

    def slow(x: int) -> int:
        time.sleep(0.3)
        return x

    checking.show(check, 2, "slow", slow)
    found = shown[0][checking.MIME]
    assert found["exercise"] == "slow" and len(found["seconds"]) == 2
    assert all(0.05 <= seconds < 0.3 for seconds in found["seconds"])


@pytest.mark.slow
def test_each_check_of_a_solution_is_timed(course: Path) -> None:
    build(root=course)
    found = checking.checks(find_notebooks((), ["jax"], "solution", root=course), 2, QUIET)
    assert [(each["track"], each["exercise"]) for each in found] == [
        ("jax", "double"), ("jax", "halve"),
    ]  # fmt: skip


def test_a_measurement_of_the_proof_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, runs = [], {"old": (Path("old"), {}), "new": (Path("new"), {"JOBS": "1"})}

    def prove(clone: Path, env: dict[str, str], log: Path) -> dict[str, Any]:
        begun.append((clone.name, env, log.name))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return {"seconds": float(len(begun)), "passed": True}

    monkeypatch.setattr(proof, "prove", prove)
    with pytest.raises(KeyboardInterrupt):
        proof.measure(runs, 2, QUIET, tmp_path)
    found = proof.measure(runs, 2, QUIET, tmp_path)
    assert found["old"] == {"seconds": [1.0, 4.0], "passed": [True, True]}
    assert found["new"] == {"seconds": [3.0, 5.0], "passed": [True, True]}
    again = ("new", {"JOBS": "1"}, "new, round 1.log")
    assert begun[1] == begun[2] == again and len(begun) == 5


def test_a_proof_that_fails_is_measured_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("test:\n\t@echo $$JOBS for $$XDG_CACHE_HOME; exit 1\n")
    (tmp_path / ".quartet").mkdir()
    found = proof.prove(tmp_path, {"JOBS": "5"}, tmp_path / "log")
    assert not found["passed"] and {"seconds", "processor_seconds", "peak_mib"} < set(found)
    assert f"5 for {tmp_path / '.cache'}" in (tmp_path / "log").read_text()
    assert not (tmp_path / ".quartet").exists()


def test_what_more_workers_need_is_counted_scope_by_scope() -> None:
    costs = {f"tests/test_{n}.py::test": float(n) for n in (4, 1, 2, 3)}
    costs["tests/test_4.py::test_more"] = 2.0
    found = {each["workers"]: each for each in proof.plan(costs, [])}
    assert [found[n]["processor_seconds"] for n in (1, 2, 4)] == [12, 6, 6]
    assert found[2]["gib"] == 8 and found[8]["processor_seconds"] == 6


def test_all_that_a_command_leaves_behind_is_measured(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    behind = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    command = [sys.executable, "-m", "quartet.bench.measured", tmp_path, sys.executable, "-c"]
    done = subprocess.run([*command, behind], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["processor_seconds"] >= 0.3
    assert subprocess.run([*command, "raise SystemExit(3)"], capture_output=True).returncode == 3


@pytest.mark.slow
def test_both_graders_give_a_class_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "TRACKS", {"jax": TRACKS["jax"]})
    theirs, ours = grading.classes("01_tensors", 3, QUIET)
    assert theirs["points"] == ours["points"]
    assert list(ours["points"].values()) == [10, 10, 8]
    assert min(ours["seconds"], ours["peak_mib"], theirs["seconds"], theirs["peak_mib"]) > 0


@pytest.mark.slow
def test_a_killed_run_over_many_loses_none_and_grades_none_twice() -> None:
    found = grading.thousand("01_tensors", "pytorch", 20)
    assert 10 <= found["kept"] < 20 and found["lost"] == found["twice"] == 0
    assert 0 < found["early_mib"] <= found["late_mib"] <= found["peak_mib"]
