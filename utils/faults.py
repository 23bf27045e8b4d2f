"""Deliberate errors: a cell says which error it expects, and at which of its own lines.

    with faults.expect(ValueError, line="X @ W") as fault:
        predict(X)

prints the traceback as short as it can be read, keeps what it measured in `fault`, and fails
where the framework now says something else: another type, another line, or nothing.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

WIDTH = 88


class Fault:
    """What an expected error looked like.

    type, message   the exception's class name and the first line of its text
    line            the source of the innermost line of the notebook that the traceback names
    frames          how many frames the traceback has, counted from the line of the block
    error           the exception itself
    """

    def __init__(self) -> None:
        self.type = self.message = self.line = ""
        self.error: BaseException | None = None
        self._stack: list[traceback.FrameSummary] = []

    @property
    def frames(self) -> int:
        return len(self._stack)

    def below(self, text: str) -> int | None:
        """Return how many frames stand below the notebook's innermost line that holds `text`.

        0: it is the last line of the traceback. None: the traceback does not name it.
        """
        for depth, frame in enumerate(reversed(self._stack)):
            if _ours(frame) and text in (frame.line or ""):
                return depth
        return None

    def _take(self, error: BaseException) -> None:
        self.error, self.type = error, type(error).__name__
        self.message = first_line(error)
        self._stack = list(traceback.extract_tb(error.__traceback__))[1:]
        self.line = [frame.line for frame in self._stack if _ours(frame)][-1]

    def __str__(self) -> str:
        """Return the traceback: the notebook's lines, how many of each library's between, the error."""
        lines = []
        for place, frames in groupby(self._stack, key=_place):
            frames = list(frames)
            if place is None:
                lines += [f"  line {frame.lineno}: {frame.line}" for frame in frames]
            else:
                lines.append(f"    ... {len(frames)} frame{'s'[: len(frames) > 1]} of {place}")
        return "\n".join(line[:WIDTH] for line in [*lines, f"{self.type}: {self.message}"])


@contextmanager
def expect(kind: type[BaseException], *, line: str) -> Iterator[Fault]:
    """Expect an error in the block, print its traceback shortened, and go on.

    kind: the exception's class, or one that it is derived from.
    line: text of the innermost line of the notebook that the traceback names.

    Raises AssertionError where no error comes, or one of another class, or at another line.
    """
    fault = Fault()
    try:
        yield fault
    except kind as error:
        fault._take(error)
    except Exception as error:
        raise AssertionError(
            f"Expected {kind.__name__}, and {type(error).__name__} came: {first_line(error)}"
        ) from error
    else:
        raise AssertionError(f"Expected {kind.__name__}, and no error came.")
    print(fault)
    if line not in fault.line:
        raise AssertionError(f"Expected the line {line!r}, and the traceback names {fault.line!r}.")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something, without memory addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"0x[0-9a-f]+", "0x...", lines[0]) if lines else ""


def _ours(frame: traceback.FrameSummary) -> bool:
    """Return whether a frame is the notebook's: IPython compiles each cell as a file of its own."""
    return "ipykernel_" in frame.filename or frame.filename.startswith("<ipython-input")


def _place(frame: traceback.FrameSummary) -> str | None:
    """Return the name of the library of a frame; None for the notebook's own."""
    if _ours(frame):
        return None
    parts = Path(frame.filename).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Python" if any(part.startswith("python3") for part in parts) else parts[-1]
