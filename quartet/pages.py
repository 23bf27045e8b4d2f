"""What ties the notebooks together: header, footer and the table of lessons."""

from __future__ import annotations

import re

from quartet.source import Course, Lesson
from utils.tracks import TRACKS

TABLE = re.compile(r"(<!-- lessons -->\n).*?(<!-- /lessons -->)", re.DOTALL)
FOLDERS = {"notebook": "notebooks", "exercise": "exercises", "solution": "solutions"}


def notebook_path(lesson: Lesson, track: str, kind: str) -> str:
    """Return the path of a built notebook, relative to the project's root."""
    return f"{FOLDERS[kind]}/{track}/{lesson.name}.ipynb"


def header(course: Course, lesson: Lesson, track: str, kind: str) -> str:
    """Return the text under a notebook's title: time, objectives, what it builds on, links."""
    if kind != "notebook":
        return _exercise_header(lesson, track, kind)
    front = lesson.lesson.front
    lines = [f"**{TRACKS[track].title}** · about {front['minutes']} minutes · part {front['part']}"]
    lines += ["", "After this lesson you can", ""]
    lines += [f"- {objective}" for objective in front["objectives"]]
    needed = [each for each in course.lessons if each.name in front["requires"]]
    if needed:
        links = ", ".join(f"[{each.title}]({each.name}.ipynb)" for each in needed)
        lines += ["", f"It builds on {links}."]
    if lesson.exercises:
        lines += ["", f"Its {_link('exercises', lesson, track, 'exercise')} come after it."]
    return "\n".join([*lines, "", _elsewhere(lesson, track, kind)])


def footer(course: Course, lesson: Lesson, track: str, kind: str) -> str:
    """Return the text at a notebook's end: the exercises, the neighbors and the other tracks."""
    lines = ["---", ""]
    if kind == "notebook":
        at = course.lessons.index(lesson)
        before = course.lessons[at - 1] if at else None
        after = course.lessons[at + 1] if at + 1 < len(course.lessons) else None
        if lesson.exercises:
            lines += [f"Now do the {_link('exercises', lesson, track, 'exercise')}.", ""]
        parts = [f"Before: [{before.title}]({before.name}.ipynb)"] if before else []
        parts += [f"Next: [{after.title}]({after.name}.ipynb)"] if after else []
    else:
        other = "solution" if kind == "exercise" else "exercise"
        label = "Solutions, for when you have tried" if kind == "exercise" else "Exercises"
        parts = [_link("Lesson", lesson, track, "notebook"), _link(label, lesson, track, other)]
    parts += ["[All lessons](../../START.ipynb)"]
    return "\n".join([*lines, " · ".join(parts), "", _elsewhere(lesson, track, kind)])


def with_table(course: Course, text: str) -> str:
    """Return a text with the table of lessons between its two `lessons` comments."""
    return TABLE.sub(lambda match: f"{match[1]}\n{_table(course)}\n\n{match[2]}", text)


def _exercise_header(lesson: Lesson, track: str, kind: str) -> str:
    points, count = sum(lesson.points.values()), len(lesson.points)
    facts = (
        f"about {lesson.exercises.front['minutes']} minutes · {count} exercises, {points:g} points"
    )
    lines = [f"**{TRACKS[track].title}** · {facts}", ""]
    if kind == "solution":
        lines += [
            f"These are the solutions of the {_link('exercises', lesson, track, 'exercise')}."
        ]
    else:
        lines += [f"They belong to the lesson {_link(lesson.title, lesson, track, 'notebook')}."]
    return "\n".join([*lines, "", _elsewhere(lesson, track, kind)])


def _elsewhere(lesson: Lesson, track: str, kind: str) -> str:
    others = [_link(TRACKS[t].title, lesson, t, kind) for t in TRACKS if t != track]
    return f"The same in {' · '.join(others)}"


def _link(label: str, lesson: Lesson, track: str, kind: str) -> str:
    """Return a link from one built notebook to another."""
    return f"[{label}](../../{notebook_path(lesson, track, kind)})"


def _table(course: Course) -> str:
    titles = [track.title for track in TRACKS.values()]
    lines = [["Lesson", "Minutes", *titles], ["---"] * (2 + len(titles))]
    for lesson in course.lessons:
        about = [f"{lesson.number} {lesson.title}", str(lesson.lesson.front["minutes"])]
        lines.append([*about, *(_links(lesson, track) for track in TRACKS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _links(lesson: Lesson, track: str) -> str:
    kinds = {"lesson": "notebook"} | ({"exercises": "exercise"} if lesson.exercises else {})
    return " · ".join(
        f"[{label}]({notebook_path(lesson, track, kind)})" for label, kind in kinds.items()
    )
