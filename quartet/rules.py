"""The rules that sources must keep; each breach is a Problem with its file, line and remedy."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quartet.exercises import GIVEN, cleared
from quartet.pages import TABLE
from quartet.source import Cell, Document, Lesson, Problem, Refused, cell_ids
from utils.tracks import ANY_FRAMEWORK, TRACKS

COMPARE, CHECKED, RAISES, PARAMETERS, EACH_ENGINE = (
    "compare",
    "nbval-check-output",
    "raises-exception",
    "parameters",
    "each-engine",
)
FAULT, EXPECTED = "fault", "faults.expect("  # what is built marks cells that provoke an error
TAGS = [*TRACKS, COMPARE, PARAMETERS, CHECKED, RAISES, EACH_ENGINE]
MAX_CODE_LINES = 18
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

Rule = Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_covers(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"inventory", "claims"}
        and all(isinstance(v, list) and all(type(i) is int for i in v) for v in value.values())
    )


def _is_waivers(value: Any) -> bool:
    keys = {"step", "track", "reason"}
    return isinstance(value, list) and all(
        isinstance(w, dict) and set(w) == keys and w["track"] in TRACKS for w in value
    )


# Each key of a front matter: what it must be, in words and as a test.
_TITLE = {
    "title": ("a text", lambda v: isinstance(v, str) and v != ""),
    "minutes": ("a whole number above 0", lambda v: type(v) is int and v > 0),
}
LESSON_KEYS: dict[str, tuple[str, Rule]] = _TITLE | {
    "part": ("a number and a name, as `1 Foundations`", lambda v: bool(re.match(r"\d \w", str(v)))),
    "objectives": ("a list of 3 to 5 texts", lambda v: _is_texts(v) and 3 <= len(v) <= 5),
    "requires": ("a list of names of lesson folders, or `[]`", _is_texts),
    "covers": ("`{inventory: […], claims: […]}` with numbers", _is_covers),
    "waivers": ("a list of `{step: …, track: …, reason: …}`, or `[]`", _is_waivers),
}
OPTIONAL_KEYS = {"waivers"}
START_KEYS: dict[str, tuple[str, Rule]] = {"title": _TITLE["title"]}


def check_lesson(lesson: Lesson, known: list[str], recording: bool = False) -> list[Problem]:
    """Return everything that is wrong with a lesson's sources.

    `known` are the names of all lessons. While `recording`, outputs need not be recorded yet.
    """
    problems = check_front(lesson, known)
    for document in filter(None, (lesson.lesson, lesson.exercises)):
        problems += _check_document(document, lesson, _waivers(lesson, document, problems))
    problems += _attempt(lesson.folder, lambda: list(_check_exercises(lesson)))
    if not recording:
        problems += _attempt(lesson.folder, lambda: list(_check_outputs(lesson)))
    return problems


def check_front(lesson: Lesson, known: list[str]) -> list[Problem]:
    """Return what is wrong with the front matter of a lesson's two Markdown files."""
    problems = list(_check_keys(lesson.lesson, LESSON_KEYS))
    if not any("`requires`" in problem.text for problem in problems):
        problems += _check_requires(lesson, known)
    if lesson.exercises:
        problems += _check_keys(lesson.exercises, _TITLE)
    return problems


def check_start(start: Document) -> list[Problem]:
    """Return what is wrong with the page that a learner starts on; it may name every framework."""
    problems = list(_check_keys(start, START_KEYS))
    return problems + _attempt(start.path, lambda: list(_check_start_cells(start)))


