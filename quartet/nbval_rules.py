"""A pytest plugin that makes nbval strict where it is silent, and keeps what it executed.

Load it with `-p quartet.nbval_rules`. What it mends: a dead kernel fails at once; a checked cell
without stored output fails; a cell that should raise and does not fails; after a failure the later
cells are skipped and say why; a notebook of which no cell ran fails the suite; a semicolon at the
end of a cell hides its result, as in JupyterLab.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import (
    IPyNbCell,
    IPyNbFile,
    find_comment_markers,
    find_metadata_tags,
)

from quartet import executed
from quartet.warm.provisioner import use_warm_kernels

NBVAL_TIMEOUT = 2000  # nbval's own default
CELL_TIMEOUT = 300
POLL_SECONDS = 1.0


class KernelDied(Exception):
    """The kernel's process ended while a cell ran."""


class Notebook(IPyNbFile):
    """A notebook of which nothing goes wrong in silence."""

    first_failure = ""

    def collect(self) -> Iterator[pytest.Item]:
        cells = list(super().collect())
        if not cells:
            raise self.CollectError(f"{self.path.name} has no code cell: nothing would be run.")
        self.outputs: list[list[Any] | None] = [None] * len(cells)
        for cell in cells:
            about = {"cell_num": cell.cell_num, "cell": cell.cell, "options": cell.options}
            yield Cell.from_parent(self, name=cell.name, **about)

    def setup(self) -> None:
        self.held = ExitStack()
        if self._is_built():
            self.place = self.held.enter_context(executed.lock(self.path))
        super().setup()
        self.kernel.await_reply = _Patient(self.kernel)
        self.kernel.execute_cell_input = lambda source, allow_stdin=None: self.kernel.kc.execute(
            source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )

    def teardown(self) -> None:
        super().teardown()
        self.held.close()

    def keep(self, number: int, outputs: list[Any]) -> None:
        """Take a cell's outputs; once all cells have passed, keep the executed notebook."""
        self.outputs[number] = outputs
        if self._is_built() and None not in self.outputs:
            executed.store(self.place, self._executed())

    def _is_built(self) -> bool:
        return "track" in self.nb.metadata.get("quartet", {})

    def _executed(self) -> Any:
        notebook = copy.deepcopy(self.nb)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, (cell, outputs) in enumerate(zip(code, self.outputs, strict=True)):
            cell.outputs, cell.execution_count = copy.deepcopy(outputs), number + 1
        return notebook


class Cell(IPyNbCell):
    """A code cell that is skipped after a failure, and must do what its tags say."""

    def setup(self) -> None:
        """Do without nbval's own mark for cells after a timeout: they are skipped."""

    def runtest(self) -> None:
        if self.parent.first_failure:
            pytest.skip(self.parent.first_failure)
        try:
            self._check_stored()
            super().runtest()
            self._check_raised()
        except Exception as error:
            reason = str(error).partition("\n")[0]
            where = f"{self.parent.nodeid}: cell {self.cell_num}"
            self.parent.first_failure = f"{where} failed before: {reason}"
            if isinstance(error, KernelDied):
                self.raise_cell_error(reason)
            raise
        self.parent.keep(self.cell_num, self.test_outputs)

    def _check_stored(self) -> None:
        """Fail if the cell's output is to be compared and none is there to compare with."""
        marked = dict(find_metadata_tags(self.cell.metadata)) | dict(
            find_comment_markers(self.cell.source)
        )
        stored = self.cell.outputs and self.cell.execution_count is not None
        if marked.get("check") and not stored:
            self.raise_cell_error(
                "This cell's output is to be checked, but none is stored. "
                "Run `quartet record` for its lesson."
            )

    def _check_raised(self) -> None:
        kinds = [output.output_type for output in self.test_outputs]
        if self.options["check_exception"] and "error" not in kinds:
            self.raise_cell_error("This cell is tagged `raises-exception`, but it raised nothing.")


class _Patient:
    """Await a kernel's reply as nbval does, but look whether the kernel still lives."""

    def __init__(self, kernel: RunningKernel) -> None:
        self.kernel = kernel

    def __call__(self, msg_id: str, timeout: float | None = None) -> None:
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while True:
            alive = self.kernel.is_alive()  # asked before, so that a last reply is still read
            try:
                left = max(end - time.monotonic(), 0)
                return RunningKernel.await_reply(self.kernel, msg_id, min(POLL_SECONDS, left))
            except Empty:
                if not alive:
                    raise KernelDied(
                        "The kernel died in this cell: it crashed, was killed, or memory ran out."
                    ) from None
                if time.monotonic() >= end:
                    raise


class _Ran:
    """Remember which notebooks had a cell that ran, to fail the suite for those that had none."""

    def __init__(self) -> None:
        self.ran: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[0]
        if name.endswith(".ipynb"):
            has_run = report.outcome == "failed" or (report.when == "call" and report.passed)
            self.ran[name] = self.ran.get(name, False) or has_run

    @property
    def idle(self) -> list[str]:
        return sorted(name for name, ran in self.ran.items() if not ran)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.idle and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name in self.idle:
            terminalreporter.write_line(f"FAILED {name}: none of its cells ran", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Shorten the cells' time limit, show the reasons of skips, watch that notebooks run."""
    if not (config.option.nbval or config.option.nbval_lax):
        return
    use_warm_kernels()
    if config.option.nbval_cell_timeout == NBVAL_TIMEOUT:
        config.option.nbval_cell_timeout = CELL_TIMEOUT
    if not set("asA") & set(config.option.reportchars):
        config.option.reportchars += "s"
    if not hasattr(config, "workerinput"):  # with xdist, only where all reports come together
        config.pluginmanager.register(_Ran(), "quartet-ran")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Iterator[Any]:
    """Put our notebooks in the place of nbval's."""
    collected = yield
    return [
        Notebook.from_parent(parent, path=file_path) if type(each) is IPyNbFile else each
        for each in collected
    ]
