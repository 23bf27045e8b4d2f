"""Measure time and memory of the notebooks in all tracks, in rounds, for maintainers."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from quartet import QuartetError
from quartet.build import write
from quartet.executed import versions
from quartet.run import Outcome, find_notebooks, run_notebook
from utils.tracks import ROOT


def bench(names: Iterable[str] = (), rounds: int = 3, root: Path = ROOT) -> Path:
    """Run notebooks, track after track in each round; print a table; return the results' path.

    Raises
    ------
    QuartetError if a notebook fails; then nothing is written.
    """
    sources = find_notebooks(names, root=root)
    results = _summarize(_measure(sources, rounds))
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": versions(),
        "rounds": rounds,
    }
    path = root / "bench" / "results.json"
    write(path, json.dumps(about | {"results": results}, indent=1) + "\n")
    Console().print(_table(results))
    return path


def _measure(sources: list[Path], rounds: int) -> dict[tuple[str, str], list[Outcome]]:
    """Run every notebook once in each round; return (lesson, track) -> outcomes."""
    measured: dict[tuple[str, str], list[Outcome]] = {}
    with Progress() as progress, tempfile.TemporaryDirectory() as out:
        for _ in range(rounds):
            for source in sources:
                each = run_notebook(source, Path(out), progress)
                if each.outcome.error:
                    raise QuartetError(f"{each.lesson} fails in {each.track}: {each.outcome.error}")
                measured.setdefault((each.lesson, each.track), []).append(each.outcome)
    return measured


def _summarize(measured: dict[tuple[str, str], list[Outcome]]) -> list[dict[str, Any]]:
    medians = {key: median(o.seconds for o in outcomes) for key, outcomes in measured.items()}
    results = []
    for (lesson, track), outcomes in measured.items():
        fastest = min(value for key, value in medians.items() if key[0] == lesson)
        numbers = {
            "seconds": [round(o.seconds, 2) for o in outcomes],
            "median_seconds": round(medians[lesson, track], 2),
            "peak_mib": round(max(o.peak_mib for o in outcomes)),
            "times_fastest": round(medians[lesson, track] / fastest, 2),
        }
        results.append({"lesson": lesson, "track": track} | numbers)
    return results


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table("lesson", "track", title="Benchmark")
    for heading in ("median seconds", "peak MiB", "times the fastest"):
        table.add_column(heading, justify="right")
    for each in results:
        numbers = (each["median_seconds"], each["peak_mib"], each["times_fastest"])
        table.add_row(each["lesson"], each["track"], *map(str, numbers))
    return table
