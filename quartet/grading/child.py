"""A learner's process: it runs the cells and calls the functions that it is asked for.

Nothing in it is trusted, and it holds nothing worth having: no reference, no solution, no points.
It is started as `python -m quartet.grading.child TRACK`, or forked from a warm process.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from utils import checks, limits, wire
from utils.tracks import TRACKS

TOO_MUCH_MEMORY, TOO_LATE = 90, 93  # exit statuses that say so
LONGEST_TEXT = 2000  # characters of a message


class Recorder:
    """Stands in for the notebook's `check`: it only notes what is handed over."""

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}

    def __call__(self, name: str, function: Any) -> None:
        self.functions[name] = function

    def summary(self) -> None:
        """Do nothing: points are counted elsewhere."""


class Child:
    """Runs cells in an IPython shell and answers calls."""

    def __init__(self, track: str, grader: int | None = None) -> None:
        """Make a shell for a track; `grader` is the socket that the questions come from."""
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        self.track = TRACKS[track]
        self.grader = grader
        self.recorder = Recorder()
        checks.load = lambda lesson, track: self.recorder
        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell.instance(config=config, colors="nocolor")
        self.shell.showtraceback = lambda *args, **named: None
        self.shell.user_ns["check"] = self.recorder

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked for, and say what came of it."""
        if question["do"] == "lock":
            return {"problem": lock(**_without(question, "do", "seconds"), grader=self.grader)}
        if question["do"] == "run":
            if question["check"]:  # whatever the learner has called `check`
                self.shell.user_ns["check"] = self.recorder
                self.recorder.functions.pop(question["check"], None)
            return {"problem": self.run(question["source"], question["seconds"])}
        return self.call(question["exercise"], question["args"], question["seconds"])

    def run(self, source: str, seconds: float) -> str:
        """Run a cell; return what it raised, "" if nothing."""
        try:
            ran = limits.limited(lambda: self.shell.run_cell(source), seconds, give_up)
        except TimeoutError:
            return f"the cell passed its time limit of {seconds:g} s"
        error = ran.error_before_exec or ran.error_in_exec
        if isinstance(error, MemoryError):  # what it holds would starve the other cells
            os._exit(TOO_MUCH_MEMORY)
        return _describe(error) if error else ""

    def call(self, exercise: str, args: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Call the function of an exercise."""
        if exercise not in self.recorder.functions:
            return {"problem": "its check got no function"}
        function = self.recorder.functions[exercise]
        answer = checks.call(function, checks.Case(args), self.track, seconds, give_up)
        return {
            "value": answer.value,
            "problem": answer.problem[:LONGEST_TEXT],
            "unwritten": answer.unwritten,
        }


def give_up() -> None:
    """End the process: it runs code that hears no interrupt."""
    os._exit(TOO_LATE)


def lock(
    scratch: str, readable: list[str], limits: dict[str, int], grader: int | None = None
) -> str:
    """Go on in a process that is locked in; return why that is not to be had, "" if it is."""
    from quartet.grading import sandbox  # not for every platform

    try:
        sandbox.enter(Path(scratch), map(Path, readable), sandbox.Limits(**limits), grader)
    except sandbox.NoSandbox as reason:
        return str(reason)
    homes = ("HOME", "TMPDIR", "MPLCONFIGDIR")
    os.environ.update(dict.fromkeys(homes, scratch))
    tempfile.tempdir = None
    return ""


def main() -> None:
    """Answer questions from standard input until it is closed."""
    channel = _take_over_streams()
    stream = channel.makefile("rwb")
    os.environ["MPLBACKEND"] = "agg"
    child = Child(sys.argv[-1], channel.fileno())
    while question := wire.receive(stream.read):
        name = {"name": question.pop("name")}
        answer = child.answer(question)
        try:
            wire.send(stream, answer | name)
        except wire.WireError as error:
            wire.send(stream, {"problem": f"its result cannot be compared: {error}"} | name)


def _take_over_streams() -> socket.socket:
    """Return the socket to the judge; prints of the learner's code go nowhere."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    return channel


def _without(question: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in question.items() if name not in names}


def _describe(error: BaseException) -> str:
    """Say what was raised and where in the learner's cells."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{checks.own_lines(error)}"[:LONGEST_TEXT]


if __name__ == "__main__":
    main()
