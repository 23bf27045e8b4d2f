"""Read a learner's notebook and put together what is to be run, with what was locked restored.

Cells are recognized by their identity, not by their place: they may be moved, copied, renamed,
merged or deleted. What counts are the functions that are defined when all cells have run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

from quartet import QuartetError
from quartet.exercises import is_answer
from quartet.source import CHECK_CALL

LARGEST = 50 * 2**20  # bytes of a notebook
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)


class Unreadable(QuartetError):
    """What was handed in is no notebook of this course; the text says why and what to do."""


@dataclass(frozen=True)
class Step:
    """A code cell to run; a check has the name of its exercise, other cells have none."""

    id: str
    source: str
    check: str = ""


@dataclass(frozen=True)
class Submission:
    """What a learner handed in: the cells to run, in order, and what was mended on the way.

    `answers` holds the learner's own code of each exercise that is there.
    """

    lesson: str
    track: str
    steps: tuple[Step, ...]
    answers: dict[str, str]
    remarks: tuple[str, ...]


def read(path: Path) -> NotebookNode:
    """Return a notebook in today's format.

    Raises
    ------
    Unreadable if the file is no Python notebook; the message says what to do.
    """
    return parse(path.read_bytes(), path.name)


def parse(data: bytes, name: str) -> NotebookNode:
    """Return the notebook in the bytes of a file that is called `name` in messages.

    Raises
    ------
    Unreadable if it is no Python notebook; the message says what to do.
    """
    if len(data) > LARGEST:
        raise Unreadable(f"{name} has {len(data) // 2**20} MB. Clear its outputs and save it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"{name} is no text in UTF-8, so it is no notebook.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cells without an id, which get one
            notebook = nbformat.reads(text, as_version=4)
        _check(name, notebook)
    except (NotJSONError, RecursionError):
        raise Unreadable(f"{name} is no notebook: {_why_no_json(text)}") from None
    except (nbformat.ValidationError, KeyError, TypeError, AttributeError, ValueError):
        raise Unreadable(f"{name} is no notebook: its cells cannot be read.") from None
    return notebook


def _why_no_json(text: str) -> str:
    if not text.strip():
        return "the file is empty. Save the notebook again."
    if match := CONFLICT.search(text):
        line = text.count("\n", 0, match.start()) + 1
        return f"line {line} is a mark of a merge conflict. Resolve it, then open and save it."
    return "it is not JSON. Open it in JupyterLab, mend it there, and save it."


def _check(name: str, notebook: NotebookNode) -> None:
    about = notebook.metadata.get("quartet", {})
    texts = [about.get("lesson", ""), about.get("track", "")]
    for cell in notebook.cells:
        texts += [cell.cell_type, cell.source, _identity(cell)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise Unreadable(f"{name} is a notebook in {language}; the exercises are in Python.")


def assemble(handed_in: NotebookNode, handed_out: NotebookNode) -> Submission:
    """Return what is to be run of a notebook, given the one that the learner started from.

    The given cells run first, as they were handed out; then the learner's, in their order and the
    last worked-on copy of each; then the checks, as they were handed out.
    """
    about = handed_out.metadata["quartet"]
    original = {_identity(cell): cell for cell in _code(handed_out)}
    to_write = {key for key, cell in original.items() if is_answer(cell)}
    fixed = {k: c for k, c in original.items() if k not in to_write and not _is_check(c)}
    given = [Step(key, cell.source) for key, cell in fixed.items()]
    checks = [Step(k, c.source, _is_check(c)) for k, c in original.items() if _is_check(c)]
    mine = list(_own_steps(handed_in, original))
    answers = {step.id: step.source for step in mine if step.id in to_write}
    steps = (*given, *mine, *checks)
    remarks = tuple(_remarks(handed_in, original))
    return Submission(about["lesson"], about["track"], steps, answers, remarks)


def _own_steps(handed_in: NotebookNode, original: dict[str, NotebookNode]) -> Iterator[Step]:
    """Give the learner's cells, without those that are as they were handed out and not to solve."""
    cells = list(_code(handed_in))
    last = {}
    for place, cell in enumerate(cells):
        key = _identity(cell)
        untouched = key in original and cell.source == original[key].source
        if not untouched or key not in last:
            last[key] = place
    for place, cell in enumerate(cells):
        key = _identity(cell)
        known = original.get(key)
        if known is not None and not is_answer(known) and cell.source == known.source:
            continue
        if known is None or last[key] == place:
            yield Step(key, cell.source)


def _remarks(handed_in: NotebookNode, original: dict[str, NotebookNode]) -> Iterator[str]:
    there = [(_identity(cell), cell) for cell in _code(handed_in)]
    for key, cell in original.items():
        copies = [mine for name, mine in there if name == key]
        if _is_check(cell) and any(mine.source != cell.source for mine in copies):
            yield f"the check of {_is_check(cell)} was changed; the original was used"
        elif _is_check(cell) and not copies:
            yield f"the check of {_is_check(cell)} was missing; the original was used"
        elif is_answer(cell) and not copies:
            yield f"the cell {key} was missing"
        elif is_answer(cell) and len(copies) > 1:
            yield f"the cell {key} was there {len(copies)} times; the last one worked on was used"


def _code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def _identity(cell: NotebookNode) -> str:
    """Return nbgrader's id of a cell, which a copy keeps, or else the cell's own."""
    return cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id", "")


def _is_check(cell: NotebookNode) -> str:
    """Return the exercise that a handed-out cell checks, "" if it is no check."""
    grade = cell.metadata.get("nbgrader", {}).get("grade")
    return CHECK_CALL.findall(cell.source)[0] if grade else ""
