"""The judge gives right points, whatever a submission does, and nothing of it is left behind."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
from nbformat import NotebookNode

from quartet import QuartetError
from quartet.grading import child, judge, sandbox, session, submission, worker
from utils import checks, wire
from utils.limits import longest
from utils.tracks import TRACKS

LESSON, TRACK = "03_dense_layers", "jax"
CHEAP = ("dense_forward", "parameter_count")  # 2 points and 1 point
EXERCISES = {name: checks.load_exercises(LESSON)[name] for name in CHEAP}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")


@pytest.fixture
def solved() -> NotebookNode:
    return nbformat.read(worker.solution(LESSON, TRACK), as_version=4)


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(each for each in notebook.cells if each.id == name)


def assembled(notebook: NotebookNode) -> submission.Submission:
    return submission.assemble(notebook, worker.handed_out(LESSON, TRACK))


def points(grade: judge.Grade) -> dict[str, float]:
    return {result.exercise: result.points for result in grade.results}


def said(grade: judge.Grade, exercise: str) -> str:
    return next(repr(result) for result in grade.results if result.exercise == exercise)


# The wire


@pytest.mark.parametrize(
    "message",
    [
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1, "x", None, True, 2.5]},
        {"a": (np.zeros((0, 3)), [np.array(5)]), "b": {"array": 1, "tuple": ("x",)}},
    ],
)
def test_what_is_sent_arrives(message: dict) -> None:
    stream = io.BytesIO()
    wire.send(stream, message)
    stream.seek(0)
    found = wire.receive(stream.read)
    np.testing.assert_equal(found, message)
    assert wire.receive(stream.read) is None


def frame(header: object, rest: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<I", len(raw)) + raw + rest


ONE = {"tree": {"dict": {"a": {"array": 0}}}}
NONSENSE = {
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os",
    "a header of 4 GB": b"\xff\xff\xff\xff",
    "no JSON": frame(b"{"),
    "deep JSON": frame(b"[" * 100_000),
    "a list": frame([]),
    "no arrays": frame({"tree": {"dict": {}}}),
    "an array of objects": frame(ONE | {"arrays": [{"dtype": "O", "shape": [1]}]}, b"12345678"),
    "a huge array": frame(ONE | {"arrays": [{"dtype": "<f8", "shape": [10**9, 10**9]}]}),
    "a negative shape": frame(ONE | {"arrays": [{"dtype": "<f8", "shape": [-1]}]}),
    "an array that breaks off": frame(ONE | {"arrays": [{"dtype": "<f8", "shape": [2]}]}, b"12"),
    "an array that is not there": frame(ONE | {"arrays": []}),
    "a message that is a number": frame({"tree": 5, "arrays": []}),
    "a message that holds a number": frame({"tree": {"dict": 5}, "arrays": []}),
    "an endless shape": frame(ONE | {"arrays": [{"dtype": "<f8", "shape": [float("inf")]}]}),
    "a dtype with code": frame(ONE | {"arrays": [{"dtype": "(2,)f8", "shape": [1]}]}, b"1" * 16),
    "two keys": frame({"tree": {"dict": {}, "tuple": []}, "arrays": []}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_on_the_wire_is_refused(what: str) -> None:
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(NONSENSE[what]).read)


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.array(["x"]), {1, 2}])
def test_only_numbers_and_plain_values_are_sent(value: object) -> None:
    with pytest.raises(wire.WireError):
        wire.send(io.BytesIO(), {"value": value})


# Notebooks


FILES = {
    "empty": (b"", "the file is empty"),
    "no JSON": (b"hello", "it is not JSON"),
    "cut off": (b'{"cells": [', "it is not JSON"),
    "a merge conflict": (b'{\n"cells": [\n<<<<<<< HEAD\n', "line 3 is a mark of a merge conflict"),
    "not text": (b"\xff\xfe\x00\x80", "no text in UTF-8"),
    "a list": (b"[]", "no notebook"),
    "no cells": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no notebook"),
    "cells of numbers": (
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1]}',
        "no notebook",
    ),
    "deep": (b"[" * 100_000, "no notebook"),
    "an identity that is a list": (
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", '
        b'"id": "a", "metadata": {"nbgrader": {"grade_id": ["x"]}}, "source": "", "outputs": [], '
        b'"execution_count": null}]}',
        "its cells cannot be read",
    ),
    "metadata that are a list": (
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {"quartet": []}, "cells": []}',
        "no notebook",
    ),
    "another language": (
        b'{"nbformat": 4, "nbformat_minor": 5, "cells": [], '
        b'"metadata": {"kernelspec": {"language": "R", "name": "ir", "display_name": "R"}}}',
        "is a notebook in R",
    ),
    "200 MB": (b" " * 200 * 2**20, "has 200 MB. Clear its outputs"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_notebook_is_named_with_a_remedy(what: str) -> None:
    data, message = FILES[what]
    with pytest.raises(QuartetError, match=message):
        submission.parse(data, "mine.ipynb")


def test_an_old_format_is_read(solved: NotebookNode) -> None:
    old = nbformat.convert(deepcopy(solved), 3)
    with_kernel = submission.parse(nbformat.writes(old, version=3).encode(), "old.ipynb")
    assert sum(each.cell_type == "code" for each in with_kernel.cells) == len(
        [each for each in solved.cells if each.cell_type == "code"]
    )


def test_the_checks_are_those_that_were_handed_out(solved: NotebookNode) -> None:
    cell(solved, "dense_forward-check").source = "check('dense_forward', print)"
    solved.cells.remove(cell(solved, "parameter_count-check"))
    mine = assembled(solved)
    handed_over = {step.check: step.source for step in mine.steps if step.check}
    assert handed_over["dense_forward"] == 'check("dense_forward", dense_forward)'
    assert handed_over["parameter_count"] == 'check("parameter_count", parameter_count)'
    assert mine.remarks == (
        "the check of dense_forward was changed; the original was used",
        "the check of parameter_count was missing; the original was used",
    )


def test_of_two_copies_the_last_that_was_worked_on_counts(solved: NotebookNode) -> None:
    mine = cell(solved, "dense_forward")
    stub = cell(worker.handed_out(LESSON, TRACK), "dense_forward").source
    early, late = deepcopy(mine), deepcopy(mine)
    early.update(id="early", source="1 / 0")
    late.update(id="late", source=stub)
    place = solved.cells.index(mine)
    solved.cells[place:place] = [early]
    solved.cells.append(late)
    found = assembled(solved)
    sources = [step.source for step in found.steps]
    assert mine.source in sources and "1 / 0" not in sources and stub not in sources
    assert "the cell dense_forward was there 3 times; the last one worked on was used" in (
        found.remarks
    )


# Grading, without a sandbox


def graded(notebook: NotebookNode, folder: Path, start: Callable = session.start) -> judge.Grade:
    return judge.grade(assembled(notebook), EXERCISES, folder, seed=11, start=start)


def moved(notebook: NotebookNode) -> None:
    """Put the cells of the exercises in the opposite order."""
    solutions = [cell(notebook, name) for name in CHEAP]
    for each in solutions:
        notebook.cells.remove(each)
    notebook.cells += reversed(solutions)


def merged(notebook: NotebookNode) -> None:
    """Merge a solution with its check, as JupyterLab does."""
    check = cell(notebook, "dense_forward-check")
    cell(notebook, "dense_forward").source += "\n\n" + check.source
    notebook.cells.remove(check)


def renamed(notebook: NotebookNode) -> None:
    """Lose all identities, as some tools do."""
    for number, each in enumerate(notebook.cells):
        each.id, each.metadata = f"cell-{number}", {}


def without_imports(notebook: NotebookNode) -> None:
    first = next(each for each in notebook.cells if each.cell_type == "code")
    notebook.cells.remove(first)


@pytest.mark.slow
@pytest.mark.parametrize("change", [moved, merged, renamed, without_imports, lambda notebook: None])
def test_a_right_answer_counts_wherever_its_cell_is(
    change: Callable, solved: NotebookNode, tmp_path: Path
) -> None:
    change(solved)
    assert points(graded(solved, tmp_path)) == {"dense_forward": 2, "parameter_count": 1}


@pytest.mark.slow
def test_an_untouched_notebook_gets_nothing_and_is_told_so(tmp_path: Path) -> None:
    grade = graded(worker.handed_out(LESSON, TRACK), tmp_path)
    assert grade.points == 0 and "not written yet" in said(grade, "dense_forward")


@pytest.mark.slow
def test_a_cell_that_fails_is_told_once_and_not_as_a_call(
    solved: NotebookNode, tmp_path: Path
) -> None:
    cell(solved, "dense_forward").source = "x = 1\nx / 0"
    (result, other) = graded(solved, tmp_path).results
    text = "its cell raised ZeroDivisionError: division by zero (line 2: `x / 0`)"
    assert result.lines == ((False, text),) and result.points == 0 and other.points == 1


@pytest.mark.slow
def test_a_plain_process_grades_alike(
    solved: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTET_WARM", "0")
    assert graded(solved, tmp_path).points == 3


def test_cells_that_fail_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "load", checks.load)  # the child replaces it
    mine = child.Child("jax")
    assert mine.run("x = 1\nx / 0", 5) == "ZeroDivisionError: division by zero (line 2: `x / 0`)"
    assert mine.run("def f(x):\n    return 1 / x", 5) == ""
    assert mine.run("y = 0\nf(y)", 5).endswith("(line 2: `f(y)`, then line 2 of f: `return 1 / x`)")
    mine.run("def g(x):\n    return len(str(f(x)))\ncheck('g', g)", 5)
    asked = mine.call("g", {"x": 0}, 5)["problem"]
    assert asked.endswith("(line 2: `return len(str(f(x)))`, then line 2 of f: `return 1 / x`)")
    mine.run("def h(x):\n    return h(x)\ncheck('h', h)", 5)
    assert mine.call("h", {"x": 0}, 5)["problem"].count("line 2 of h: `return h(x)`") == 3
    assert mine.run("def f(:", 5).startswith("SyntaxError")
    assert mine.run("while True: pass", 0.5) == "the cell passed its time limit of 0.5 s"
    assert mine.run("raise KeyboardInterrupt", 5).startswith("KeyboardInterrupt")
    assert mine.run("x", 5) == ""


ANY = checks.Exercise("x", 1, lambda rng: [], ())


def a_submission(cells: int) -> submission.Submission:
    steps = [submission.Step(str(number), "") for number in range(cells)]
    return submission.Submission(LESSON, TRACK, (*steps, submission.Step("", "", "x")), {}, ())


def test_no_number_of_cells_outlasts_the_limit_of_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, starts = [1.0], []

    class Slow:  # each cell takes all the time that it is given
        def ask(self, question: dict, seconds: float) -> dict:
            now.append(now[-1] + seconds)
            return {}

        def kill(self) -> None: ...

    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now[-1]))
    mine = session.Session(a_submission(1000), tmp_path, lambda *of: starts.append(of) or Slow())
    for _ in range(2):
        asked = mine.ask(ANY, checks.Case({}))
        assert asked.problem == "the submission passed its time limit of 1800 s"
    assert now[-1] - now[0] == session.SUBMISSION_SECONDS and len(starts) == 1


def test_the_first_call_in_each_process_has_time_to_compile(tmp_path: Path) -> None:
    asked = []

    class Compiling:
        def ask(self, question: dict, seconds: float) -> dict:
            if question["do"] == "call":
                asked.append((question["seconds"], seconds))
                if len(asked) == 3:
                    raise session.Gone("it passed its time limit and did not stop")
            return {"value": np.ones(2)}

        def kill(self) -> None: ...

    mine = session.Session(a_submission(0), tmp_path, lambda *of: Compiling())
    for _ in range(4):
        mine.ask(ANY, checks.Case({}))
    first, later = (ANY.limit(first) for first in (True, False))
    assert first == later + checks.COMPILE_SECONDS
    assert asked == [(limit, longest(limit)) for limit in (first, later, later, first)]


@pytest.mark.parametrize("kills", [1, 9])
def test_a_process_that_was_killed_gets_one_more_chance(kills: int, tmp_path: Path) -> None:
    started = []

    class Killed:
        def ask(self, question: dict, seconds: float) -> dict:
            if len(started) <= kills:
                raise session.Gone("its process ended: it was killed", killed=True)
            return {"value": np.ones(2)}

        def kill(self) -> None: ...

    mine = session.Session(a_submission(0), tmp_path, lambda *of: started.append(of) or Killed())
    answer = mine.ask(ANY, checks.Case({}))
    if kills == 1:
        assert len(started) == 2 and np.array_equal(answer.value, np.ones(2))
    else:
        assert "it was killed" in answer.problem and len(started) < session.MOST_STARTS


# Hostile submissions, in the sandbox: what is put in the place of the first exercise's code, and
# what the report must say about it. The other exercise keeps its point each time.

ELSEWHERE = os.fspath(worker.ROOT)
LIAR = """
class Liar:
    shape, dtype, size, ndim = (6, 4), 'float32', 24, 2
    def __array__(self, *args, **named): {array}
    def __eq__(self, other): return True
    def __len__(self): return 6
