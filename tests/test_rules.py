"""Each rule refuses a lesson that breaks it, with file, line and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quartet.build import build
from quartet.source import Refused

Edit = Callable[[str, str, str], Path]


def refusal(course: Path) -> str:
    """Build a course that breaks a rule; return the message. Nothing may have been written."""
    with pytest.raises(Refused) as refused:
        build(root=course)
    assert not list(course.rglob("*.ipynb"))
    return str(refused.value)


def line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


# What to replace in lesson.md, by what, the text on the refused line, and the message.
LESSON_BREACHES = {
    "unknown tag": (
        "[keras]",
        "[keras, kears]",
        "1 + 1  # keras",
        "Unknown tag 'kears'. Use only keras, pytorch, tensorflow, jax, compare, parameters,",
    ),
    "tag of code on prose": (
        "It is two.",
        '+++ {"tags": ["raises-exception"]}\n\nIt is two.',
        "It is two.",
        "The tag `raises-exception` is for code cells. Remove it from this text.",
    ),
    "unknown option": (
        ":name: add",
        ":nmae: add",
        "1 + 1  # keras",
        "Unknown cell option `nmae`. Use only `name`, `tags`.",
    ),
    "bad name": (
        ":name: add",
        ":name: Add It",
        "1 + 1  # keras",
        "'Add It' cannot name a cell. Use up to 64 of a-z, 0-9, - and _, a letter first.",
    ),
    "rival in a track": (
        "total = 1 + 1  # jax",
        "total = 1\ntotal += 1  # as in torch",
        "as in torch",
        "'torch' is a rival's name in the jax track. Say it without, or tag the cell `compare`",
    ),
    "framework in a shared cell": (
        "It is two.",
        "It is two.\nAlso in PyTorch.",
        "Also in PyTorch.",
        "'PyTorch' is named in a cell that all tracks share. Say it without, tag the cell",
    ),
    "rival in tagged prose": (
        "It is two.",
        '+++ {"tags": ["keras"]}\n\nUnlike `tf.function`.',
        "Unlike",
        "'tf.f' is a rival's name in the keras track.",
    ),
    "long cell": (
        "total = 1 + 1  # jax",
        "total = 2  # jax" + "\n\n# comment\ntotal += 0" * 18,
        "total = 2  # jax",
        "This cell has 19 lines of code, more than 18. Split it into cells that do one thing each.",
    ),
    "not Python": (
        "total = 1 + 1  # jax",
        "total = 2\ntotal +",
        "total +",
        "This is not valid Python: invalid syntax. Mend it.",
    ),
    "code cell in a list": (
        "It is two.",
        "- It is two.\n\n  ```{code-cell}\n  1\n  ```",
        "  ```{code-cell}",
        "This code cell is inside of a list or quote. Put it at the start of the line.",
    ),
    "no title": ("# Tiny\n", "## Tiny\n", "## Tiny", "The title is missing. Let the text begin"),
    "second title": (
        "## Recap",
        "# Recap",
        "# Recap",
        "This is a second title. Use `##` or `###` for what is below it.",
    ),
    "second cell of a name": (
        "```{code-cell}\nprint(",
        "```{code-cell}\n:name: add\nprint(",
        "print(",
        "A second cell has the id 'add' in the keras notebook. Rename it.",
    ),
    "second cell of parameters": (
        "```{code-cell}\nprint(",
        "```{code-cell}\n:tags: [parameters]\nprint(",
        "print(",
        "A second cell has the tag `parameters`. Put all parameters in one cell.",
    ),
    "missing code": (
        ":tags: [jax]\n",
        ":tags: [keras]\n",
        "## Add",
        "The step 'Add' has no code for jax. Write it, or waive it in the front matter",
    ),
    "waiver not needed": (
        "waivers: []",
        "waivers:\n  - {step: Add, track: jax, reason: none}",
        "waivers:",
        "The waiver of step 'Add' for jax is not needed. Remove it.",
    ),
    "waiver for no step": (
        "waivers: []",
        "waivers:\n  - {step: Subtract, track: jax, reason: none}",
        "waivers:",
        "The waiver of step 'Subtract' for jax is not needed. Remove it.",
    ),
    "missing key": ("minutes: 5\n", "", "---", "The front matter lacks `minutes`. Add `minutes:`"),
    "unknown key": (
        "minutes: 5\n",
        "minutes: 5\nauthor: me\n",
        "author: me",
        "The front matter has an unknown key `author`. Use only `title`, `minutes`, `part`,",
    ),
    "wrong type": (
        "minutes: 5",
        "minutes: five",
        "minutes: five",
        "`minutes` is not right. Make it a whole number above 0.",
    ),
    "too few objectives": (
        "  - read a table\n",
        "",
        "objectives:",
        "`objectives` is not right. Make it a list of 3 to 5 texts.",
    ),
    "too many objectives": (
        "  - read a table\n",
        "  - a\n  - b\n  - c\n  - d\n",
        "objectives:",
        "`objectives` is not right. Make it a list of 3 to 5 texts.",
    ),
    "requires no lesson": (
        "requires: []",
        "requires: [00_before]",
        "requires:",
        "`requires` names '00_before', which is no other lesson. There are: none yet.",
    ),
    "wrong waivers": (
        "waivers: []",
        "waivers: [{step: Add}]",
        "waivers:",
        "`waivers` is not right. Make it a list of `{step: …, track: …, reason: …}`, or `[]`.",
    ),
    "solution in the lesson": (
        "total = 1 + 1  # jax",
        "### BEGIN SOLUTION\ntotal = 1 + 1\n### END SOLUTION",
        "BEGIN SOLUTION",
        "A solution stands in lesson.md. Move it to exercises.md.",
    ),
    "nothing recorded": (
        "```{code-cell}\nprint(",
        "```{code-cell}\n:tags: [nbval-check-output]\nprint(",
        "print(",
        "The output of this checked cell is not recorded for keras, pytorch, tensorflow, jax, "
        "or the cell has changed since. Run `quartet record 01`.",
    ),
}

EXERCISE_BREACHES = {
    "no end": (
        "    ### END SOLUTION\n```",
        "```",
        "BEGIN SOLUTION",
        "This solution has no end. Write `### END SOLUTION` below it.",
    ),
    "no beginning": (
        "    ### BEGIN SOLUTION\n",
        "",
        "END SOLUTION",
        "`### END SOLUTION` ends nothing. Write `### BEGIN SOLUTION` above it.",
    ),
    "nested": (
        "    return 2 * x\n",
        "    ### BEGIN SOLUTION (again)\n    return 2 * x\n",
        "(again)",
        "`### BEGIN SOLUTION` stands inside of a solution. End the first one before.",
    ),
    "given code on its own": (
        '    """Return twice x."""',
        '    """Return twice x."""\n    ### GIVEN x = 1',
        "### GIVEN x",
        "`### GIVEN` follows no solution. Put it right after `### END SOLUTION`.",
    ),
    "stub in the wrong place": (
        "    ### BEGIN SOLUTION\n    return 2",
        "### BEGIN SOLUTION\n    return 2",
        "BEGIN SOLUTION",
        "`### BEGIN SOLUTION` is not indented as the code below it. Indent it so.",
    ),
    "given code that is not Python": (
        "### GIVEN half = x // 2",
        "### GIVEN half = = x",
        "def halve",
        "Without its solution this cell is not valid Python: invalid syntax. Mend what is left.",
    ),
    "solution without a name": (
        ":name: double\n",
        "",
        "def double",
        "This solution belongs to no exercise that checks.py declares (double, halve). Name its",
    ),
    "no solution marked": (
        "    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION",
        "    return 2 * x",
        "def double",
        "The cell 'double' marks no solution. Put it between `### BEGIN SOLUTION` and",
    ),
    "check of no exercise": (
        'check("double", double)',
        'check("treble", double)',
        'check("treble"',
        "checks.py declares no exercise 'treble', only double, halve. Declare it.",
    ),
    "no check": (
        'check("double", double)',
        "double",
        "---",
        "The exercise 'double' has 0 check cells in the keras track. Write exactly one that calls",
    ),
    "no solution cell in a track": (
        ":name: double",
        ":tags: [keras, pytorch, tensorflow]\n:name: double",
        "---",
        "The exercise 'double' has 0 solution cells in the jax track. Write exactly one, with",
    ),
    "two checks in a cell": (
        'check("double", double)',
        'check("double", double)\ncheck("halve", halve)',
        'check("double"',
        "A check needs a cell of its own. Move it to one.",
    ),
    "checked output": (
        '```{code-cell}\ncheck("double"',
        '```{code-cell}\n:tags: [nbval-check-output]\ncheck("double"',
        'check("double"',
        "`nbval-check-output` has a meaning in lesson.md only. Remove the tag.",
    ),
    "front matter": ("minutes: 10", "part: 1", "part: 1", "has an unknown key `part`. Use only"),
}


@pytest.mark.parametrize("name", LESSON_BREACHES)
def test_a_lesson_that_breaks_a_rule_is_refused(name: str, course: Path, edit: Edit) -> None:
    old, new, where, message = LESSON_BREACHES[name]
    path = edit("lesson.md", old, new)
    assert f"lessons/01_tiny/lesson.md:{line_of(path, where)}: {message}" in refusal(course)


@pytest.mark.parametrize("name", EXERCISE_BREACHES)
def test_exercises_that_break_a_rule_are_refused(name: str, course: Path, edit: Edit) -> None:
    old, new, where, message = EXERCISE_BREACHES[name]
    path = edit("exercises.md", old, new)
    text = refusal(course)
    expected = f"lessons/01_tiny/exercises.md:{line_of(path, where)}: "
    assert any(line.startswith(expected) and message in line for line in text.splitlines()), text


def test_an_exercise_without_solution_and_check_is_refused(course: Path, edit: Edit) -> None:
    edit("checks.py", "EXERCISES = [", 'EXERCISES = [SimpleNamespace(name="more", points=1), ')
    text = refusal(course)
    for track in ("keras", "pytorch", "tensorflow", "jax"):
        assert f"The exercise 'more' has 0 solution cells in the {track} track." in text
        assert f"The exercise 'more' has 0 check cells in the {track} track." in text


def test_exercises_and_checks_need_each_other(course: Path) -> None:
    folder = course / "lessons/01_tiny"
    checks = (folder / "checks.py").read_text()
    (folder / "checks.py").unlink()
    assert "exercises.md:1: checks.py is missing or declares no exercises." in refusal(course)
    (folder / "checks.py").write_text(checks)
    (folder / "exercises.md").unlink()
    assert "checks.py:1: checks.py has no exercises.md beside it. Write that" in refusal(course)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("points=2", "points=two", "checks.py:3: This file cannot be used: NameError"),
        ("EXERCISES =", "EXERCISE =", "checks.py:1: This file cannot be used: KeyError"),
        ("EXERCISES = [", "EXERCISES = ", "checks.py:3: This file cannot be used: SyntaxError"),
        ('"halve"', '"double"', "checks.py:1: This file cannot be used: ValueError: two exercises"),
    ],
)
def test_checks_that_cannot_be_used_are_refused(
    old: str, new: str, message: str, course: Path, edit: Edit
) -> None:
    edit("checks.py", old, new)
    assert message in refusal(course)


def waive(edit: Edit) -> None:
    edit("lesson.md", "waivers: []", "waivers: [{step: Add, track: jax, reason: cannot}]")
    edit("lesson.md", ":tags: [jax]\n:name: add\n\ntotal = 1 + 1  # jax", "\nsum((1, 1))")


def test_a_waiver_needs_a_text_that_says_why(course: Path, edit: Edit) -> None:
    waive(edit)
    message = "The step 'Add' is waived for jax, but no text says why. Write one below `+++"
    assert message in refusal(course)


def test_a_waived_step_with_its_reason_is_built(course: Path, edit: Edit) -> None:
    waive(edit)
    edit("lesson.md", "## Recap", '+++ {"tags": ["jax"]}\n\nIt cannot.\n\n+++\n\n## Recap')
    assert build(root=course)


def test_a_compare_cell_may_name_rivals(course: Path, edit: Edit) -> None:
    edit("lesson.md", "It is two.", '+++ {"tags": ["compare"]}\n\nIt is two, as in PyTorch.')
    edit("lesson.md", "[jax]", "[jax, compare]")
    edit("lesson.md", "# jax", "# jax, not torch")
    assert build(root=course)


def test_what_ipython_adds_to_python_is_valid(course: Path, edit: Edit) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", "%time total = 1 + 1\n!true\nprint?")
    assert build(root=course)


def test_comments_and_blank_lines_do_not_make_a_cell_long(course: Path, edit: Edit) -> None:
    edit("lesson.md", "total = 1 + 1  # jax", "total = 2" + "\n\n# comment\ntotal += 0" * 17)
    assert build(root=course)


def test_all_reasons_are_told_at_once_in_the_order_of_the_lines(course: Path, edit: Edit) -> None:
    edit("lesson.md", "minutes: 5", "minutes: five")
    edit("lesson.md", "[keras]", "[kears]")
    edit("lesson.md", "print(", "print((")
    edit("exercises.md", ":name: double\n", "")
    places = [line.split(": ")[0] for line in refusal(course).splitlines()]
    lessons = [int(p.rpartition(":")[2]) for p in places if "lesson.md" in p]
    assert len(lessons) >= 3 and lessons == sorted(lessons)
    assert any("exercises.md" in place for place in places)


def test_start_keeps_the_rules_too(course: Path) -> None:
    path = course / "lessons/START.md"
    path.write_text(
        "---\ntitle: Start\n---\n\n# Start\n\n```{code-cell}\n:tags: [jax]\n\n1 +\n```\n"
    )
    text = refusal(course)
    assert "lessons/START.md:1: The table's place is missing. Add the lines `<!-- lessons" in text
    assert "lessons/START.md:10: This is not valid Python" in text
    assert "lessons/START.md:10: START has no tags" in text


def test_a_readme_without_a_place_for_the_table_is_refused(course: Path) -> None:
    (course / "README.md").write_text("# Quartet\n")
    assert "README.md:1: The table's place is missing. Add the lines" in refusal(course)
