"""utils/faults.py: an expected error must come, of its type and at its line; counts are right."""

from __future__ import annotations

import linecache
import logging
import textwrap
import warnings

import pytest

from utils import faults

CELL = "/tmp/ipykernel_1/1.py"  # as IPython names a cell's file
DEEP = """
def inner(x):
    return x["missing"]

def outer(x):
    return inner(x)
"""


def cell(source: str, path: str = CELL, **names: object) -> dict:
    """Run source as if it were a cell of a notebook, and return its names."""
    source = textwrap.dedent(source)
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    exec(compile(source, path, "exec"), names)
    return names


def test_an_expected_error_is_measured_and_printed(capsys: pytest.CaptureFixture) -> None:
    outer = cell(DEEP)["outer"]
    with faults.expect(KeyError, line='x["missing"]') as fault:
        outer({})
    assert (fault.type, fault.frames) == ("KeyError", 3)
    assert fault.below('x["missing"]') == 0
    assert fault.below("return inner(x)") == 1
    assert fault.below("no such line") is None
    printed = capsys.readouterr().out
    assert "line 3: return x" in printed and "KeyError: 'missing'" in printed


def test_an_expectation_of_no_line_is_refused() -> None:
    with pytest.raises(ValueError, match="say which"), faults.expect(KeyError, line=" "):
        pass


def test_frames_of_libraries_are_counted_below_the_line(capsys: pytest.CaptureFixture) -> None:
    library = "/somewhere/site-packages/somelib/core.py"
    fail = cell("def fail():\n    raise ValueError('no')\n", library)["fail"]
    call = cell("def call():\n    fail()\n", fail=fail)["call"]
    with faults.expect(ValueError, line="fail()") as fault:
        call()
    assert fault.frames == 3 and fault.below("fail()") == 1
    assert "... 1 frame of somelib" in capsys.readouterr().out


def test_a_wrong_type_fails() -> None:
    outer = cell(DEEP)["outer"]
    with (
        pytest.raises(AssertionError, match="Expected TypeError, and KeyError came"),
        faults.expect(TypeError, line="x"),
    ):
        outer({})


def test_a_wrong_line_fails() -> None:
    outer = cell(DEEP)["outer"]
    with (
        pytest.raises(AssertionError, match="Expected the line 'inner"),
        faults.expect(KeyError, line="inner(x)"),
    ):
        outer({})  # the innermost line is that of the missing key


def test_no_error_fails() -> None:
    with (
        pytest.raises(AssertionError, match="no error came"),
        faults.expect(KeyError, line="nothing"),
    ):
        pass


QUOTING = """
def f(text):
    return 1  # the line at fault

def call(text):
    raise ValueError(text)
"""
IN_USER_CODE = f"""in user code:

    File "{CELL}", line 3, in f  *
        return 1  # the line at fault

    ValueError: Dimensions must be equal, but are 16 and 8
"""
GRAPH = f"""Graph execution error:

Detected at node matmul_1 defined at (most recent call last):
  File "/somewhere/site-packages/ipykernel/kernelapp.py", line 1, in start

  File "{CELL}", line 6, in <module>

  File "{CELL}", line 3, in f

Matrix size-incompatible: In[0]: [5,16], In[1]: [8,1]
"""


@pytest.mark.parametrize(
    ("text", "message", "frames"),
    [
        (IN_USER_CODE, "ValueError: Dimensions must be equal, but are 16 and 8", 3),
        (GRAPH, "Matrix size-incompatible: In[0]: [5,16], In[1]: [8,1]", 4),
    ],
)
def test_frames_in_the_text_of_an_error_count(text: str, message: str, frames: int) -> None:
    call = cell(QUOTING)["call"]
    with faults.expect(ValueError, line="the line at fault") as fault:
        call(text)
    assert fault.message == message
    assert fault.frames == frames  # the block's line, the call, and those of the text
    assert fault.below("the line at fault") == 0


def test_the_name_of_a_kernel_and_addresses_are_left_out() -> None:
    text = "{{function_node __wrapped____MklMatMul_device_/job:x/CPU:0}} sizes at 0x7f00aa"
    assert faults.first_line(ValueError(text)) == "sizes at 0x..."


def test_what_stands_around_the_message_of_an_engine_is_left_out() -> None:
    text = "Exception encountered when calling Head\n\n\x1b[1m5x16 and 8x1\x1b[0m\n\nArguments"
    assert faults.first_line(ValueError(text)) == "5x16 and 8x1"


def test_what_is_said_is_written_down(capsys: pytest.CaptureFixture) -> None:
    outer = cell(DEEP)["outer"]
    said = faults.Said()
    with said.listen("quiet", line="x"):
        pass
    with said.listen("loud", line='x["missing"]'):
        cell(DEEP)["outer"]({})
    with said.listen("elsewhere", line="not there"):
        outer({})
    warn = cell("def warn(w):\n    w.warn('mind the shapes')\n")["warn"]
    with said.listen("warned", line="mind the shapes"):
        warn(warnings)
        warn(warnings)
    assert said == {
        "quiet": "nothing",
        "loud": "KeyError, line named",
        "elsewhere": "KeyError, line not named",
        "warned": "UserWarning, line named",
    }
    assert capsys.readouterr().out.count("mind the shapes") == 1  # said once


@pytest.mark.parametrize(("log", "expected"), [(True, "a line in the log"), (False, "nothing")])
def test_a_log_counts_where_it_is_asked_for(log: bool, expected: str) -> None:
    said, logger = faults.Said(), logging.getLogger("tensorflow")
    before = logger.handlers
    with said.listen("logged", line="x", log=log):
        logger.warning("retracing")
    assert said["logged"].startswith(expected)
    assert logger.handlers is before