def dense_forward(x, W, b): return Liar()
"""
CHANGING = """
import numpy as np
class Changing:
    def __init__(self, *args): self.args, self.times = args, 0
    def __array__(self, *args, **named):
        x, W, b = map(np.array, self.args)
        self.times += 1
        return np.maximum(x @ W + b, 0) if self.times > 1 else x @ W
def dense_forward(x, W, b): return Changing(x, W, b)
"""
NO_ASSERTS = """
import ast, builtins
class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
get_ipython().ast_transformers.append(NoAsserts())
builtins.AssertionError = lambda *args: None
def dense_forward(x, W, b): return x @ W
"""
ASARRAY = """
import numpy as np
asarray = np.asarray
class Right:
    def __eq__(self, other): return True
def dense_forward(x, W, b):
    np.asarray = lambda v, *a, **k: Right() if getattr(v, 'ndim', 0) == 2 else asarray(v, *a, **k)
    return x @ W
"""


def learned_by_heart() -> str:
    """Return code that knows the answers to the notebook's own check and computes nothing."""
    cases = EXERCISES["dense_forward"].cases(np.random.default_rng(checks.SELF_CHECK_SEED))
    raw = io.BytesIO()
    np.savez(raw, **{str(case.args["W"].shape): case.expected for case in cases})
    text = base64.b64encode(raw.getvalue()).decode()
    return (
        f"import base64, io\nimport numpy as np\n"
        f"answers = np.load(io.BytesIO(base64.b64decode('{text}')))\n"
        f"def dense_forward(x, W, b): return answers[str(tuple(W.shape))]"
    )


