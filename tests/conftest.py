"""Shared fixtures: a tiny course in a temporary folder, whole and right, for tests to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LESSON = """\
---
title: Tiny
part: 1 Foundations
minutes: 5
objectives:
  - add two numbers
  - name a track
  - read a table
requires: []
covers: {inventory: [1], claims: []}
waivers: []
---

# Tiny

One sum, four ways.

```{code-cell}
:tags: [parameters]

SEED = 0
```

## Add

Addition, step by step.

```{code-cell}
:tags: [keras]
:name: add

total = 1 + 1  # keras
```

```{code-cell}
:tags: [pytorch]
:name: add

total = 1 + 1  # torch
```

```{code-cell}
:tags: [tensorflow]
:name: add

total = 1 + 1  # tensorflow
```

```{code-cell}
:tags: [jax]
:name: add

total = 1 + 1  # jax
```

## Recap

It is two.

```{code-cell}
print(total + SEED)
```
"""

EXERCISES = '''\
---
title: "Exercises: tiny"
minutes: 10
---

# Exercises: tiny

```{code-cell}
def check(name, function):
    return name, function
```

## Double

Double a number.

```{code-cell}
:name: double

def double(x):
    """Return twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
```

```{code-cell}
check("double", double)
```

## Halve

Repair it.

```{code-cell}
:name: halve

def halve(x):
    ### BEGIN SOLUTION
    return x / 2
    ### END SOLUTION
    ### GIVEN half = x // 2
    ### GIVEN return half
```

```{code-cell}
check("halve", halve)
```
'''

CHECKS = """\
from types import SimpleNamespace

EXERCISES = [SimpleNamespace(name="double", points=1), SimpleNamespace(name="halve", points=2)]
"""

START = """\
---
title: Start
---

# Start

<!-- lessons -->
<!-- /lessons -->
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Return the root of a course of one lesson, `01_tiny`, that breaks no rule."""
    folder = tmp_path / "lessons" / "01_tiny"
    folder.mkdir(parents=True)
    (folder / "lesson.md").write_text(LESSON, encoding="utf-8")
    (folder / "exercises.md").write_text(EXERCISES, encoding="utf-8")
    (folder / "checks.py").write_text(CHECKS, encoding="utf-8")
    (tmp_path / "lessons" / "START.md").write_text(START, encoding="utf-8")
    return tmp_path


@pytest.fixture
def edit(course: Path) -> Callable[[str, str, str], Path]:
    """Return a function that replaces one piece of text in a file of `01_tiny`."""

    def replace(name: str, old: str, new: str) -> Path:
        path = course / "lessons" / "01_tiny" / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return replace


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests measured and noted with `record_property`, such as parity differences."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    notes = [note for report in reports for note in report.user_properties]
    if notes:
        terminalreporter.section("measured")
    for name, value in sorted(notes):
        terminalreporter.write_line(f"{name}: {value}")
