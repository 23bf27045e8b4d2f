"""Read the sources of the lessons: front matter, and cells with their tags, steps and lines."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from quartet import QuartetError
from utils.tracks import ROOT, TRACKS

LESSON_NAME = re.compile(r"\d\d_[a-z0-9_]+")
HEADING = re.compile(r"(#{1,3})\s+(.+?)\s*#*\s*")
CHECK_CALL = re.compile(r"\bcheck\(\s*[\"'](\w+)[\"']")


@dataclass(frozen=True, order=True)
class Problem:
    """A reason to refuse: where it is, what is wrong, and what to do."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.as_posix()}:{self.line}: {self.text}"


class Refused(QuartetError):
    """Sources that break the rules; `problems` holds every reason found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Cell:
    """One cell of a source file.

    `line` is the line of the file on which `source` begins. `step` is the text of the heading that
    the cell stands under. `options` are what a code cell's `:key:` lines or a prose cell's `+++`
    line say, as they were read.
    """

    kind: str
    source: str
    path: Path
    line: int
    step: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        tags = self.options.get("tags") or []
        return [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]

    @property
    def name(self) -> str | None:
        return self.options.get("name")

    @property
    def own_tracks(self) -> list[str]:
        """The tracks that the cell is tagged with; none for a cell that all tracks share."""
        return [track for track in TRACKS if track in self.tags]

    @property
    def tracks(self) -> list[str]:
        """The tracks whose notebooks have this cell."""
        return self.own_tracks or list(TRACKS)

    @property
    def heading(self) -> tuple[int, str] | None:
        """Level and text of the heading that a prose cell begins with."""
        first = self.source.partition("\n")[0]
        match = HEADING.fullmatch(first) if self.kind == "markdown" else None
        return (len(match[1]), match[2]) if match else None

    @property
    def has_solution(self) -> bool:
        return "BEGIN SOLUTION" in self.source or "END SOLUTION" in self.source

    @property
    def checks(self) -> list[str]:
        """The names of the exercises that a code cell checks."""
        return CHECK_CALL.findall(self.source) if self.kind == "code" else []


@dataclass(frozen=True)
class Document:
    """A Markdown source file: its front matter, and its cells, which are read when asked for.

    `path` is relative to the project's root; `key_lines` says where each key of the front matter
    stands.
    """

    path: Path
    text: str
    front: dict[str, Any]
    key_lines: dict[str, int]
    body_line: int

    @cached_property
    def cells(self) -> list[Cell]:
        return list(_cells(self))


@dataclass(frozen=True)
class Lesson:
    """A folder of `lessons/`."""

    name: str
    root: Path
    lesson: Document
    exercises: Document | None

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def title(self) -> str:
        return self.lesson.front["title"]

    @property
    def folder(self) -> Path:
        """The folder, relative to the project's root."""
        return Path("lessons") / self.name

    @property
    def waivers(self) -> list[dict[str, str]]:
        return self.lesson.front.get("waivers") or []

    @cached_property
    def points(self) -> dict[str, float]:
        """The points of each exercise that checks.py declares."""
        return _points(self)

    @cached_property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """Track -> numbers and outputs, as `quartet record` stored them."""
        path = self.folder / "recorded.json"
        if not (self.root / path).is_file():
            return {}
        try:
            return json.loads((self.root / path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            text = f"This is not valid JSON: {error.msg}. Run `quartet record {self.number}`."
            raise Refused([Problem(path, error.lineno, text)]) from None

    def outputs(self, track: str, cell_id: str, cell: Cell) -> list[dict[str, Any]] | None:
        """Return the recorded outputs of a cell; None if there are none for its present source."""
        entry = self.recorded.get(track, {}).get("outputs", {}).get(cell_id)
        fresh = entry is not None and entry["source_sha256"] == fingerprint(cell.source)
        return entry["outputs"] if fresh else None


@dataclass(frozen=True)
class Course:
    """All lessons in their order, and the page that a learner starts on."""

    root: Path
    lessons: list[Lesson]
    start: Document | None = None

    def find(self, names: Iterable[str]) -> list[Lesson]:
        """Return the lessons meant by `03`, `03_dense_layers` or a path; all for no name."""
        known = {lesson.name: lesson for lesson in self.lessons}
        return [known[name] for name in resolve(names, list(known))]


def resolve(names: Iterable[str], known: list[str]) -> list[str]:
    """Return the names of lessons meant by `03`, `03_dense_layers` or a path, in their order.

    Raises
    ------
    QuartetError if one of them is no lesson.
    """
    wanted = list(names)
    meant = {_meant(name, known) for name in wanted}
    return [name for name in known if name in meant or not wanted]


def lesson_names(root: Path = ROOT) -> list[str]:
    """Return the names of the folders of `lessons/`, in their order."""
    folders = (root / "lessons").glob("*/")
    return sorted(f.name for f in folders if f.is_dir() and f.name[0] not in "._")


def read_course(root: Path = ROOT) -> Course:
    """Read the front matter of every lesson; cells are read when they are asked for.

    Raises
    ------
    Refused with all the reasons, if a source cannot be read.
    """
    lessons, problems = [], []
    for name in lesson_names(root):
        try:
            lessons.append(_lesson(root, name))
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    start = Path("lessons/START.md")
    return Course(root, lessons, _read(root, start) if (root / start).is_file() else None)


def cell_ids(cells: Iterable[Cell]) -> list[str]:
    """Return the id of each of a notebook's cells.

    It is the cell's name, `<exercise>-check` for a check, or else the nearest heading with a
    number, so that the same step has the same id in all tracks.
    """
    ids, counts, nearest = [], Counter(), "cell"
    for cell in cells:
        nearest = slug(cell.heading[1]) if cell.heading else nearest
        if not cell.name and not cell.checks:
            counts[nearest] += 1
        numbered = f"{nearest}-{counts[nearest]}"
        ids.append(f"{cell.checks[0]}-check" if cell.checks else cell.name or numbered)
    return ids


def slug(text: str) -> str:
    """Return a heading in the letters that a cell's id may have."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:56].strip("-") or "cell"


def fingerprint(source: str) -> str:
    """Return the SHA-256 of a cell's source."""
    return hashlib.sha256(source.encode()).hexdigest()


def _meant(name: str, known: list[str]) -> str:
    for part in reversed(Path(name).parts):
        for lesson in known:
            if Path(part).stem == lesson or part == lesson[:2]:
                return lesson
    raise QuartetError(
        f"There is no lesson {name!r}. Give a number, a folder's name or a path; "
        f"the lessons are {', '.join(known) or 'not there yet'}."
    )


def _lesson(root: Path, name: str) -> Lesson:
    folder = Path("lessons") / name
    if not LESSON_NAME.fullmatch(name):
        text = "This is no name for a lesson's folder. Call it like `03_dense_layers`."
        raise Refused([Problem(folder, 1, text)])
    exercises = folder / "exercises.md"
    return Lesson(
        name=name,
        root=root,
        lesson=_read(root, folder / "lesson.md"),
        exercises=_read(root, exercises) if (root / exercises).is_file() else None,
    )


def _read(root: Path, path: Path) -> Document:
    """Read a source file and its front matter."""
    if not (root / path).is_file():
        raise Refused([Problem(path, 1, "This file is missing. Write it, or remove its folder.")])
    text = (root / path).read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if not match:
        what = (
            "The front matter is missing. Begin the file with `---`, `title: …` and so on, `---`."
        )
        raise Refused([Problem(path, 1, what)])
    front, key_lines = _front_matter(path, match[1])
    return Document(path, text, front, key_lines, match[0].count("\n"))


def _front_matter(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the front matter and the line of each of its keys."""
    try:
        front, tree = yaml.safe_load(text), yaml.compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"The front matter is not valid YAML: {getattr(error, 'problem', error)}. Mend it."
        raise Refused([Problem(path, mark.line + 2 if mark else 1, what)]) from None
    if not isinstance(front, dict):
        what = "The front matter holds no keys. Write lines such as `title: Dense layers`."
        raise Refused([Problem(path, 1, what)])
    return front, {str(key.value): key.start_mark.line + 2 for key, _ in tree.value}


def _cells(document: Document) -> Iterator[Cell]:
    """Yield the cells, prose split in front of each heading."""
    step = ""
    for cell in _raw_cells(document):
        for part in _split(cell):
            step = part.heading[1] if part.heading else step
            yield Cell(part.kind, part.source, part.path, part.line, step, part.options)


def _raw_cells(document: Document) -> Iterator[Cell]:
    """Yield the cells as jupytext reads them."""
    import jupytext.myst as myst  # slow to import

    lines = document.text.splitlines()
    lines[: document.body_line] = [""] * document.body_line  # so that lines keep their numbers
    try:
        notebook = myst.myst_to_notebook("\n".join(lines), add_source_map=True)
    except myst.MystMetadataParsingError as error:
        line = re.search(r"at line (\d+)", str(error))
        text = f"{' '.join(str(error).split())}. Mend the cell's options."
        raise Refused([Problem(document.path, int(line[1]) if line else 1, text)]) from None
    for cell, start in zip(notebook.cells, notebook.metadata.source_map, strict=True):
        line = _first_line(lines, start, cell.cell_type)
        options = json.loads(json.dumps(cell.metadata))
        yield Cell(cell.cell_type, cell.source, document.path, line, options=options)


def _first_line(lines: list[str], at: int, kind: str) -> int:
    """Return the number (from 1) of the line on which a cell's source begins."""
    if kind == "code":
        if lines[at].startswith("---"):
            at = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("---")) + 1
        while lines[at].lstrip().startswith(":"):
            at += 1
        return at + 1 + (not lines[at].strip())
    while not lines[at].strip():
        at += 1
    return at + 1


def _split(cell: Cell) -> Iterator[Cell]:
    """Cut a prose cell in front of each heading that stands outside of a fence."""
    if cell.kind != "markdown":
        yield cell
        return
    lines = cell.source.split("\n")
    cuts = [0, *_heading_lines(lines), len(lines)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        source = "\n".join(lines[start:end])
        if source.strip():
            line = cell.line + start + len(source) - len(source.lstrip("\n"))
            yield Cell("markdown", source.strip("\n").rstrip(), cell.path, line, "", cell.options)


def _heading_lines(lines: list[str]) -> list[int]:
    fence, found = "", []
    for i, line in enumerate(lines):
        marker = re.match(r"\s{0,3}(`{3,}|~{3,})", line)
        if marker and not fence:
            fence = marker[1]
        elif marker and marker[1].startswith(fence):
            fence = ""
        elif not fence and HEADING.fullmatch(line):
            found.append(i)
    return found


def _points(lesson: Lesson) -> dict[str, float]:
    """Run checks.py and return the points of its exercises by name."""
    path = lesson.folder / "checks.py"
    if not (lesson.root / path).is_file():
        return {}
    try:
        exercises = runpy.run_path(str(lesson.root / path))["EXERCISES"]
        names = [exercise.name for exercise in exercises]
        if len(names) > len(set(names)):
            raise ValueError(f"two exercises have the same name among {', '.join(names)}")
        return {exercise.name: exercise.points for exercise in exercises}
    except Exception as error:
        text = (
            f"This file cannot be used: {type(error).__name__}: {error}. It must define EXERCISES."
        )
        raise Refused([Problem(path, _line_of(error, lesson.root / path), text)]) from None


def _line_of(error: BaseException, path: Path) -> int:
    """Return the line of a file that an error came from."""
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    line, trace = 1, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