HOSTILE = {
    "an endless loop": ("while True: pass", "time limit"),
    "a loop that hears nothing": (
        "while True:\n    try:\n        x = 1  # else an interrupt at the loop's end escapes\n"
        "        while True: x\n    except BaseException: pass",
        "its process ended: it passed its time limit and did not stop",
    ),
    "a fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "it started too many processes",
    ),
    "a memory bomb": (
        "import numpy as np, time\nkept = []\n"
        "while True: kept.append(np.ones(10**6)); time.sleep(0.005)",
        "it took too much memory",
    ),
    "memory in a memfd": ("import os\nos.memfd_create('x')", "PermissionError"),
    "a full shared memory": (
        "with open('/dev/shm/x', 'wb') as file:\n    while True: file.write(b'x' * 2**20)",
        "No space left",
    ),
    "a gigabyte of output": (
        "for _ in range(1000): print('x' * 10**6)\nraise ValueError('printed')",
        "printed",
    ),
    "a full disk": (
        "files = [open(f'f{i}', 'wb') for i in range(9)]\n"
        "for f in files:\n    for _ in range(50): f.write(b'x' * 2**20); f.flush()",
        "No space left",
    ),
    "sys.exit": ("import sys\nsys.exit(0)", "SystemExit"),
    "os._exit": ("import os\nos._exit(0)", "its process ended"),
    "exit in the call": ("import os\ndef dense_forward(*args): os._exit(0)", "its process ended"),
    "a kill of the parent": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nraise ValueError('alive')",
        "alive",
    ),
    "a kill of all": ("import os\nos.kill(-1, 9)", "No such process"),
    "a kill of itself": ("import os\nos.kill(os.getpid(), 9)", "its process ended: it was killed"),
    "a stop": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "time limit, 48 s by the clock",
    ),
    "a thread left behind": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(999,)).start()\nraise ValueError('started')",
        "started",
    ),
    "a process left behind": (
        "import subprocess\nsubprocess.Popen(['sleep', '98765'], start_new_session=True)\n"
        "raise ValueError('started')",
        "started",
    ),
    "another check": (
        "check = lambda *args: print('10 of 10 points')\n"
        "import utils.checks\nutils.checks.judge = check",
        "not defined",
    ),
    "NumPy patched": (
        "import numpy as np\nnp.allclose = np.array_equal = lambda *a, **k: True\n"
        "def dense_forward(x, W, b): return x @ W",
        "got",
    ),
    "numpy.asarray patched": (ASARRAY, "cannot be compared: a value of type Right"),
    "assertions taken out": (NO_ASSERTS, "got"),
    "an object equal to all": (LIAR.format(array="raise TypeError('no array')"), "raised"),
    "a shape that lies": (LIAR.format(array="import numpy; return numpy.ones(3)"), "got shape"),
    "NaN": ("def dense_forward(x, W, b): return x @ W * float('nan')", "NaN"),
    "infinity": ("def dense_forward(x, W, b): return x @ W + float('inf')", "infinity"),
    "complex numbers": (
        "def dense_forward(x, W, b): return jax.nn.relu(x @ W + b).astype(complex)",
        "got complex numbers",
    ),
    "whole numbers": (
        "def dense_forward(x, W, b): return jax.nn.relu(x @ W + b).astype(int)",
        "got .* expected",
    ),
    "truth values": (
        "def dense_forward(x, W, b): return jax.nn.relu(x @ W + b).astype(bool)",
        "got .* expected",
    ),
    "a lazy result": ("def dense_forward(x, W, b): yield x @ W", "cannot be compared"),
    "a result that changes": (CHANGING, "got .* expected"),
    "text": ("def dense_forward(x, W, b): return 'right'", "got a str"),
    "objects": (
        "import numpy as np\ndef dense_forward(x, W, b): return np.array([object()] * 3)",
        "cannot be compared",
    ),
    "a huge result": (
        "import numpy as np\ndef dense_forward(x, W, b): return np.zeros((2**15, 2**14), 'u1')",
        "too large",
    ),
    "the notebook's own answers": (learned_by_heart(), "got .* expected"),
    "the reference": (
        "from utils import checks\nchecks.load_exercises('03_dense_layers')",
        "FileNotFoundError",
    ),
    "the solutions": (
        f"open('{ELSEWHERE}/solutions/jax/03_dense_layers.ipynb').read()",
        "FileNotFoundError",
    ),
    "a list of a home": ("import os\nos.listdir('/root')", "PermissionError"),
    "a list of the temporary files": ("import os\nos.listdir('/tmp')", "PermissionError"),
    "accounts": ("open('/etc/passwd').read()", "PermissionError"),
    "other processes": (
        "import os\nassert sorted(int(n) for n in os.listdir('/proc') if n.isdigit()) == [1, 2]\n"
        "raise ValueError('alone')",
        "alone",
    ),
    "the environment": (
        "import os\nfound = open('/proc/self/environ').read() + str(os.environ)\n"
        "assert 'TEACHERS_SECRET' not in found\nraise ValueError('nothing')",
        "nothing",
    ),
    "TCP": ("import socket\nsocket.create_connection(('127.0.0.1', 22))", "PermissionError"),
    "UDP": ("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "PermissionError"),
    "Unix sockets": ("import socket\nsocket.socket(socket.AF_UNIX)", "PermissionError"),
    "abstract Unix sockets": (
        "import socket\n"
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0quartet')",
        "PermissionError",
    ),
    "a new namespace": (
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'",
        "refused",
    ),
    "bytes by hand": (
        "import os\nfor number in range(3, 30):\n    try: os.write(number, b'x' * 99)\n"
        "    except OSError: pass",
        "sent something that is no answer",
    ),
    "an answer by hand": (
        "import os, json, struct\n"
        'raw = json.dumps({"tree": {"dict": {"problem": "", "value": 3}}, "arrays": []}).encode()\n'
        "for number in range(3, 30):\n"
        "    try: os.write(number, struct.pack('<I', len(raw)) + raw)\n"
        "    except OSError: pass",
        "it answers no question",
    ),
}


