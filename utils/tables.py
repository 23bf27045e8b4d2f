"""A table for a notebook cell to show, from a header and rows."""

from __future__ import annotations

from collections.abc import Sequence

from IPython.display import Markdown


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Markdown:
    """Return a Markdown table for a notebook cell to show; every cell is turned into text."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
