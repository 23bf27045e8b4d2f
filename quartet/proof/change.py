"""What a change can have broken: each unit of tests has a fingerprint, kept once all of it passed.

`--changed` leaves out the units whose fingerprint is still the same. The quick tests of a file are
a unit of their own here: they may read more, so that they run again sooner.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from quartet import executed, fingerprint
from quartet.build import write
from quartet.pages import FOLDERS
from quartet.proof import order
from quartet.source import lesson_names

PROVED = Path(".quartet") / "proved.json"  # unit -> its fingerprint when all of it last passed
QUICK = " (quick)"
UNIT = re.compile(r"(?P<file>[^\[]+?)(\[(?P<lesson>\w+)\])?(?P<quick> \(quick\))?")
# What a file of tests has in its text if it looks at all lessons, or at files of the project: by
# the functions that do so unless they are given the root of another course, or by a path.
ALL_LESSONS = re.compile(r"\b(lesson_names|read_course)\(\)|\bfind_notebooks\((?!.*root=)")
ALL_FILES = re.compile(r"\b(ROOT|DATA) / ")
FROM_HEADING = re.compile(r"-\d+$")  # ends the id of a cell that has no name: no test asks for it
SET_UP = ("Makefile", "pyproject.toml", "constraints.txt", "environment.yml")
SET_UP_FOLDERS = ("config", "tools")
NO_SOURCES = {".git", ".venv", ".quartet", *fingerprint.NO_SOURCES}


class Fingerprints:
    """The fingerprints of a project's units; each file is looked at once."""

    def __init__(self, root: Path) -> None:
        self.root, self.lessons = root, lesson_names(root)
        self._file, self._lesson = cache(self._file), cache(self._lesson)
        self._set_up, self._everything = cache(self._set_up), cache(self._everything)

    def of(self, unit: str) -> str:
        """Return the fingerprint of a unit, named as `name` does."""
        about = UNIT.fullmatch(unit)
        file, lesson, quick = self.root / about["file"], about["lesson"], bool(about["quick"])
        if file.suffix == ".ipynb":
            return _notebook(file)
        text, parts = file.read_text(encoding="utf-8"), [self._file(file)]
        parts += [self._lesson(each, quick) for each in self._named(lesson, text)]
        if not lesson and ALL_FILES.search(text):
            parts.append(self._everything() if quick else self._set_up())
        return fingerprint.of([], *parts)

    def _named(self, lesson: str | None, text: str) -> list[str]:
        """Return the lessons that tests are about."""
        if lesson:
            return [lesson]
        asks_for_all = bool(ALL_LESSONS.search(text))
        return [each for each in self.lessons if asks_for_all or each in text]

    def _file(self, file: Path) -> str:
        """Return the fingerprint of what every test in a file depends on."""
        shared = {p for p in file.parent.glob("*.py") if not p.name.startswith("test_")}
        files = {file, self.root / "data" / "index.toml", *shared}
        used = fingerprint.imported(path.read_text("utf-8") for path in files if path.is_file())
        return fingerprint.of(files | used, fingerprint.environment(), root=self.root)

    def _lesson(self, lesson: str, prose: bool) -> str:
        """Return the fingerprint of a lesson: its code in all tracks, or all that is written."""
        folder, name = self.root / "lessons" / lesson, f"{lesson}.ipynb"
        built = [
            p for kind in FOLDERS.values() for p in sorted((self.root / kind).glob(f"*/{name}"))
        ]
        if prose:
            return fingerprint.of([*fingerprint.walk(folder), *built], root=self.root)
        cells = [cell for path in built for cell in fingerprint.code(path)]
        named = [cell["id"] for cell in cells if not FROM_HEADING.search(cell["id"])]
        files = [folder / name for name in ("checks.py", "controls.toml", "recorded.json")]
        return fingerprint.of(files, fingerprint.about_code(cells), named, root=self.root)

    def _set_up(self) -> str:
        """Return the fingerprint of what sets the project up."""
        files = [self.root / name for name in SET_UP]
        for folder in SET_UP_FOLDERS:
            files += fingerprint.walk(self.root / folder, NO_SOURCES)
        return fingerprint.of(files, root=self.root)

    def _everything(self) -> str:
        """Return the fingerprint of all files of the project that git does not ignore."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        try:
            listed = subprocess.run(command, cwd=self.root, capture_output=True, check=True)
            files = [self.root / name for name in listed.stdout.decode().split("\0") if name]
        except (OSError, subprocess.CalledProcessError):  # there is no git, or no repository
            files = fingerprint.walk(self.root, NO_SOURCES)
        return fingerprint.of(files, root=self.root)


def _notebook(path: Path) -> str:
    """Return the fingerprint of a notebook that nbval runs: with the outputs that it compares."""
    stored = [[cell["execution_count"], cell["outputs"]] for cell in fingerprint.code(path)]
    return fingerprint.of([], executed.digest(path), stored)


def name(item: pytest.Item, lessons: list[str]) -> str:
    """Return the unit of a test, with a remark if it is among the quick tests of a file."""
    unit = order.unit(item.nodeid, lessons)
    return unit if unit.endswith(".ipynb") or item.get_closest_marker("slow") else unit + QUICK


def proved(root: Path) -> dict[str, str]:
    """Return unit -> fingerprint of what has passed."""
    path = root / PROVED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class Leaving:
    """Where tests run: leaves out what is proved, if so asked; says on reports what they prove."""

    def __init__(self, config: pytest.Config) -> None:
        self.units: dict[str, tuple[str, str, int]] = {}  # test -> unit, fingerprint, tests in it
        self.changed = config.getoption("changed")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Iterator[None]:
        of_unit = defaultdict(list)
        lessons, fingerprints = lesson_names(config.rootpath), Fingerprints(config.rootpath)
        for item in items:  # also those that `-k` and `-m` leave out
            if item.path.is_relative_to(config.rootpath):
                of_unit[name(item, lessons)].append(item.nodeid)
        if self.changed or not _is_part(config):
            for unit, tests in of_unit.items():
                about = unit, fingerprints.of(unit), 0 if _is_part(config) else len(tests)
                self.units |= dict.fromkeys(tests, about)
        yield
        if self.changed:
            self._leave_out(config, items)

    def _leave_out(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        # Others may write the file meanwhile, and all workers must leave out the same.
        is_worker = hasattr(config, "workerinput")
        known = config.workerinput["quartet-proved"] if is_worker else proved(config.rootpath)
        left_out, units = [], set()
        for item in items:
            unit, text, _ = self.units.get(item.nodeid, ("", "", 0))
            if unit and known.get(unit) == text:
                left_out.append(item)
                units.add(unit)
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
        about = len(left_out), len(units)
        if keeping := config.pluginmanager.get_plugin("quartet-keeping"):
            keeping.left_out = about
        else:
            config.workeroutput["quartet-left-out"] = about

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        report = yield
        report.unit = self.units.get(item.nodeid)
        return report


def _is_part(config: pytest.Config) -> bool:
    """Return whether some of a file's tests may not even be collected."""
    return any("::" in each for each in config.args) or bool(config.getoption("lf", False))


