"""Measure what anyone can measure again: kernels, training steps, checks, and grading.

`measure` runs and times kernels and notebooks, `steps` training, `checking` self-checks, `grading`
classes, `proof` (by way of `measured`) all of `make test`; `page` makes the tables and the plot in
docs/bench/ from what they found.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import Progress

from quartet import QuartetError
from quartet.bench import checking, grading, measure, page, proof, steps
from quartet.build import write
from quartet.executed import versions
from quartet.run import find_notebooks
from utils.tracks import ROOT

SAMPLE = "03_dense_layers"  # the lesson that stands for all where each is run many times
QUICK = "01_tensors"  # answers to its exercises take no time

# name -> what measures it: (all notebooks, rounds, progress) -> JSON
PARTS: dict[str, Callable[[list[Path], int, Progress], Any]] = {
    "warming": lambda sources, rounds, progress: measure.warming(progress),
    "starts": lambda sources, rounds, progress: measure.starts(rounds, progress),
    "memory": lambda sources, rounds, progress: measure.memory(rounds, progress),
    "lessons": lambda sources, rounds, progress: measure.lessons(
        [path for path in sources if path.stem == SAMPLE], rounds, progress
    ),
    "tiny": lambda sources, rounds, progress: measure.tiny(rounds, progress),
    "tree": measure.tree,
    "steps": steps.epochs,
    "checks": lambda sources, rounds, progress: checking.checks(
        find_notebooks((), kind="solution"), rounds, progress
    ),
    "grading": lambda sources, rounds, progress: grading.classes(QUICK, grading.CLASS, progress),
    "training": lambda sources, rounds, progress: grading.classes(SAMPLE, grading.CLASS, progress),
    "many": lambda sources, rounds, progress: grading.thousand(SAMPLE, "pytorch", grading.MANY),
}
PROOF = "proof"  # measured only when it is asked for: it takes hours


def bench(parts: Iterable[str] = (), rounds: int = 5, root: Path = ROOT, against: str = "") -> Path:
    """Measure in rounds and write `docs/bench/`: results.json, a table and a plot.

    Everything that is compared runs once in each round, one after the other.

    Parameters
    ----------
    parts : names in PARTS, or "proof"; all of PARTS if there are none. What is not measured now
        stays as it is.
    against : the commit that "proof" compares this one with.

    Raises
    ------
    QuartetError if there is no such part, or a notebook fails; what was measured before is kept.
    """
    chosen = list(parts) or list(PARTS)
    known = PARTS | {PROOF: lambda sources, rounds, bar: proof.proof(against, rounds, bar)}
    for name in chosen:
        if name not in known:
            raise QuartetError(f"There is no part {name!r}. Choose among {', '.join(known)}.")
    if PROOF in chosen and not against:
        raise QuartetError("The proof is measured against an earlier commit: say --against COMMIT.")
    sources = find_notebooks((), root=root)
    folder = root / "docs" / "bench"
    with Progress() as progress:
        for name in chosen:  # each is kept at once: some take an hour
            new = {name: known[name](sources, rounds, progress)}
            found = merged(folder / "results.json", new)
            write(folder / "results.json", json.dumps(found, indent=1) + "\n")
    write(folder / "README.md", page.table(found))
    page.plot(found, folder / "bench.png")
    return folder / "README.md"


def merged(path: Path, new: dict[str, Any]) -> dict[str, Any]:
    """Return the results in a file with new ones in the place of old, and when each was found."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    today = datetime.now(UTC).date().isoformat()
    measured = old.get("measured", {}) | dict.fromkeys(new, today)
    return old | about() | {"measured": measured} | new


def about() -> dict[str, Any]:
    """Return on what and with what was measured."""
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
    }
