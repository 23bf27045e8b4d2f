"""A pytest plugin: it measures each test, orders all of them, and can leave out what is proved.

`addopts` in pyproject.toml loads it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quartet.build import write
from quartet.proof import change, cost, order
from quartet.source import lesson_names

COSTS = Path(".quartet") / "costs.json"  # of the last run of each test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `--changed` leave out what is proved."""
    text = "leave out the tests that passed and depend on nothing that has changed since"
    parser.addoption("--changed", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Measure; where all reports come together, add up."""
    config.pluginmanager.register(_Measuring(), "quartet-measuring")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Adding(config), "quartet-adding")
        config.pluginmanager.register(change.Keeping(config), "quartet-keeping")
    config.pluginmanager.register(change.Leaving(config), "quartet-leaving")
    config.option.loadscopereorder = False  # the order is ours


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Say what `-n auto` means."""
    return order.workers()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> order.Scheduler | None:
    """Hand the tests out unit by unit, unless another way was asked for."""
    if config.getoption("dist") == "loadscope":
        return order.Scheduler(config, log, lesson_names(config.rootpath))
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests into their order."""
    items[:] = order.in_order(items, lesson_names(config.rootpath), known(config.rootpath))


def known(root: Path) -> dict[str, float]:
    """Return the processor seconds of each test when it was last run here."""
    path = root / COSTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class _Measuring:
    """Writes onto each report what was used since the last one."""

    def __init__(self) -> None:
        self.meter = cost.Meter()

    def pytest_runtest_logstart(self) -> None:
        self.meter.read()  # what came before is no test's

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[pytest.TestReport]:
        report = yield
        report.processor_seconds = self.meter.read()
        return report


class _Adding:
    """Adds up what the tests have used, shows it, and keeps it for the order of the next run."""

    def __init__(self, config: pytest.Config) -> None:
        self.root = config.rootpath
        self.costs: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.costs[report.nodeid] += getattr(report, "processor_seconds", 0)

    def pytest_sessionfinish(self) -> None:
        rounded = {nodeid: round(seconds, 2) for nodeid, seconds in self.costs.items()}
        if rounded:
            write(self.root / COSTS, json.dumps(known(self.root) | rounded, indent=0) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        found = cost.by_lesson(self.costs, lesson_names(self.root))
        if any(found):
            terminalreporter.section("what it cost")
            console = Console(width=120, file=terminalreporter._tw._file)
            console.print(cost.lesson_table(found))
            for line in cost.other_lines(found, self.costs):
                terminalreporter.write_line(line)
