"""How far a learner is: the points that check cells show in the saved exercise notebooks."""

from __future__ import annotations

import json
from pathlib import Path

from IPython.display import Markdown

from utils.checks import MIME
from utils.tables import table
from utils.tracks import ROOT, TRACKS


def show(root: Path = ROOT) -> Markdown:
    """Return a table of lessons and tracks with the points reached, and what to do next."""
    names = (path.stem for path in (root / "exercises" / "keras").glob("*.ipynb"))
    lessons = sorted(name for name in names if "." not in name)  # work that was kept has a dot
    reached = {(name, track): points(root, name, track) for name in lessons for track in TRACKS}
    rows = [[name, *(_cell(*reached[name, track]) for track in TRACKS)] for name in lessons]
    shown = table(["lesson", *(track.title for track in TRACKS.values())], rows)
    return Markdown(f"{shown.data}\n\n{_next(reached)}")


def points(root: Path, lesson: str, track: str) -> tuple[float, float]:
    """Return the points that an exercise notebook's outputs show, and how many there are.

    A notebook that cannot be read counts as one without outputs.
    """
    try:
        text = (root / "exercises" / track / f"{lesson}.ipynb").read_text(encoding="utf-8")
        cells = json.loads(text)["cells"]
        most = sum(cell["metadata"].get("nbgrader", {}).get("points", 0) for cell in cells)
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        found = [output.get("data", {}).get(MIME) for output in outputs]
        return sum({each["exercise"]: each["points"] for each in found if each}.values()), most
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, 0


def _cell(reached: float, most: float) -> str:
    return f"{reached:g} of {most:g}" if reached else "-"


def _next(reached: dict[tuple[str, str], tuple[float, float]]) -> str:
    """Name the first notebook that is not finished in the track that is furthest."""
    done = {t: sum(p for (_, track), (p, _) in reached.items() if track == t) for t in TRACKS}
    track = max(done, key=lambda name: done[name])
    if not done[track]:
        return "No check has been passed yet. Open the first lesson of a track above."
    for (lesson, name), (p, most) in reached.items():
        if name == track and p < most:
            path = f"exercises/{track}/{lesson}.ipynb"
            return f"Next: [{lesson} in {TRACKS[track].title}]({path}), {most - p:g} points to go."
    return (
        f"All exercises in {TRACKS[track].title} are done. Try another track: it is a short walk."
    )
