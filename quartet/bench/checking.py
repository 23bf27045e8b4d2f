"""Time how much longer a check takes than the learner's function that it calls."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from IPython.display import display
from rich.progress import Progress

from quartet import QuartetError
from utils.checks import Checker

MIME = "application/vnd.quartet.checking+json"
BAR = 0.2  # seconds
CALL = "check("  # what a check cell begins with
CELL = "from quartet.bench import checking\n\nchecking.show(check, {rounds}, {rest}"


def show(check: Checker, rounds: int, name: str, function: Callable) -> None:
    """Check in rounds; output the exercise and the seconds beyond the function's own as JSON."""
    own = 0.0

    @functools.wraps(function)
    def timed(*args: Any, **named: Any) -> Any:
        nonlocal own
        begin = time.perf_counter()
        try:
            return function(*args, **named)
        finally:
            own += time.perf_counter() - begin

    seconds = []
    for _ in range(rounds):
        own, begin = 0.0, time.perf_counter()
        check(name, timed)
        seconds.append(round(time.perf_counter() - begin - own, 4))
    found = {"exercise": name, "seconds": seconds}
    display({MIME: found, "text/plain": f"{found}"}, raw=True)


def checks(solutions: list[Path], rounds: int, progress: Progress) -> list[dict[str, Any]]:
    """Run solution notebooks; return lesson, track, exercise and seconds of each check in them.

    Raises
    ------
    QuartetError if a notebook fails.
    """
    from quartet.run import execute  # slow to import, and no kernel needs it

    found = []
    for path in progress.track(solutions, description="self-checks"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source.startswith(CALL):
                cell.source = CELL.format(rounds=rounds, rest=cell.source.removeprefix(CALL))
        outcome = execute(notebook, path.parent)
        if outcome.error:
            raise QuartetError(f"{path.stem} fails in {path.parent.name}: {outcome.error}")
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        shown = [output.data[MIME] for output in outputs if MIME in output.get("data", {})]
        found += [{"lesson": path.stem, "track": path.parent.name} | each for each in shown]
    return found
