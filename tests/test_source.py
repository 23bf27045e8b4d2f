"""Reading lessons: cells, tags, steps, ids and line numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from quartet import QuartetError
from quartet.source import Cell, Refused, cell_ids, read_course, resolve

KNOWN = ["03_dense_layers", "04_defining_models"]


def cells_of(course: Path, name: str = "lesson") -> list[Cell]:
    return getattr(read_course(course).lessons[0], name).cells


def test_every_cell_knows_the_line_it_begins_on(course: Path) -> None:
    for name in ("lesson", "exercises"):
        lines = (course / f"lessons/01_tiny/{name}.md").read_text(encoding="utf-8").splitlines()
        for cell in cells_of(course, name):
            assert lines[cell.line - 1] == cell.source.split("\n")[0]


def test_lines_are_right_after_options_in_a_block(course: Path, edit) -> None:
    edit("lesson.md", ":tags: [keras]\n:name: add\n", "---\ntags: [keras]\nname: add\n---\n")
    cell = next(c for c in cells_of(course) if c.own_tracks == ["keras"])
    text = (course / "lessons/01_tiny/lesson.md").read_text(encoding="utf-8").splitlines()
    assert text[cell.line - 1] == "total = 1 + 1  # keras"
    assert cell.name == "add"


def test_prose_is_split_in_front_of_headings_but_not_inside_of_fences(course: Path, edit) -> None:
    text = "It is two.\n\n### Why\n\n~~~\n# no heading\n```\n## nor this\n~~~\n\n## More\n\nEnd."
    edit("lesson.md", "It is two.", text)
    headings = [cell.heading for cell in cells_of(course) if cell.heading]
    expected = [(1, "Tiny"), (2, "Add"), (2, "Recap"), (3, "Why"), (2, "More")]
    assert headings == expected


def test_a_tagged_text_keeps_its_tags_when_it_is_split(course: Path, edit) -> None:
    tagged = '+++ {"tags": ["jax"]}\n\nOne.\n\n### Two\n\nThree.\n\n+++\n\nIt is two.'
    edit("lesson.md", "It is two.", tagged)
    tagged_cells = [cell for cell in cells_of(course) if cell.tracks == ["jax"]]
    assert [c.source for c in tagged_cells if c.kind == "markdown"] == ["One.", "### Two\n\nThree."]


def test_a_cell_without_tags_is_for_all_tracks(course: Path) -> None:
    shared = [cell for cell in cells_of(course) if not cell.own_tracks]
    assert all(cell.tracks == ["keras", "pytorch", "tensorflow", "jax"] for cell in shared)
    assert len(shared) == 5


def test_the_same_step_has_the_same_id_in_every_track(course: Path) -> None:
    cells = cells_of(course)
    ids = {
        track: cell_ids([cell for cell in cells if track in cell.tracks])
        for track in ("keras", "pytorch", "tensorflow", "jax")
    }
    assert ids["keras"] == ["tiny-1", "tiny-2", "add-1", "add", "recap-1", "recap-2"]
    assert all(each == ids["keras"] for each in ids.values())


def test_ids_count_on_under_a_heading_that_comes_again_and_are_short() -> None:
    def text(source: str) -> Cell:
        return Cell("markdown", source, Path("x.md"), 1)

    again = cell_ids([text("## In `tf.Module`"), text("more"), text("## In `tf.Module`")])
    assert again == ["in-tf-module-1", "in-tf-module-2", "in-tf-module-3"]
    assert len(cell_ids([text("## " + "long " * 40)])[0]) <= 64
    assert cell_ids([text("## ∇")]) == ["cell-1"]


@pytest.mark.parametrize(
    "name",
    [
        "03",
        "03_dense_layers",
        "lessons/03_dense_layers",
        "lessons/03_dense_layers/lesson.md",
        "notebooks/jax/03_dense_layers.ipynb",
    ],
)
def test_a_lesson_is_named_by_number_name_or_path(name: str) -> None:
    assert resolve([name], KNOWN) == ["03_dense_layers"]


def test_lessons_come_in_their_order_and_all_if_none_is_named() -> None:
    assert resolve(["04", "03", "03"], KNOWN) == KNOWN
    assert resolve([], KNOWN) == KNOWN


def test_an_unknown_lesson_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QuartetError, match="no lesson '99'.*03_dense_layers, 04_defining_models"):
        resolve(["99"], KNOWN)


def test_broken_sources_are_all_reported_at_once(course: Path) -> None:
    (course / "lessons" / "02_Bad").mkdir()
    (course / "lessons" / "03_empty").mkdir()
    (course / "lessons" / "04_bare").mkdir()
    (course / "lessons" / "04_bare" / "lesson.md").write_text("# No front matter\n")
    with pytest.raises(Refused) as refused:
        read_course(course)
    assert [str(problem) for problem in refused.value.problems] == [
        "lessons/02_Bad:1: This is no name for a lesson's folder. Call it like `03_dense_layers`.",
        "lessons/03_empty/lesson.md:1: This file is missing. Write it, or remove its folder.",
        "lessons/04_bare/lesson.md:1: The front matter is missing. "
        "Begin the file with `---`, `title: …` and so on, `---`.",
    ]


def test_front_matter_that_is_no_yaml_is_refused_with_its_line(course: Path, edit) -> None:
    edit("lesson.md", "minutes: 5", "minutes: [5")
    with pytest.raises(Refused, match=r"lesson\.md:\d+: The front matter is not valid YAML.*Mend"):
        read_course(course)
