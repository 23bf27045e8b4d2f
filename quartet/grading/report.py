"""What a teacher takes away: gradebooks as CSV, a page for each learner, a summary with plots."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, PackageLoader

from quartet.build import write as write_file
from quartet.grading.intake import plain_text
from quartet.grading.settings import Rules
from quartet.grading.store import Row, Store

# Every value is escaped: names, code and messages come from learners.
PAGES = Environment(loader=PackageLoader("quartet.grading"), autoescape=True)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a cell of a spreadsheet be computed


@dataclass(frozen=True)
class Item:
    """One exercise of one submission, as it counts."""

    exercise: str
    points: float
    worth: float
    lines: list[tuple[bool, str]]
    comment: str
    code: str


@dataclass(frozen=True)
class Counted:
    """One submission, as it counts."""

    learner: str
    lesson: str
    track: str
    file: str
    handed_in: str
    number: str
    items: list[Item]
    remarks: list[str]
    problem: str
    seconds: float
    days_late: int
    kept: float

    @property
    def total(self) -> float:
        return round(self.kept * sum(item.points for item in self.items), 2)

    @property
    def worth(self) -> float:
        return sum(item.worth for item in self.items)


def write(out: Path, store: Store, rules: Rules, problems: list[str]) -> list[Path]:
    """Write all reports on the results in a store and return their paths."""
    manual = store.manual()
    counted = [count(row, rules, manual.get(row.key, {})) for row in store.rows()]
    written = []
    for name, text in _files(counted, problems):
        write_file(out / name, plain_text(text))
        written.append(out / name)
    return written


def _files(counted: list[Counted], problems: list[str]) -> Iterator[tuple[str, str]]:
    """Give the name and the text of each report, one after the other."""
    yield "gradebook.csv", _csv(_gradebook(counted))
    yield "canvas.csv", _csv(_canvas(counted))
    for lesson, theirs in _grouped(counted, lambda each: each.lesson).items():
        yield f"moodle/{lesson}.csv", _csv(_moodle(theirs))
    yield "summary.html", _summary(counted, problems)
    for each in counted:
        name = f"gradescope/{file_name(each.learner)}.{each.lesson}.{each.track}.json"
        yield name, json.dumps(_gradescope(each), indent=1, ensure_ascii=False) + "\n"
    for learner, theirs in _grouped(counted, lambda each: each.learner).items():
        page = PAGES.get_template("feedback.html").render(learner=learner, submissions=theirs)
        yield f"feedback/{file_name(learner)}.html", page


def count(row: Row, rules: Rules, manual: dict[str, tuple[float | None, str]]) -> Counted:
    """Return a submission's points with weights, a person's points, and days late applied."""
    items, answers = [], row.grade["answers"]
    for result in row.grade["results"]:
        name = result["exercise"]
        worth = rules.worth(row.lesson, name, result["max_points"])
        given, comment = manual.get(name, (None, ""))
        share = result["points"] / result["max_points"] if result["max_points"] else 0
        points = round(worth * share, 2) if given is None else given
        items.append(Item(name, points, worth, result["lines"], comment, answers.get(name, "")))
    days = rules.days_late(row.lesson, row.handed_in)
    about = (row.grade["remarks"], row.grade["problem"], row.grade["seconds"])
    whence = (*row.key, row.file, row.handed_in, row.number)
    return Counted(*whence, items, *about, days, rules.kept(days))


def file_name(learner: str) -> str:
    """Return a name for a learner's file that every system takes, another one for each learner."""
    plain = re.sub(r"[^\w -]", "_", learner).strip()[:60]
    return f"{plain}-{hashlib.sha256(learner.encode()).hexdigest()[:6]}"


def _gradebook(counted: list[Counted]) -> list[list[Any]]:
    head = ["learner", "lesson", "track", "points", "worth", "days late", "handed in", "problem"]
    rows = [
        [c.learner, c.lesson, c.track, c.total, c.worth, c.days_late, c.handed_in, c.problem]
        for c in counted
    ]
    names = sorted({item.exercise for c in counted for item in c.items})
    for row, each in zip(rows, counted, strict=True):
        points = {item.exercise: item.points for item in each.items}
        row += [points.get(name, "") for name in names]
    return [[*head, *names], *rows]


