"""Turn the cells of exercises.md into what is handed out and into the solutions, and back."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from quartet.source import Cell, Lesson, fingerprint

GIVEN = re.compile(r"(\s*)### GIVEN(?: (.*))?")
STUB = ["# YOUR CODE HERE", "raise NotImplementedError()"]


def metadata(cell: Cell, lesson: Lesson) -> dict[str, Any]:
    """Return nbgrader's metadata (schema 3) of a solution cell or a check cell; {} for others."""
    common = {"schema_version": 3, "task": False}
    if cell.has_solution:
        kind = {"grade_id": cell.name, "grade": False, "solution": True, "locked": False}
        return {"nbgrader": common | kind}
    if cell.checks:
        name = cell.checks[0]
        kind = {"grade_id": f"{name}-check", "grade": True, "solution": False, "locked": True}
        return {"nbgrader": common | kind | {"points": lesson.points[name]}}
    return {}


def keep_solutions(notebook: NotebookNode) -> None:
    """Drop from the solution notebook the code that only learners are given."""
    for cell in notebook.cells:
        lines = cell.source.split("\n")
        cell.source = "\n".join(line for line in lines if not GIVEN.fullmatch(line))


def is_answer(cell: NotebookNode) -> bool:
    """Return whether a cell of an exercise or solution notebook is one to write in."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def hand_out(notebook: NotebookNode) -> None:
    """Replace the solutions in an exercise notebook by what a learner is to start from.

    The notebook notes what it was handed out as, so that `edited` can tell a learner's work.
    """
    for cell in notebook.cells:
        if is_answer(cell):
            cell.source = cleared(cell.source)
    notebook.metadata.quartet["handed_out"] = _sources(notebook)


def remember(solution: NotebookNode, exercise: NotebookNode) -> None:
    """Note in a solution notebook how the cells were handed out that differ in it."""
    differ = {
        theirs.id: theirs.source
        for ours, theirs in zip(solution.cells, exercise.cells, strict=True)
        if ours.source != theirs.source
    }
    solution.metadata.quartet["handed_out"] = differ


def original(solution: NotebookNode) -> NotebookNode:
    """Return the exercise notebook as it was handed out, from the solution notebook."""
    exercise = deepcopy(solution)
    about = exercise.metadata.quartet
    about["kind"] = "exercise"
    for cell in exercise.cells:
        cell.source = about["handed_out"].get(cell.id, cell.source)
    about["handed_out"] = _sources(exercise)
    return exercise


def cleared(source: str) -> str:
    """Return a solution cell's source with nbgrader's stub, or the given code, for the solution."""
    from nbgrader.preprocessors import ClearSolutions  # slow to import

    cell = new_code_cell(source, metadata={"nbgrader": {"solution": True}})
    ClearSolutions().preprocess(new_notebook(cells=[cell]), {})
    return _give(cell.source)


def edited(notebook: dict[str, Any]) -> bool:
    """Tell whether an exercise notebook's cells were changed after it was handed out."""
    handed_out = notebook.get("metadata", {}).get("quartet", {}).get("handed_out")
    return handed_out != _sources(notebook)


def _give(source: str) -> str:
    """Put the given code in the place of the stub above it."""
    lines: list[str] = []
    for line in source.split("\n"):
        if match := GIVEN.fullmatch(line):
            if [text.strip() for text in lines[-2:]] == STUB:
                del lines[-2:]
            line = match[1] + match[2] if match[2] else ""
        lines.append(line)
    return "\n".join(lines)


def _sources(notebook: dict[str, Any]) -> str:
    """Return a fingerprint of the kinds and sources of a notebook's cells."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    return fingerprint(repr(cells))