# They end when the watcher acts, or of their own accord: not by the clock.
WATCHED = ("a fork bomb", "a memory bomb", "a gigabyte of output", "a kill of itself")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give cells and processes less time than in earnest, so that endless ones end soon."""
    monkeypatch.setenv("TEACHERS_SECRET", "42")
    monkeypatch.setattr(session, "CELL_SECONDS", 6)
    monkeypatch.setattr(session, "GRACE_SECONDS", 2)


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_submission_harms_only_itself(
    what: str,
    solved: NotebookNode,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, message = HOSTILE[what]
    if what in WATCHED:
        monkeypatch.setattr(session, "CELL_SECONDS", 60)
        monkeypatch.setattr(session, "GRACE_SECONDS", 10)
    cell(solved, "dense_forward").source = code
    watched = Watched()
    grade = graded(solved, tmp_path, watched.start)
    assert re.search(message, said(grade, "dense_forward")), said(grade, "dense_forward")
    assert points(grade) == {"dense_forward": 0, "parameter_count": 1}
    assert list(tmp_path.iterdir()) == []
    assert watched.nothing_is_left()


def test_answers_learned_by_heart_pass_the_notebooks_check() -> None:
    found: dict = {}
    exec(HOSTILE["the notebook's own answers"][0], found)
    check = checks.Checker(LESSON, TRACKS[TRACK], EXERCISES)
    assert check("dense_forward", found["dense_forward"]).passed


class Watched:
    """Starts learners' processes and knows afterwards whether one of them is left.

    When the first process of a sandbox is gone, so are, by Linux's rule, all that were in it.
    """

    def __init__(self) -> None:
        self.started: list[psutil.Process] = []

    def start(self, track: str, folder: Path) -> session.Process:
        process = session.start_locked(track, folder, session.Limits(memory=3 * 2**29))
        self.watch(process.handle.pid)
        return process

    def watch(self, pid: int) -> None:
        outside = psutil.Process(pid)
        self.started += [outside, *outside.children(recursive=True)]

    def nothing_is_left(self) -> bool:
        end = time.monotonic() + 10
        while any(map(running, self.started)) and time.monotonic() < end:
            time.sleep(0.05)
        return len(self.started) >= 3 and not any(map(running, self.started))


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What a submission tries with files that are not its own: it says "kept out" if nothing works.
REACH = """
import os
def works(action, *args):
    try: action(*args)
    except OSError: return False
    return True
