"""Measure what anyone can measure again: warm kernels against plain ones, and every notebook.

`measure` runs and times; `page` makes the table and the plot in docs/bench/ from what it found.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import Progress

from quartet.bench import measure, page
from quartet.build import write
from quartet.executed import versions
from quartet.run import find_notebooks
from utils.tracks import ROOT


def bench(names: Iterable[str] = (), rounds: int = 5, root: Path = ROOT) -> Path:
    """Measure in rounds and write `docs/bench/`: results.json, a table and a plot.

    Everything that is compared runs once in each round, one after the other.

    Parameters
    ----------
    names : lessons as `03`, `03_dense_layers` or a path; all of them if there are none.

    Raises
    ------
    QuartetError if a notebook fails; then nothing is written.
    """
    sources = find_notebooks(names, root=root)
    with Progress() as progress:
        results = {
            "warming": measure.warming(progress),
            "starts": measure.starts(rounds, progress),
            "memory": measure.memory(rounds, progress),
            "lessons": measure.lessons(sources, rounds, progress),
            "tiny": measure.tiny(rounds, progress),
            "tree": measure.tree(sources, rounds, progress),
        }
    folder = root / "docs" / "bench"
    found = about(rounds) | results
    write(folder / "results.json", json.dumps(found, indent=1) + "\n")
    write(folder / "README.md", page.table(found))
    page.plot(found, folder / "bench.png")
    return folder / "README.md"


def about(rounds: int) -> dict[str, Any]:
    """Return when, on what and with what was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
    }
