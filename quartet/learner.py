"""What a learner asks for: a check of the exercises, a hint, a fresh start, a solution."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from quartet import QuartetError
from quartet.build import serialize, write
from quartet.exercises import edited, original
from quartet.grading import judge, submission
from quartet.run import find_notebooks
from utils import checks
from utils.tracks import ROOT, TRACKS

NOTES = Path(".quartet") / "learner.json"  # how often a hint or a solution was asked for


@dataclass(frozen=True)
class Checked:
    """One exercise notebook: its grade, or why it has none."""

    path: Path
    grade: judge.Grade | None = None
    problem: str = ""


def check(
    names: Iterable[str] = (), tracks: Iterable[str] = (), root: Path = ROOT
) -> list[Checked]:
    """Grade one's own exercise notebooks with inputs that no notebook shows.

    Notebooks that nobody has worked in are left out. A progress bar and a table are shown.

    Parameters
    ----------
    names : lessons as `03`, `03_dense_layers` or a path; all of them if there are none.
    tracks : names of tracks; all of them if there are none.

    Raises
    ------
    QuartetError if a lesson or a track is unknown, or no notebook was worked in.
    """
    if not (root / "solutions").is_dir():
        raise QuartetError("This copy of the course holds no answers: your teacher's copy grades.")
    begun = [path for path in find_notebooks(names, tracks, "exercise", root) if _is_begun(path)]
    if not begun:
        raise QuartetError("None of these exercises has been worked in: open one in exercises/.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        done = [_check(path, root, progress) for path in begun]
    Console().print(table(done))
    return done


def hint(name: str, exercise: str, root: Path = ROOT) -> str:
    """Return the next hint to an exercise, one more at each call.

    Raises
    ------
    QuartetError if there is no such lesson or exercise.
    """
    lesson = _lesson(name, root)
    found = _exercise(lesson, exercise)
    count = len(found.hints)
    step = min(_asked(f"hint {lesson} {exercise}", root), count)
    return f"Hint {step} of {count}: {found.hints[step - 1]}"


def reset(name: str, track: str, root: Path = ROOT) -> tuple[Path, Path | None]:
    """Put an exercise notebook back to what it was; keep the work beside it.

    Returns
    -------
    The notebook, and where the work is kept; None if there was none.

    Raises
    ------
    QuartetError if there is no such lesson or track.
    """
    (solution,) = find_notebooks([name], [track], "solution", root)
    path = root / "exercises" / track / solution.name
    kept = _free_name(path) if path.is_file() and _is_begun(path) else None
    if kept:
        write(kept, path.read_text(encoding="utf-8", errors="replace"))
    write(path, serialize(_handed_out(path.stem, track, root)))
    return path, kept


def solution(name: str, exercise: str, track: str, root: Path = ROOT) -> str:
    """Return the code that solves an exercise.

    Raises
    ------
    QuartetError if there is no such lesson, track or exercise, or it was not tried and it is the
    first time that its solution is asked for.
    """
    (path,) = find_notebooks([name], [track], "solution", root)
    _exercise(path.stem, exercise)
    stub = _cell(_handed_out(path.stem, track, root), exercise)
    times = _asked(f"solution {path.stem} {exercise} {track}", root)
    if times == 1 and _own(root / "exercises" / track / path.name, exercise) in (stub, ""):
        raise QuartetError(
            f"You have not tried {exercise} in {track} yet. `quartet hint {path.stem[:2]} "
            f"{exercise}` may be enough. Ask for the solution again, and you get it."
        )
    return _cell(nbformat.read(path, as_version=4), exercise)


def table(done: Iterable[Checked]) -> Table:
    """Return a table of exercise notebooks with the points of each exercise."""
    shown = Table("lesson", "track", "exercise", title="Your exercises")
    shown.add_column("points", justify="right")
    shown.add_column("what to look at")
    for each in done:
        where = (each.path.stem, TRACKS[each.path.parent.name].title)
        if each.grade is None:
            shown.add_row(*where, "", "-", f"[red]{each.problem}[/red]")
            continue
        for result in each.grade.results:
            color = "green" if result.passed else "red"
            wrong = next((text for ok, text in result.lines if not ok), "")
            points = f"[{color}]{result.points:g} of {result.max_points:g}[/{color}]"
            shown.add_row(*where, result.exercise, points, wrong)
        total = f"[bold]{each.grade.points:g} of {each.grade.max_points:g}[/bold]"
        shown.add_row(*where, "[bold]all[/bold]", total, "; ".join(each.grade.remarks))
        shown.add_section()
    return shown


def _check(path: Path, root: Path, progress: Progress) -> Checked:
    exercises = checks.load_exercises(path.stem)
    task = progress.add_task(f"{path.stem}, {path.parent.name}", total=len(exercises))
    try:
        handed_out = _handed_out(path.stem, path.parent.name, root)
        mine = submission.assemble(submission.read(path), handed_out)
    except QuartetError as error:
        return Checked(path, problem=str(error))
    seed = secrets.randbits(32)
    grade = judge.grade(
        mine, exercises, path.parent, seed, on_exercise=lambda: progress.advance(task)
    )
    return Checked(path, grade)


def _is_begun(path: Path) -> bool:
    """Return whether someone has worked in an exercise notebook; a broken one counts."""
    try:
        return edited(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return True


def _handed_out(lesson: str, track: str, root: Path) -> NotebookNode:
    (path,) = find_notebooks([lesson], [track], "solution", root)
    return original(nbformat.read(path, as_version=4))


def _lesson(name: str, root: Path) -> str:
    return find_notebooks([name], ["keras"], "solution", root)[0].stem


def _exercise(lesson: str, name: str) -> checks.Exercise:
    exercises = checks.load_exercises(lesson)
    if name not in exercises:
        known = ", ".join(exercises)
        raise QuartetError(f"Lesson {lesson} has no exercise {name!r}. It has: {known}.")
    return exercises[name]


def _cell(notebook: NotebookNode, name: str) -> str:
    return next(cell.source for cell in notebook.cells if cell.id == name)


def _own(path: Path, exercise: str) -> str:
    """Return what a learner has written for an exercise, "" if it is not there."""
    try:
        return _cell(submission.read(path), exercise)
    except (QuartetError, StopIteration, OSError):
        return ""


def _asked(what: str, root: Path) -> int:
    """Note that something was asked for, and return how often that was."""
    path = root / NOTES
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        notes = {}
    notes[what] = notes.get(what, 0) + 1
    write(path, json.dumps(notes, indent=1) + "\n")
    return notes[what]


def _free_name(path: Path) -> Path:
    """Return a name beside a notebook that is not taken: NAME.mine.ipynb, NAME.mine-2.ipynb..."""
    number, kept = 1, path.with_suffix(".mine.ipynb")
    while kept.exists():
        number += 1
        kept = path.with_suffix(f".mine-{number}.ipynb")
    return kept