for path in {paths}:
    assert os.statvfs(path).f_flag & os.ST_RDONLY, path
    for action, *args in (
        (open,), (open, "ab"), (os.listdir,), (os.remove,), (os.rename, "mine"), (os.link, "mine"),
        (os.truncate, 0), (os.chown, os.getuid(), os.getgid()), (os.setxattr, "user.x", b"x"),
        (os.removexattr, "user.given"),
    ):
        assert not works(action, path, *args), (action, path)
    os.chmod(path, 0o777), os.utime(path, (1, 1))  # as when a file is copied: without effect
os.utime("/proc/self/exe", (1, 1))
"""


def about(path: Path) -> tuple:
    found = path.stat()
    content = path.read_bytes() if path.is_file() else sorted(os.listdir(path))
    return *found[:7], found.st_mtime_ns, os.listxattr(path), content


@on_linux
@pytest.mark.slow
def test_files_beside_the_scratch_are_neither_read_nor_changed(
    solved: NotebookNode, tmp_path: Path
) -> None:
    scratch, gradebook, other = (tmp_path / name for name in ("mine", "grades.sqlite", "bob.ipynb"))
    scratch.mkdir()
    for path in (gradebook, other):
        path.write_text("10 of 10 points")
    paths = [gradebook, other, tmp_path]
    before = list(map(about, [*paths, Path(sys.executable)]))
    code = REACH.format(paths=list(map(str, paths))) + "raise ValueError('kept out')"
    cell(solved, "dense_forward").source = code
    grade = graded(solved, scratch, session.start_locked)
    assert "ValueError: kept out" in said(grade, "dense_forward")
    assert list(map(about, [*paths, Path(sys.executable)])) == before


@on_linux
@pytest.mark.slow
def test_no_datagram_reaches_a_server_of_this_machine(solved: NotebookNode, tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="quartet-") as folder,  # its path is short enough
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
    ):
        server.bind(f"{folder}/log")
        for path in (folder, f"{folder}/log"):  # as open as /dev/log is
            os.chmod(path, 0o777)
        cell(solved, "dense_forward").source = (
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            f"a.sendto(b'forged', '{folder}/log')"
        )
        assert "PermissionError" in said(
            graded(solved, tmp_path, session.start_locked), "dense_forward"
        )
        with pytest.raises(BlockingIOError):
            server.recv(99, socket.MSG_DONTWAIT)


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("track", TRACKS)
def test_right_answers_get_their_points_in_the_sandbox(track: str, tmp_path: Path) -> None:
    solution = nbformat.read(worker.solution(LESSON, track), as_version=4)
    mine = submission.assemble(solution, worker.handed_out(LESSON, track))
    grade = judge.grade(mine, EXERCISES, tmp_path, seed=11, start=session.start_locked)
    assert grade.points == 3, grade


OWN = """
import os, subprocess, sys, tempfile
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights")
    open(path, "w").close()
    assert os.access(path, os.R_OK | os.W_OK)  # TensorFlow asks like this whether a file is there
    assert len(os.listdir("/proc/self/fd")) > 2
