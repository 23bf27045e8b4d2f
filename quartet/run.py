"""Run notebooks, with other parameters if wanted, and measure their time and memory."""

from __future__ import annotations

import ast
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nbformat
import papermill
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from quartet import QuartetError
from quartet.build import write
from quartet.pages import FOLDERS
from quartet.source import lesson_names, resolve
from quartet.warm.provisioner import use_warm_kernels
from utils.tracks import ROOT, TRACKS

SAMPLE_SECONDS = 0.1
SHARE = 30  # to look takes at most one part in so many of a processor: much memory takes long
MIB = 2**20


@dataclass(frozen=True)
class Outcome:
    """How running a notebook went: its time, the peak memory of its kernel, what stopped it."""

    seconds: float
    peak_mib: float
    error: str = ""


@dataclass(frozen=True)
class Run:
    """One notebook that was run, what came of it, and the file that holds the result."""

    lesson: str
    track: str
    outcome: Outcome
    result: Path


def run(
    names: Iterable[str],
    tracks: Iterable[str] = (),
    parameters: dict[str, Any] | None = None,
    out: Path = Path("runs"),
    kind: str = "notebook",
    html: bool = False,
    root: Path = ROOT,
) -> list[Run]:
    """Run the notebooks of some lessons one after the other, showing progress and a summary.

    Parameters
    ----------
    names : lessons as `03`, `03_dense_layers` or a path; all of them if there are none.
    tracks : names of tracks; all of them if there are none.
    parameters : new values for names that the notebooks' cell of parameters has.
    out : folder for the results, `TRACK/LESSON.ipynb`; a run that failed leaves
        `TRACK/LESSON.failed.ipynb`, with the outputs up to the failure.
    kind : "notebook" or "solution".
    html : write HTML instead of notebooks.

    Raises
    ------
    QuartetError if a notebook or a parameter does not exist; then nothing is run.
    """
    sources = find_notebooks(names, tracks, kind, root)
    for source in sources:
        _check_parameters(source, parameters or {})
    runs, columns = [], (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for source in sources:
            runs.append(run_notebook(source, out, progress, parameters or {}, html))
    console.print(summary(runs))
    return runs


def find_notebooks(
    names: Iterable[str], tracks: Iterable[str] = (), kind: str = "notebook", root: Path = ROOT
) -> list[Path]:
    """Return the built notebooks of some lessons and tracks.

    Raises
    ------
    QuartetError if a lesson or a track is unknown, or a notebook is not built.
    """
    wanted = list(tracks) or list(TRACKS)
    for track in wanted:
        if track not in TRACKS:
            raise QuartetError(f"There is no track {track!r}. Choose among {', '.join(TRACKS)}.")
    lessons = resolve(names, lesson_names(root))
    folder = root / FOLDERS[kind]
    paths = [folder / t / f"{lesson}.ipynb" for lesson in lessons for t in TRACKS if t in wanted]
    for path in paths:
        if not path.is_file():
            where = path.relative_to(root).as_posix()
            raise QuartetError(f"{where} is missing. Run `quartet build {path.stem[:2]}`.")
    return paths


def run_notebook(
    source: Path,
    out: Path,
    progress: Progress,
    parameters: dict[str, Any] | None = None,
    html: bool = False,
) -> Run:
    """Run one built notebook with a progress bar and write the result below `out`."""
    notebook = _prepare(source, parameters or {})
    code = sum(c.cell_type == "code" and bool(c.source.strip()) for c in notebook.cells)
    task = progress.add_task(_label(source), total=code)
    outcome = execute(notebook, source.parent, lambda: progress.advance(task))
    result = _save(notebook, out / source.parent.name / source.stem, html, outcome)
    return Run(source.stem, source.parent.name, outcome, result)


def execute(
    notebook: NotebookNode,
    folder: Path,
    on_cell: Callable[[], None] = lambda: None,
    timeout: float | None = None,
) -> Outcome:
    """Run a notebook in a new kernel and put the outputs into it, as far as it gets.

    Parameters
    ----------
    folder : the kernel's working folder.
    on_cell : called after each code cell.
    timeout : the limit for each cell in seconds; None for no limit.
    """
    use_warm_kernels()
    started: list[int] = []
    client = NotebookClient(
        notebook,
        timeout=timeout,
        iopub_timeout=60,  # for outputs that come late; nbclient drops them after 4 seconds
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_execute=lambda cell, cell_index: started.append(cell_index),
        on_cell_executed=lambda **about: on_cell(),
    )
    begin = time.perf_counter()
    with _PeakMemory(client) as memory:
        error = _execute(client, lambda: notebook.cells[started[-1]] if started else None)
    return Outcome(time.perf_counter() - begin, memory.peak / MIB, error)


def parse_value(text: str) -> Any:
    """Return a parameter's value: a Python literal such as 3, 1e-3 or False, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def summary(runs: list[Run]) -> Table:
    """Return a table of runs, with time and memory."""
    table = Table("track", "lesson", title="Runs")
    table.add_column("seconds", justify="right")
    table.add_column("peak MiB", justify="right")
    table.add_column("status")
    for each in runs:
        status = "[red]failed[/red]" if each.outcome.error else "[green]ok[/green]"
        numbers = (f"{each.outcome.seconds:.1f}", f"{each.outcome.peak_mib:.0f}")
        table.add_row(each.track, each.lesson, *numbers, status)
    return table


class _PeakMemory:
    """While it is entered, a thread keeps the peak of the memory of a client's kernel.

    The sum over the kernel and its child processes is meant.
    """

    def __init__(self, client: NotebookClient) -> None:
        self.client, self.peak = client, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._done.wait(pause):
            begin = time.thread_time()
            self.peak = max(self.peak, self._sample())
            pause = max(SAMPLE_SECONDS, SHARE * (time.thread_time() - begin))

    def _sample(self) -> int:
        pid = getattr(getattr(self.client.km, "provisioner", None), "pid", None)
        return memory(pid) if pid else 0


def memory(pid: int) -> int:
    """Return the memory in bytes of a process and of what it started; 0 if it is gone.

    What they share counts once on Linux (proportional set size), elsewhere once for each.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_full_info().pss if psutil.LINUX else each.memory_info().rss
    return total


def _execute(client: NotebookClient, current: Callable[[], NotebookNode | None]) -> str:
    """Run a client's notebook; return what stopped it, or an empty text."""
    with tempfile.TemporaryFile("w+", errors="replace") as stderr:
        try:
            client.execute(stderr=stderr)
            return ""
        except CellExecutionError as error:
            what = f"{error.ename}: {error.evalue}"
        except CellTimeoutError:
            what = f"it ran for more than {client.timeout:g} seconds"
        except DeadKernelError:
            what = f"the kernel died: it crashed, was killed, or memory ran out. {_last(stderr)}"
        except RuntimeError as error:
            what = f"the kernel did not start: {error}. {_last(stderr)}"
    cell = current()
    where = f"cell {cell.id!r} (`{cell.source.strip().splitlines()[0]}`): " if cell else ""
    return where + what.strip()


def _last(stderr: IO[str]) -> str:
    """Return the last line that a kernel wrote for its terminal, where that was no warning."""
    stderr.seek(0)
    lines = [line.strip() for line in stderr if line.strip() and "WARNING" not in line]
    return f"It said: {lines[-1]}" if lines else ""


def _check_parameters(source: Path, parameters: dict[str, Any]) -> None:
    """Raise QuartetError if a notebook does not have one of the parameters."""
    if not parameters:
        return
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            has = f"It has {', '.join(known)}." if known else "It has none."
            raise QuartetError(f"{_label(source)} has no parameter {name!r}. {has}")


def _prepare(source: Path, parameters: dict[str, Any]) -> NotebookNode:
    """Return a notebook with the parameters put in by papermill."""
    if not parameters:
        return nbformat.read(source, as_version=4)
    return papermill.execute_notebook(
        str(source), None, parameters, prepare_only=True, progress_bar=False
    )


def _save(notebook: NotebookNode, stem: Path, html: bool, outcome: Outcome) -> Path:
    """Write the result of a run; remove what another run left there under these names."""
    ending = ".failed" if outcome.error else ""
    for old in (".ipynb", ".html", ".failed.ipynb", ".failed.html"):
        Path(f"{stem}{old}").unlink(missing_ok=True)
    target = Path(f"{stem}{ending}{'.html' if html else '.ipynb'}")
    write(target, _to_html(notebook) if html else nbformat.writes(notebook) + "\n")
    return target


def _to_html(notebook: NotebookNode) -> str:
    from nbconvert import HTMLExporter  # slow to import

    return HTMLExporter().from_notebook_node(notebook)[0]


def _label(source: Path) -> str:
    return os.sep.join(source.parts[-3:])
