"""Time a lesson's own training step against the framework's ready-made way, in one kernel.

A lesson takes part by a cell named `epochs_to_compare`, which defines `lesson_epoch()` and
`builtin_epoch()`. Each trains one epoch of the same work and returns when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from IPython.display import display
from rich.progress import Progress

from quartet import QuartetError

NAME = "epochs_to_compare"
MIME = "application/vnd.quartet.steps+json"
BAR = 1.1  # times the ready-made way's seconds, at most
CELL = "from quartet.bench import steps\n\nsteps.show(lesson_epoch, builtin_epoch, {rounds})"


def show(lesson: Callable[[], None], builtin: Callable[[], None], rounds: int) -> None:
    """Time both in turns, once each before that to compile, and output the seconds as JSON."""
    ways: dict[str, Callable[[], None]] = {"lesson_epoch": lesson, "builtin_epoch": builtin}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, epoch in ways.items():
            begin = time.perf_counter()
            epoch()
            if turn:
                seconds[name].append(round(time.perf_counter() - begin, 4))
    display({MIME: seconds, "text/plain": f"{seconds}"}, raw=True)


def epochs(sources: list[Path], rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Run each notebook that has the cell, and return lesson, track and the seconds of both ways.

    Raises
    ------
    QuartetError if a notebook fails.
    """
    chosen = list(_with_cell(sources))
    task = progress.add_task("training steps", total=len(chosen))
    found = []
    for path, notebook in chosen:
        notebook.cells.append(nbformat.v4.new_code_cell(CELL.format(rounds=rounds)))
        seconds = _seconds(path, notebook)
        found.append({"lesson": path.stem, "track": path.parent.name, **seconds})
        progress.advance(task)
    return found


def _with_cell(sources: list[Path]) -> Iterator[tuple[Path, nbformat.NotebookNode]]:
    """Give each notebook that has the cell, cut off after it."""
    for path in sources:
        notebook = nbformat.read(path, as_version=4)
        ids = [cell.id for cell in notebook.cells]
        if NAME in ids:
            del notebook.cells[ids.index(NAME) + 1 :]
            yield path, notebook


def _seconds(path: Path, notebook: nbformat.NotebookNode) -> dict[str, list[float]]:
    from quartet.run import execute  # slow to import, and no kernel needs it

    outcome = execute(notebook, path.parent)
    if outcome.error:
        raise QuartetError(f"{path.stem} fails in {path.parent.name}: {outcome.error}")
    return next(o.data[MIME] for o in notebook.cells[-1].outputs if MIME in o.get("data", {}))
