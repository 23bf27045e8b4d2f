"""Run the four notebooks of a lesson and keep in git what they recorded and what is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from rich.console import Console

from quartet import QuartetError
from quartet.build import build, notebook, refuse, write
from quartet.rules import CHECKED
from quartet.run import execute
from quartet.source import Course, Lesson, fingerprint, read_course
from utils.parity import MIME, read_records
from utils.tracks import ROOT, TRACKS

DIGITS = 9  # enough to tell any two float32 apart
CELL_TIMEOUT = 600


def record(names: Iterable[str], root: Path = ROOT) -> list[Path]:
    """Run lessons in all tracks, store recorded.json for each, and build them.

    Returns the paths written. Raises QuartetError, with nothing written, if a source breaks a rule
    or a notebook fails.
    """
    course = read_course(root)
    chosen = course.find(names)
    refuse(course, chosen, recording=True)
    stored = {lesson.folder / "recorded.json": _record(course, lesson) for lesson in chosen}
    for path, entry in stored.items():
        text = json.dumps(entry, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write(root / path, text + "\n")
    return [*stored, *build([lesson.name for lesson in chosen], root)]


def _record(course: Course, lesson: Lesson) -> dict[str, Any]:
    return {track: _record_track(course, lesson, track) for track in TRACKS}


def _record_track(course: Course, lesson: Lesson, track: str) -> dict[str, Any]:
    """Run one notebook of a lesson, as its source is now, and return what is to be stored."""
    built = notebook(course, lesson, track, "notebook")
    folder = course.root / "notebooks" / track
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    with console.status(f"{lesson.name} in {track}"):
        outcome = execute(built, folder, timeout=CELL_TIMEOUT)
    if outcome.error:
        raise QuartetError(f"{lesson.name} fails in {track}, nothing is recorded: {outcome.error}")
    console.print(f"{lesson.name} in {track}: {outcome.seconds:.1f} s")
    label = f"{lesson.name} in {track}"
    numbers = {name: _rounded(value) for name, value in read_records(built).items()}
    outputs = {cell.id: _entry(cell, label) for cell in built.cells if _is_checked(cell)}
    return {"numbers": numbers, "outputs": outputs}


def _is_checked(cell: NotebookNode) -> bool:
    return CHECKED in cell.metadata.get("tags", [])


def _entry(cell: NotebookNode, label: str) -> dict[str, Any]:
    """Return the outputs of a checked cell without what differs from run to run."""
    if not cell.outputs:
        raise QuartetError(f"{label}: the checked cell {cell.id!r} shows nothing. Print something.")
    outputs = json.loads(json.dumps(cell.outputs))
    for output in outputs:
        if MIME in output.get("data", {}):
            text = "is checked and records numbers. Let another cell call `record`."
            raise QuartetError(f"{label}: the cell {cell.id!r} {text}")
        if "execution_count" in output:
            output["execution_count"] = None
        if "traceback" in output:  # holds paths and colors; nbval does not compare it
            output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
    return {"source_sha256": fingerprint(cell.source), "outputs": outputs}


def _rounded(value: Any) -> Any:
    """Return a recorded value with its floats rounded to DIGITS significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