subprocess.run([sys.executable, "-c", f"open({os.__file__!r})"], check=True)
raise ValueError("all its own")
"""


@on_linux
@pytest.mark.slow
def test_the_scratch_belongs_to_the_learners_code(solved: NotebookNode, tmp_path: Path) -> None:
    cell(solved, "dense_forward").source = OWN
    assert "all its own" in said(graded(solved, tmp_path, session.start_locked), "dense_forward")


@on_linux
@pytest.mark.slow
def test_many_cells_meet_the_limit_of_a_submission(
    solved: NotebookNode, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SUBMISSION_SECONDS", 12)
    cell(solved, "dense_forward").source = "import time"
    solved.cells += [nbformat.v4.new_code_cell("time.sleep(5)") for _ in range(100)]
    watched = Watched()
    grade = graded(solved, tmp_path, watched.start)
    for name in CHEAP:
        assert "the submission passed its time limit of 12 s" in said(grade, name)
    assert grade.points == 0 and len(watched.started) == 3 and watched.nothing_is_left()


@on_linux
@pytest.mark.slow
def test_a_process_that_the_system_kills_costs_no_points(
    solved: NotebookNode, tmp_path: Path
) -> None:
    watched = Watched()

    def start(track: str, folder: Path) -> session.Process:
        process = watched.start(track, folder)
        if len(watched.started) == 3:  # as the kernel does where memory is short
            watched.started[-1].kill()
        return process

    assert graded(solved, tmp_path, start).points == 3 and len(watched.started) == 6


GRADER = """
import sys, time
from pathlib import Path
from quartet.grading import session
from utils import wire
process = session.start_locked("jax", Path(sys.argv[1]))
process.deadline = time.monotonic() + 60
sleep = {"do": "run", "source": "import time; time.sleep(98765)", "check": "", "seconds": 98765}
wire.send(process, sleep | {"name": ""})
print(process.handle.pid, flush=True)
time.sleep(98765)
"""


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("warm", ["1", "0"])
def test_nothing_outlives_a_grader_that_is_killed(warm: str, tmp_path: Path) -> None:
    watched, env = Watched(), os.environ | {"QUARTET_WARM": warm}
    command = [sys.executable, "-c", GRADER, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as grader:
        try:
            watched.watch(int(grader.stdout.readline()))
        finally:
            grader.kill()
    assert watched.nothing_is_left()


@on_linux
@pytest.mark.slow
def test_right_answers_get_their_points_beside_a_fork_bomb(
    solved: NotebookNode, tmp_path: Path
) -> None:
    """As long as the bomb lives, the right answers may take their time: points are asked for."""
    from concurrent.futures import ThreadPoolExecutor

    patient = {name: replace(each, seconds=60) for name, each in EXERCISES.items()}

    def points_of(notebook: NotebookNode, folder: Path) -> float:
        start = session.start_locked
        return judge.grade(assembled(notebook), patient, folder, seed=11, start=start).points

    bomb = deepcopy(solved)
    cell(bomb, "dense_forward").source = HOSTILE["a fork bomb"][0]
    folders = [tmp_path / "bomb", tmp_path / "right"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(points_of, [bomb, solved], folders)) == [1, 3]


NOBODY = """
import encodings.idna, os, socket, sys, time
from pathlib import Path
from quartet.grading import sandbox
scratch, limits = Path(sys.argv[1]), eval(sys.argv[2])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
__import__("ctypes").CDLL(None).prctl(4, 1)  # as a process that did not change its user
sandbox.enter(scratch, [], sandbox.Limits(tasks=20, scratch=2**20, **limits))
"""
WALLS = """
def refused(action):
    try: action()
    except OSError as error: return type(error).__name__
    return "allowed"
