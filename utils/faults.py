"""Deliberate errors: a cell says which error it expects, and at which of its own lines.

    with faults.expect(ValueError, line="X @ W") as fault:
        predict(X)

prints the traceback as short as it can be read, keeps what it measured in `fault`, and fails
where the framework now says something else: another type, another line, or nothing.

    said = faults.Said()
    with said.listen("silent broadcast", line="pred - y"):
        train(X, y)

expects nothing: it writes down what a framework says of its own accord, error, warning or nothing.
"""

from __future__ import annotations

import linecache
import logging
import re
import textwrap
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile, groupby
from pathlib import Path

WIDTH = 88
LOGGERS = ("tensorflow", "absl", "jax", "torch")
NOTHING = "nothing"
# A compiler writes into the text of an error which lines it was compiling, after one of these.
QUOTES = re.compile(r"(in|from) user code:|defined at \(most recent call last\):")
QUOTED = re.compile(r'^ *File "([^"\n]+)", line (\d+), in ([^\n]+)$', re.MULTILINE)
NODE = re.compile(r"\{\{function_node [^}]*\}\}\s*")  # names the kernel that ran, not the fault
ADDRESS = re.compile(r"0x[0-9a-f]+")
BOLD = re.compile(r"\x1b\[\d+m")
WRAPPED = "Exception encountered when calling"  # Keras, around the message of its engine


class Fault:
    """What an expected error looked like.

    type, message   the exception's class name and the first line of its text that says something
    line            the source of the innermost line of the notebook that the traceback names
    frames          how many frames the traceback has, counted from the line of the block; frames
                    that a compiler quotes in the text of its error are among them
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
        self._stack = [*list(traceback.extract_tb(error.__traceback__))[1:], *_quoted(error)]
        ours = [frame.line or "" for frame in self._stack if _ours(frame)]
        self.line = ours[-1] if ours else ""

    def __str__(self) -> str:
        """Return the traceback: the notebook's lines, the numbers of library frames, the error."""
        lines = []
        for place, frames in groupby(self._stack, key=_place):
            frames = list(frames)
            if place is None:
                lines += [f"  line {frame.lineno}: {frame.line}" for frame in frames]
            else:
                lines.append(f"    ... {len(frames)} frame{'s'[: len(frames) > 1]} of {place}")
        said = textwrap.wrap(f"{self.type}: {self.message}", WIDTH, max_lines=3, placeholder=" ...")
        return "\n".join([*(line[:WIDTH] for line in lines), *said])


@contextmanager
def expect(kind: type[BaseException], *, line: str) -> Iterator[Fault]:
    """Expect an error in the block, print its traceback shortened, and go on.

    kind: the exception's class, or one that it is derived from.
    line: text of the innermost line of the notebook that the traceback names.

    Raises AssertionError where no error comes, or one of another class, or at another line, and
    ValueError for an empty `line`, which any traceback would hold.
    """
    if not line.strip():
        raise ValueError("`line` is empty: say which of the cell's lines the error should name.")
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


class Said(dict[str, str]):
    """What a framework said of each fault of its own accord: name -> text, in the order heard."""

    @contextmanager
    def listen(self, name: str, *, line: str, log: bool = False) -> Iterator[None]:
        """Run the block, catch what it says, write it down under `name`, and print it.

        line: text of the line of the notebook that is at fault. The text that is kept says whether
        the error or the warning named that line, and how many frames stood below it.
        log: count the libraries' logs, too; they hold much that has nothing to do with the block.
        """
        fault = None
        with warnings.catch_warnings(record=True) as caught, _logged() as records:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)  # of a library, not of the fault
            try:
                yield
            except Exception as error:
                fault = Fault()
                fault._take(error)
        heard = [*_from_error(fault, line), *_from_warnings(caught, line)]
        heard += _from_log(records, line) if log else []
        self[name] = "; ".join(dict.fromkeys(what for what, _ in heard)) or NOTHING
        for text in dict.fromkeys(text.split(". ")[0][:WIDTH] for _, text in heard):
            print(text)
        print(f"-> {name}: {self[name]}")


def _from_error(fault: Fault | None, line: str) -> list[tuple[str, str]]:
    """Return what was heard and its text: a list of one, of none without an error."""
    if fault is None:
        return []
    return [(f"{fault.type}, {_where(fault.below(line))}", f"{fault.type}: {fault.message}")]


def _from_warnings(caught: list[warnings.WarningMessage], line: str) -> Iterator[tuple[str, str]]:
    for each in caught:
        named = _is_ours(each.filename) and line in linecache.getline(each.filename, each.lineno)
        kind = each.category.__name__
        yield f"{kind}, {_where(0 if named else None)}", f"{kind}: {first_line(each.message)}"


def _from_log(records: list[str], line: str) -> list[tuple[str, str]]:
    where = [_where(0 if line in record else None) for record in records]
    texts = [f"log: {record}" for record in records]
    return [(f"a line in the log, {w}", text) for w, text in zip(where, texts, strict=True)]


def quiet_logs() -> None:
    """Keep what the libraries write to their logs out of the notebook.

    `listen` hears it anyway, but not the parts of PyTorch that have a handler of their own.
    """
    for name in LOGGERS:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.partition(".")[0] in LOGGERS and getattr(logger, "handlers", []):
            logger.handlers = [logging.NullHandler()]


def _where(below: int | None) -> str:
    """Say whether the line was named, and how many frames stood below it."""
    if below is None:
        return "line not named"
    return "line named" + (f", {below} frame{'s'[: below > 1]} below" if below else "")


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect what the libraries' loggers say, in place of writing it to the error stream."""
    records: list[str] = []
    catcher = logging.Handler(logging.WARNING)
    catcher.emit = lambda record: records.append(ADDRESS.sub("0x...", record.getMessage()))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [catcher], False
    try:
        yield records
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate


def first_line(error: BaseException | Warning) -> str:
    """Return the line of an error's text that says what happened, without memory addresses.

    It is the first one, or, where the text begins by quoting frames, the first one after those.
    """
    text = NODE.sub("", BOLD.sub("", str(error)))
    if (frames := _quoted(error)) and QUOTES.search(text)[0] != "from user code:":
        text = text[list(QUOTED.finditer(text))[-1].end() :]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if frames and len(lines) > 1 and lines[0] == frames[-1].line:
        lines.pop(0)  # the source of the last frame
    if len(lines) > 1 and lines[0].startswith(WRAPPED):
        lines.pop(0)
    return ADDRESS.sub("0x...", lines[0]) if lines else ""


def _quoted(error: BaseException | Warning) -> list[traceback.FrameSummary]:
    """Return the frames that the text of an error quotes, from the notebook's first one on."""
    if not (start := QUOTES.search(str(error))):
        return []
    found = QUOTED.findall(str(error)[start.end() :])
    frames = [traceback.FrameSummary(path, int(n), name.strip(" *")) for path, n, name in found]
    return list(dropwhile(lambda frame: not _ours(frame), frames))


def _ours(frame: traceback.FrameSummary) -> bool:
    """Return whether a frame is the notebook's: IPython compiles each cell as a file of its own."""
    return _is_ours(frame.filename)


def _is_ours(filename: str) -> bool:
    return "ipykernel_" in filename or filename.startswith("<ipython-input")


def _place(frame: traceback.FrameSummary) -> str | None:
    """Return the name of the library of a frame; None for the notebook's own."""
    if _ours(frame):
        return None
    parts = Path(frame.filename).parts
    if parts[-1].startswith("__autograph_generated"):
        return "AutoGraph"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Python" if any(part.startswith("python3") for part in parts) else parts[-1]