def _canvas(counted: list[Counted]) -> list[list[Any]]:
    """Return a row for each learner and a column for each lesson, as Canvas imports grades.

    Its columns are those of its own export; it finds a learner by the ID.
    """
    lessons = sorted({each.lesson for each in counted})
    worth = {each.lesson: each.worth for each in counted}
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    rows = [["    Points Possible", "", "", "", "", *(worth[lesson] for lesson in lessons)]]
    for learner, theirs in sorted(_grouped(counted, lambda each: each.learner).items()):
        best = _best(theirs)
        number = next((each.number for each in theirs if each.number), "")
        points = [best[lesson].total if lesson in best else "" for lesson in lessons]
        rows.append([learner, number, "", "", "", *points])
    return [[*head, *lessons], *rows]


def _moodle(counted: list[Counted]) -> list[list[Any]]:
    """Return the rows of a grading worksheet, which Moodle imports into one assignment.

    Moodle 5 demands the identifier, the grade, and when it last changed; "-" is its "never".
    """
    head = ["Identifier", "Full name", "Grade", "Maximum Grade", "Last modified (grade)"]
    rows = []
    for learner, theirs in sorted(_grouped(counted, lambda each: each.learner).items()):
        (best,) = _best(theirs).values()
        who = f"Participant {best.number}" if best.number else ""
        said = "; ".join(_said(item) for item in best.items)
        rows.append([who, learner, best.total, best.worth, "-", said])
    return [[*head, "Feedback comments"], *rows]


def _said(item: Item) -> str:
    comment = f" ({item.comment})" if item.comment else ""
    return f"{item.exercise}: {item.points:g} of {item.worth:g}{comment}"


def _best(theirs: list[Counted]) -> dict[str, Counted]:
    """Return lesson -> a learner's submission with the most points, of all tracks."""
    return {each.lesson: each for each in sorted(theirs, key=lambda each: each.total)}


def _gradescope(each: Counted) -> dict[str, Any]:
    tests = [
        {
            "name": item.exercise,
            "score": round(each.kept * item.points, 2),
            "max_score": item.worth,
            "output": "\n".join(f"{'ok' if ok else 'FAIL'} {text}" for ok, text in item.lines),
        }
        for item in each.items
    ]
    about = "\n".join([*([each.problem] if each.problem else []), *each.remarks])
    return {"score": each.total, "execution_time": each.seconds, "output": about, "tests": tests}


def _summary(counted: list[Counted], problems: list[str]) -> str:
    shares = defaultdict(list)
    for each in counted:
        for item in each.items:
            if item.worth:
                shares[each.lesson, item.exercise].append(item.points / item.worth)
    exercises = [
        {"lesson": lesson, "exercise": name, "count": len(s), "mean": f"{mean(s):.2f}"}
        | {"none": sum(x == 0 for x in s), "all": sum(x >= 1 for x in s)}
        for (lesson, name), s in sorted(shares.items(), key=lambda pair: mean(pair[1]))
    ]
    not_graded = [f"{c.learner}, {c.lesson}: {c.problem}" for c in counted if c.problem]
    return PAGES.get_template("summary.html").render(
        learners=len({each.learner for each in counted}),
        submissions=len(counted),
        seconds=f"{sum(each.seconds for each in counted):.0f}",
        exercises=exercises,
        problems=[*problems, *not_graded],
        plot=_plot(exercises, counted),
    )


def _plot(exercises: list[dict[str, Any]], counted: list[Counted]) -> str:
    """Return a PNG in base 64: mean share by exercise, points and time of each submission."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(12, 1.5 + 0.3 * max(6, len(exercises))), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    labels = [f"{each['lesson'][:2]} {each['exercise']}" for each in exercises]
    left.barh(labels, [float(each["mean"]) for each in exercises], color="#0072B2")
    left.set(xlim=(0, 1), title="Mean share of the points", xlabel="share")
    left.invert_yaxis()
    middle.hist([each.total / each.worth for each in counted if each.worth], bins=10, range=(0, 1))
    middle.set(title="Submissions by their share", xlabel="share of the points", ylabel="number")
    right.hist([each.seconds for each in counted], bins=10, color="#666666")
    right.set(title="Time to grade", xlabel="seconds", ylabel="submissions")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _grouped(counted: Iterable[Counted], key: Any) -> dict[str, list[Counted]]:
    groups: dict[str, list[Counted]] = defaultdict(list)
    for each in counted:
        groups[key(each)].append(each)
    return groups


def _csv(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(v) for v in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula; a lone sign is none."""
    is_formula = isinstance(value, str) and len(value) > 1 and value.startswith(FORMULA)
    return f"'{value}" if is_formula else value