print(refused(lambda: open("/etc/passwd")), refused(lambda: socket.socket()),
      refused(lambda: os.listdir("/tmp")), refused(lambda: Path("x").write_bytes(b"x" * 2**21)),
      refused(lambda: [os.fork() or os._exit(time.sleep(1) or 0) for _ in range(30)]),
      sorted(n for n in os.listdir("/proc") if n.isdigit())[0], flush=True)
"""
ordinary = pytest.mark.skipif(
    os.geteuid() != 0, reason="as an ordinary user the tests above have shown it"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return the folder of an ordinary user, in which `mine` is empty; not below one of root's."""
    with tempfile.TemporaryDirectory(prefix="quartet-") as folder:
        for path in (Path(folder), Path(folder, "mine")):
            path.mkdir(exist_ok=True)
            os.chown(path, 65534, 65534)
        yield Path(folder)


def as_nobody(code: str, scratch: Path, **limits: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", NOBODY + code, str(scratch), repr(limits)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@on_linux
@ordinary
def test_the_walls_stand_for_an_ordinary_user(home: Path) -> None:
    other = home / "bob"
    other.write_text("10 of 10 points")
    os.chown(other, 65534, 65534)
    before = list(map(about, (home, other)))
    done = as_nobody(WALLS + REACH.format(paths=[str(home), str(other)]), home / "mine")
    assert list(map(about, (home, other))) == before and os.listdir(home / "mine") == []
    expected = "PermissionError PermissionError PermissionError OSError BlockingIOError 1"
    assert done.stdout.strip() == expected and done.returncode == 0, done.stderr


@on_linux
@ordinary
@pytest.mark.parametrize(
    ("code", "limits", "status"),
    [
        (
            "[os.fork() or time.sleep(30) for _ in range(15)]",
            {"processes": 10},
            sandbox.TOO_MANY_PROCESSES,
        ),
        ("kept = b'x' * 2**28", {"memory": 2**27}, sandbox.TOO_MUCH_MEMORY),
    ],
)
def test_the_watcher_watches_an_ordinary_user(
    code: str, limits: dict[str, int], status: int, home: Path
) -> None:
    done = as_nobody(f"{code}\ntime.sleep(30)", home / "mine", **limits)
    assert done.returncode == status, done.stderr


HIDDEN = """
import sys
from pathlib import Path
from quartet.grading import sandbox
sandbox.SYSTEM.append(str(sandbox.ROOT))
sandbox.enter(Path(sys.argv[1]), [], sandbox.Limits())
for name in sandbox.ANSWERS:
    assert not any((sandbox.ROOT / name).glob("*")), name
print((sandbox.ROOT / "README.md").read_text()[:9])
"""


@on_linux
def test_answers_are_hidden_where_the_course_lies_in_a_readable_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HIDDEN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stdout == "# Quartet\n", done.stderr


def test_one_submission_on_which_the_grader_fails_keeps_no_other_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(judge, "grade", fail)
    done = worker.grade(worker.solution(LESSON, TRACK).read_bytes(), LESSON, TRACK, 1)
    assert "the grader itself failed on it: ZeroDivisionError" in done["problem"]
    assert len(done["results"]) == 5 and not any(each["points"] for each in done["results"])


def test_an_answer_of_another_kind_is_judged_and_does_no_harm() -> None:
    deeper = checks.load_exercises(LESSON)["deeper"]
    (case,) = deeper.cases(np.random.default_rng(0))
    endless = checks.Answer((np.zeros(2000), np.array([[np.inf, 1.0]])))
    assert "of the wrong kind" in checks.judge(deeper, case, endless).message


def test_without_a_sandbox_nothing_is_graded(
    solved: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def ask(self, question: dict, seconds: float) -> dict:
            return {"problem": "it needs Linux with Landlock (5.13 or newer)"}

        def kill(self) -> None: ...

    monkeypatch.setattr(session, "start", lambda *args: Refusing())
    with pytest.raises(
        QuartetError, match="no sandbox for submissions here: it needs Linux.*--no-s"
    ):
        graded(solved, tmp_path, session.start_locked)