class Keeping:
    """Where all reports come together: keeps which units have passed as a whole."""

    left_out = 0, 0  # tests, units

    def __init__(self, config: pytest.Config) -> None:
        self.root, self.lessons = config.rootpath, lesson_names(config.rootpath)
        self.proved = proved(self.root)
        self.ended: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        self.ran: set[str] = set()
        self.failed: set[str] = set()

    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["quartet-proved"] = self.proved

    def pytest_testnodedown(self, node: Any) -> None:
        about = getattr(node, "workeroutput", {})  # one that crashed has none
        self.left_out = about.get("quartet-left-out", self.left_out)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(order.unit(report.nodeid, self.lessons))
        if about := getattr(report, "unit", None):
            self.ran |= {about[0]} if report.when == "call" and report.passed else set()
            self.ended[tuple(about)] |= {report.nodeid} if report.when == "teardown" else set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.left_out[0] and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        before = proved(self.root)
        passed = {u: f for (u, f, size), tests in self.ended.items() if len(tests) == size}
        kept = before | {unit: text for unit, text in passed.items() if unit in self.ran}
        kept = {u: f for u, f in kept.items() if u.removesuffix(QUICK) not in self.failed}
        if kept != before:
            write(self.root / PROVED, json.dumps(kept, indent=0, sort_keys=True) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.left_out[0]:
            tests, units = self.left_out
            text = f"Left out: {tests} tests, in {units} notebooks and files, that have passed "
            text += "and depend on nothing that has changed since. `make test` runs them, too."
            terminalreporter.write_line(text)