def python_problem(source: str) -> SyntaxError | None:
    """Return why a cell's source is not valid Python (with IPython's additions), if it is not."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        from IPython.core.inputtransformer2 import TransformerManager  # slow to import

        try:
            ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError:
            return error
    return None


def _waivers(
    lesson: Lesson, document: Document, problems: list[Problem]
) -> list[dict[str, str]] | None:
    """Return the waivers for a document, or None if they are not sound enough to look at."""
    if document is not lesson.lesson:
        return []
    broken = any(p.path == document.path and "`waivers`" in p.text for p in problems)
    return None if broken else lesson.waivers


def _attempt(path: Path, rules: Callable[[], list[Problem]]) -> list[Problem]:
    """Return the problems that `rules` finds or stumbles over."""
    try:
        return rules()
    except Refused as refused:
        return refused.problems


def _check_keys(document: Document, keys: dict[str, tuple[str, Rule]]) -> Iterator[Problem]:
    for key in keys.keys() - OPTIONAL_KEYS - document.front.keys():
        text = f"The front matter lacks `{key}`. Add `{key}:` and {keys[key][0]}."
        yield Problem(document.path, 1, text)
    for key, value in document.front.items():
        line = document.key_lines[str(key)]
        if key not in keys:
            text = f"The front matter has an unknown key `{key}`. Use only {_ticked(keys)}."
            yield Problem(document.path, line, text)
        elif not keys[key][1](value):
            yield Problem(document.path, line, f"`{key}` is not right. Make it {keys[key][0]}.")


def _check_requires(lesson: Lesson, known: list[str]) -> Iterator[Problem]:
    for name in lesson.lesson.front.get("requires", []):
        if name not in known or name == lesson.name:
            line = lesson.lesson.key_lines["requires"]
            others = ", ".join(k for k in known if k != lesson.name) or "none yet"
            text = f"`requires` names {name!r}, which is no other lesson. There are: {others}."
            yield Problem(lesson.lesson.path, line, text)


def _check_document(
    document: Document, lesson: Lesson, waivers: list[dict[str, str]] | None
) -> list[Problem]:
    def rules() -> list[Problem]:
        problems = [p for cell in document.cells for p in _check_cell(cell, document, lesson)]
        problems += _check_title(document)
        problems += _check_names(document)
        return problems + (list(_check_steps(document, waivers)) if waivers is not None else [])

    return _attempt(document.path, rules)


def _check_start_cells(start: Document) -> Iterator[Problem]:
    if not TABLE.search(start.text):
        text = (
            "The table's place is missing. Add the lines `<!-- lessons -->`, `<!-- /lessons -->`."
        )
        yield Problem(start.path, 1, text)
    yield from _check_title(start)
    yield from _check_names(start)
    for cell in start.cells:
        for rule in (_check_options, _check_python):
            yield from rule(cell)
        if cell.tags:
            yield _problem(cell, "START has no tags: it is one page for all tracks. Remove them.")


def _check_cell(cell: Cell, document: Document, lesson: Lesson) -> Iterator[Problem]:
    for rule in CELL_RULES:
        yield from rule(cell)
    if document is lesson.lesson and cell.kind == "code" and cell.has_solution:
        yield _problem(cell, "A solution stands in lesson.md. Move it to exercises.md.")
    if document is not lesson.lesson and CHECKED in cell.tags:
        text = f"`{CHECKED}` has a meaning in lesson.md only. Remove the tag."
        yield _problem(cell, text)


def _check_options(cell: Cell) -> Iterator[Problem]:
    allowed = {"tags", "name"} if cell.kind == "code" else {"tags"}
    for key in cell.options.keys() - allowed:
        text = f"Unknown cell option `{key}`. Use only {_ticked(sorted(allowed))}."
        yield _problem(cell, text)
    for tag in cell.tags:
        if tag not in TAGS:
            yield _problem(cell, f"Unknown tag {tag!r}. Use only {', '.join(TAGS)}.")
        elif cell.kind != "code" and tag in (PARAMETERS, CHECKED, RAISES, EACH_ENGINE):
            yield _problem(cell, f"The tag `{tag}` is for code cells. Remove it from this text.")
    if cell.name is not None and not NAME.fullmatch(str(cell.name)):
        text = (
            f"{cell.name!r} cannot name a cell. Use up to 64 of a-z, 0-9, - and _, a letter first."
        )
        yield _problem(cell, text)
    if cell.kind not in ("code", "markdown"):
        yield _problem(cell, f"A {cell.kind} cell has no use here. Write a code cell or prose.")


def _check_rivals(cell: Cell) -> Iterator[Problem]:
    """Refuse another framework's name in a track, and any framework's in what all tracks share."""
    if COMPARE in cell.tags:
        return
    for i, line in enumerate(cell.source.split("\n")):
        for track in cell.own_tracks:
            if hit := TRACKS[track].rivals.search(line):
                text = (
                    f"{hit[0]!r} is a rival's name in the {track} track. Say it without, "
                    f"or tag the cell `{COMPARE}` if it compares on purpose."
                )
                yield _problem(cell, text, i)
        if not cell.own_tracks and (hit := ANY_FRAMEWORK.search(line)):
            text = (
                f"{hit[0]!r} is named in a cell that all tracks share. Say it without, tag the "
                f"cell with its track, or tag it `{COMPARE}` if it compares on purpose."
            )
            yield _problem(cell, text, i)


def _check_length(cell: Cell) -> Iterator[Problem]:
    lines = [line.strip() for line in cell.source.split("\n")]
    count = sum(line != "" and not line.startswith("#") for line in lines)
    if cell.kind == "code" and count > MAX_CODE_LINES:
        text = (
            f"This cell has {count} lines of code, more than {MAX_CODE_LINES}. "
            "Split it into cells that do one thing each."
        )
        yield _problem(cell, text)


def _check_python(cell: Cell) -> Iterator[Problem]:
    if cell.kind == "code" and (error := python_problem(cell.source)):
        line = max(error.lineno or 1, 1) - 1
        yield _problem(cell, f"This is not valid Python: {error.msg}. Mend it.", line)


def _check_nesting(cell: Cell) -> Iterator[Problem]:
    """Refuse a code cell that jupytext does not see because it is indented or nested."""
    lines = cell.source.split("\n") if cell.kind == "markdown" else []
    for i, line in enumerate(lines):
        if re.match(r"\s*[>`~\s]*\{code-cell\}", line):
            text = "This code cell is inside of a list or quote. Put it at the start of the line."
            yield _problem(cell, text, i)


def _check_markers(cell: Cell) -> Iterator[Problem]:
    """Refuse solution markers that are not in pairs, and given code that follows no solution."""
    opened, closed_at, lines = None, None, cell.source.split("\n")
    for i, line in enumerate(lines if cell.kind == "code" else []):
        if "BEGIN SOLUTION" in line:
            if opened is not None:
                text = "`### BEGIN SOLUTION` stands inside of a solution. End the first one before."
                yield _problem(cell, text, i)
            opened = i
        elif "END SOLUTION" in line:
            if opened is None:
                text = "`### END SOLUTION` ends nothing. Write `### BEGIN SOLUTION` above it."
                yield _problem(cell, text, i)
            opened, closed_at = None, i
        elif GIVEN.fullmatch(line):
            if closed_at != i - 1:
                text = "`### GIVEN` follows no solution. Put it right after `### END SOLUTION`."
                yield _problem(cell, text, i)
            closed_at = i
    if opened is not None:
        text = "This solution has no end. Write `### END SOLUTION` below it."
        yield _problem(cell, text, opened)


def _check_stub(cell: Cell) -> Iterator[Problem]:
    """Refuse a solution whose stub would stand in the wrong place or leave no valid Python."""
    if cell.kind != "code" or not cell.has_solution or list(_check_markers(cell)):
        return
    lines = cell.source.split("\n")
    for i, line in enumerate(lines):
        if "BEGIN SOLUTION" in line and _indent(line) != _indent(lines[i + 1]):
            text = "`### BEGIN SOLUTION` is not indented as the code below it. Indent it so."
            yield _problem(cell, text, i)
    if not python_problem(cell.source) and (error := python_problem(cleared(cell.source))):
        text = (
            f"Without its solution this cell is not valid Python: {error.msg}. Mend what is left."
        )
        yield _problem(cell, text)


CELL_RULES = (
    _check_options,
    _check_rivals,
    _check_length,
    _check_python,
    _check_nesting,
    _check_markers,
    _check_stub,
)


def _check_title(document: Document) -> Iterator[Problem]:
    titles = [c for c in document.cells if c.heading and c.heading[0] == 1]
    first = document.cells[0] if document.cells else None
    if not first or first not in titles or first.tags:
        line = first.line if first else document.body_line + 1
        text = "The title is missing. Let the text begin with an untagged `# Title`."
        yield Problem(document.path, line, text)
    for extra in titles[1:]:
        yield _problem(extra, "This is a second title. Use `##` or `###` for what is below it.")


def _check_names(document: Document) -> Iterator[Problem]:
    """Refuse two cells with one id, and two cells of parameters, in the same notebook."""
    for track in TRACKS:
        cells = [cell for cell in document.cells if track in cell.tracks]
        seen = {"header", "footer"}
        for cell, cell_id in zip(cells, cell_ids(cells), strict=True):
            if cell_id in seen:
                text = f"A second cell has the id {cell_id!r} in the {track} notebook. Rename it."
                yield _problem(cell, text)
            seen.add(cell_id)
        for extra in [cell for cell in cells if PARAMETERS in cell.tags][1:]:
            text = f"A second cell has the tag `{PARAMETERS}`. Put all parameters in one cell."
            yield _problem(extra, text)


def _check_steps(document: Document, waivers: list[dict[str, str]]) -> Iterator[Problem]:
    """Refuse a step that some tracks have code for and others neither code nor a waiver."""
    waived = {(w["step"], w["track"]) for w in waivers}
    used = set()
    for step, cells in _steps(document).items():
        having = {track for cell in cells if cell.kind == "code" for track in cell.own_tracks}
        for track in (t for t in TRACKS if having and t not in having):
            used.add((step, track))
            if (step, track) not in waived:
                text = (
                    f"The step {step!r} has no code for {track}. Write it, or waive it in the "
                    "front matter under `waivers` and say why in a text with that tag."
                )
                yield _problem(cells[0], text)
            elif not any(c.kind == "markdown" and track in c.own_tracks for c in cells):
                text = (
                    f"The step {step!r} is waived for {track}, but no text says why. "
                    f'Write one below `+++ {{"tags": ["{track}"]}}`.'
                )
                yield _problem(cells[0], text)
    for step, track in sorted(waived - used):
        line = document.key_lines["waivers"]
        text = f"The waiver of step {step!r} for {track} is not needed. Remove it."
        yield Problem(document.path, line, text)


def _steps(document: Document) -> dict[str, list[Cell]]:
    steps: dict[str, list[Cell]] = {}
    for cell in document.cells:
        steps.setdefault(cell.step, []).append(cell)
    return steps


def _check_exercises(lesson: Lesson) -> Iterator[Problem]:
    """Refuse exercises, solutions and checks that do not go together."""
    if not lesson.exercises:
        if lesson.points:
            text = "checks.py has no exercises.md beside it. Write that, or remove checks.py."
            yield Problem(lesson.folder / "checks.py", 1, text)
        return
    if not lesson.points:
        text = (
            "checks.py is missing or declares no exercises. Declare there what a right answer is."
        )
        yield Problem(lesson.exercises.path, 1, text)
        return
    cells = [cell for cell in lesson.exercises.cells if cell.kind == "code"]
    yield from _check_exercise_cells(lesson, cells)
    for track in TRACKS:
        mine = [cell for cell in cells if track in cell.tracks]
        solved = Counter(cell.name for cell in mine if cell.has_solution)
        checked = Counter(name for cell in mine for name in cell.checks)
        for name in lesson.points:
            yield from _check_counts(lesson, track, name, solved[name], checked[name])


def _check_exercise_cells(lesson: Lesson, cells: list[Cell]) -> Iterator[Problem]:
    declared = ", ".join(lesson.points)
    for cell in cells:
        if cell.has_solution and cell.name not in lesson.points:
            text = (
                f"This solution belongs to no exercise that checks.py declares ({declared}). "
                "Name its cell with `:name:`, or declare the exercise."
            )
            yield _problem(cell, text)
        elif cell.name in lesson.points and not cell.has_solution:
            text = (
                f"The cell {cell.name!r} marks no solution. Put it between "
                "`### BEGIN SOLUTION` and `### END SOLUTION`."
            )
            yield _problem(cell, text)
        for name in cell.checks:
            if name not in lesson.points:
                text = f"checks.py declares no exercise {name!r}, only {declared}. Declare it."
                yield _problem(cell, text)
        if len(cell.checks) > 1 or (cell.checks and cell.has_solution):
            yield _problem(cell, "A check needs a cell of its own. Move it to one.")


def _check_counts(
    lesson: Lesson, track: str, name: str, solutions: int, checks: int
) -> Iterator[Problem]:
    if solutions != 1:
        text = (
            f"The exercise {name!r} has {solutions} solution cells in the {track} track. "
            f"Write exactly one, with `:name: {name}`."
        )
        yield Problem(lesson.exercises.path, 1, text)
    if checks != 1:
        text = (
            f"The exercise {name!r} has {checks} check cells in the {track} track. "
            f'Write exactly one that calls `check("{name}", …)`.'
        )
        yield Problem(lesson.exercises.path, 1, text)


def _check_outputs(lesson: Lesson) -> Iterator[Problem]:
    """Refuse a checked cell whose output was not recorded from its present source."""
    missing: dict[int, list[str]] = {}
    for track in TRACKS:
        cells = [cell for cell in lesson.lesson.cells if track in cell.tracks]
        for cell, cell_id in zip(cells, cell_ids(cells), strict=True):
            if CHECKED in cell.tags and not lesson.outputs(track, cell_id, cell):
                missing.setdefault(cell.line, []).append(track)
    for line, tracks in missing.items():
        text = (
            f"The output of this checked cell is not recorded for {', '.join(tracks)}, or the cell "
            f"has changed since. Run `quartet record {lesson.number}`."
        )
        yield Problem(lesson.lesson.path, line, text)


def _problem(cell: Cell, text: str, offset: int = 0) -> Problem:
    return Problem(cell.path, cell.line + offset, text)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _ticked(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words)
