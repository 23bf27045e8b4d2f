"""Build the notebooks from their sources, or check that what is built is in step with them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from quartet import exercises, pages, rules
from quartet.source import Cell, Course, Document, Lesson, Problem, Refused, cell_ids, read_course
from utils.tracks import ROOT, TRACKS

KEPT_TAGS = (rules.COMPARE, rules.PARAMETERS, rules.CHECKED, rules.RAISES, rules.EACH_ENGINE)
PYTHON = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": "3",
    },
}


def build(names: Iterable[str] = (), root: Path = ROOT, force: bool = False) -> list[Path]:
    """Write what differs from the sources and return the paths written.

    Parameters
    ----------
    names : the lessons, as `03`, `03_dense_layers` or a path; all of them if there are none.
    force : overwrite exercise notebooks also where someone has worked in them.

    Raises
    ------
    Refused with every problem found, in which case nothing is written.
    """
    files = render(names, root)
    stale = [path for path, text in files.items() if _present(root / path) != text]
    problems = [] if force else [p for path in stale for p in _check_unworked(root, path)]
    if problems:
        raise Refused(problems)
    for path in stale:
        write(root / path, files[path])
    return stale


def check(names: Iterable[str] = (), root: Path = ROOT) -> list[Problem]:
    """Return what is missing, differs from the sources or is made by no lesson; write nothing."""
    wanted = list(names)
    files = render(wanted, root)
    problems = [p for path, text in files.items() for p in _compare(root, path, text)]
    return sorted(problems if wanted else problems + _strays(root, set(files)))


def render(names: Iterable[str] = (), root: Path = ROOT) -> dict[Path, str]:
    """Return path -> text of everything that is built from the sources of some lessons.

    Raises
    ------
    Refused with every problem found.
    """
    course = read_course(root)
    chosen = course.find(names)
    refuse(course, chosen)
    files = {}
    for lesson in chosen:
        for kind in pages.FOLDERS if lesson.exercises else ["notebook"]:
            for track in TRACKS:
                path = Path(pages.notebook_path(lesson, track, kind))
                files[path] = serialize(notebook(course, lesson, track, kind))
    return files | _front_pages(course)


def refuse(course: Course, chosen: list[Lesson], recording: bool = False) -> None:
    """Raise Refused if a source breaks a rule; of lessons not chosen, look at the front only."""
    known = [lesson.name for lesson in course.lessons]
    problems = rules.check_start(course.start) if course.start else []
    for lesson in course.lessons:
        if lesson in chosen:
            problems += rules.check_lesson(lesson, known, recording)
        else:
            problems += rules.check_front(lesson, known)
    problems += _check_readme(course.root)
    if problems:
        raise Refused(problems)


def notebook(course: Course, lesson: Lesson, track: str, kind: str) -> NotebookNode:
    """Return one notebook of a lesson.

    Parameters
    ----------
    kind : "notebook" for the lesson itself, "exercise" or "solution".
    """
    document = lesson.lesson if kind == "notebook" else lesson.exercises
    cells = _cells(document, lesson, track)
    header = _prose("header", pages.header(course, lesson, track, kind))
    footer = _prose("footer", pages.footer(course, lesson, track, kind))
    about = {"quartet": {"lesson": lesson.name, "track": track, "kind": kind}}
    built = _assemble([cells[0], header, *cells[1:], footer], about)
    if kind == "exercise":
        exercises.hand_out(built)
    elif kind == "solution":
        exercises.keep_solutions(built)
        exercises.remember(built, notebook(course, lesson, track, "exercise"))
    return built


def serialize(built: NotebookNode) -> str:
    """Return a notebook as the text of its file, the same for the same notebook."""
    return nbformat.v4.writes(built) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _cells(document: Document, lesson: Lesson, track: str) -> list[NotebookNode]:
    mine = [cell for cell in document.cells if track in cell.tracks]
    ids = cell_ids(mine)
    built = [_cell(cell, cell_id, lesson) for cell, cell_id in zip(mine, ids, strict=True)]
    count = 0
    for cell, node in zip(mine, built, strict=True):
        count += cell.kind == "code"
        if rules.CHECKED in cell.tags:
            outputs = lesson.outputs(track, node.id, cell) or []
            _put_outputs(node, outputs, count)
    return built


def _cell(cell: Cell, cell_id: str, lesson: Lesson) -> NotebookNode:
    tags = [tag for tag in cell.tags if tag in KEPT_TAGS]
    if rules.EXPECTED in cell.source:
        tags.append(rules.FAULT)
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    if cell.kind == "markdown":
        return _prose(cell_id, cell.source, metadata)
    if cell.path.name == "exercises.md":
        metadata |= exercises.metadata(cell, lesson)
    return _code(cell_id, cell.source, metadata)


def _put_outputs(node: NotebookNode, outputs: list[dict[str, Any]], count: int) -> None:
    """Give a checked cell its recorded outputs; without them it stays as if never run."""
    if not outputs:
        return
    node.execution_count = count
    node.outputs = [nbformat.from_dict(output) for output in outputs]
    for output in node.outputs:
        if output.output_type == "execute_result":
            output.execution_count = count


def _prose(cell_id: str, text: str, metadata: dict[str, Any] | None = None) -> NotebookNode:
    cell = {"cell_type": "markdown", "id": cell_id, "metadata": metadata or {}, "source": text}
    return nbformat.from_dict(cell)


def _code(cell_id: str, source: str, metadata: dict[str, Any] | None = None) -> NotebookNode:
    cell = {"cell_type": "code", "id": cell_id, "metadata": metadata or {}, "source": source}
    return nbformat.from_dict(cell | {"execution_count": None, "outputs": []})


def _assemble(cells: list[NotebookNode], about: dict[str, Any]) -> NotebookNode:
    metadata = PYTHON | about
    return nbformat.from_dict(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def _front_pages(course: Course) -> dict[Path, str]:
    """Return path -> text of START.ipynb and of the README with its table."""
    pages_built = {}
    if course.start:
        ids = cell_ids(course.start.cells)
        cells = [
            _start_cell(course, cell, i) for cell, i in zip(course.start.cells, ids, strict=True)
        ]
        about = {"quartet": {"lesson": "START", "kind": "start"}}
        pages_built[Path("START.ipynb")] = serialize(_assemble(cells, about))
    readme = course.root / "README.md"
    if readme.is_file():
        text = pages.with_table(course, readme.read_text(encoding="utf-8"))
        pages_built[Path("README.md")] = text
    return pages_built


def _check_readme(root: Path) -> list[Problem]:
    readme = Path("README.md")
    if pages.TABLE.search(_present(root / readme) or "<!-- lessons -->\n<!-- /lessons -->"):
        return []
    text = "The table's place is missing. Add the lines `<!-- lessons -->` and `<!-- /lessons -->`."
    return [Problem(readme, 1, text)]


def _start_cell(course: Course, cell: Cell, cell_id: str) -> NotebookNode:
    if cell.kind == "code":
        return _code(cell_id, cell.source)
    return _prose(cell_id, pages.with_table(course, cell.source))


def _present(path: Path) -> str | None:
    """Return the text of a file; None if there is none, or nothing that is text."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _worked_in(root: Path, path: Path) -> bool:
    """Tell whether an exercise notebook was changed after it was handed out, by a learner."""
    if path.parts[0] != "exercises" or not (root / path).exists():
        return False
    try:
        return exercises.edited(json.loads((root / path).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return True


def _check_unworked(root: Path, path: Path) -> list[Problem]:
    if not _worked_in(root, path):
        return []
    text = (
        "Someone has worked in this notebook, so it is not built anew. Keep a copy of it as "
        f"{path.stem}.mine.ipynb if it is of use, then run `quartet build --force`."
    )
    return [Problem(path, 1, text)]


def _compare(root: Path, path: Path, text: str) -> list[Problem]:
    """Return what is wrong with a built file, if anything."""
    present = _present(root / path)
    if present == text:
        return []
    if present is None:
        return [Problem(path, 1, "This file is missing. Run `quartet build`.")]
    if _worked_in(root, path):
        return [
            Problem(
                path, 1, "Someone has worked in this exercise. `quartet build --force` resets it."
            )
        ]
    pairs = zip(present.splitlines(), text.splitlines(), strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    what = "This file differs from its source: it is out of date or was edited by hand."
    return [Problem(path, same + 1, f"{what} Edit the source in lessons/ and run `quartet build`.")]


def _strays(root: Path, made: set[Path]) -> list[Problem]:
    """Return the notebooks in the built folders that no lesson makes."""
    found = [
        path.relative_to(root)
        for folder in pages.FOLDERS.values()
        for path in (root / folder).rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    ]
    own = [p for p in found if p.parts[0] == "exercises" and p.name.endswith(".mine.ipynb")]
    text = "No lesson makes this notebook. Remove it, or write its source in lessons/."
    return [Problem(path, 1, text) for path in found if path not in made and path not in own]
