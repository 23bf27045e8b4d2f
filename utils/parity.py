"""Same numbers in four tracks: shared weights and batches, recorded results, comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from utils.plots import PALETTE
from utils.tables import table
from utils.tracks import ROOT, TRACKS

if TYPE_CHECKING:
    from nbformat import NotebookNode  # takes a second to import, and no notebook needs it

MIME = "application/vnd.quartet.record+json"
SETTINGS = ("seed", "epochs", "data")  # runs that differ in one of these need not agree
SKETCH_ABOVE = 256  # arrays with more elements are recorded as a sketch
SKETCH_SIZE = 64

_recorded: dict[str, Any] = {}


def dense_weights(
    sizes: list[int], seed: int, scheme: str = "glorot_uniform"
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the initial weights of a stack of dense layers.

    Parameters
    ----------
    sizes : widths from the input to the output, such as [784, 128, 10].
    seed : the same seed gives the same weights in every track.
    scheme : "glorot_uniform" draws from U(-a, a) with a = sqrt(6 / (d_in + d_out)) (Glorot and
        Bengio 2010); "he_normal" draws from N(0, 2 / d_in) (He et al. 2015).

    Returns
    -------
    One pair for each layer: W (d_in, d_out) float32 and b (d_out,) float32 of zeros.

    Raises
    ------
    ValueError if the scheme is not one of the two.
    """
    rng = np.random.default_rng(seed)
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return [(_draw(rng, *pair, scheme), np.zeros(pair[1], np.float32)) for pair in pairs]


def _draw(rng: np.random.Generator, d_in: int, d_out: int, scheme: str) -> np.ndarray:
    if scheme == "glorot_uniform":
        limit = np.sqrt(6 / (d_in + d_out))
        return rng.uniform(-limit, limit, (d_in, d_out)).astype(np.float32)
    if scheme == "he_normal":
        return (rng.standard_normal((d_in, d_out)) * np.sqrt(2 / d_in)).astype(np.float32)
    raise ValueError(f"Unknown scheme {scheme!r}: use 'glorot_uniform' or 'he_normal'.")


def batch_order(n: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Return which examples go into which batch: (epochs, n // batch_size, batch_size) int64.

    Each epoch is a fresh shuffle of the n examples; what does not fill a batch is left out.
    """
    rng = np.random.default_rng(seed)
    steps = n // batch_size
    order = [rng.permutation(n)[: steps * batch_size] for _ in range(epochs)]
    return np.array(order, dtype=np.int64).reshape(epochs, steps, batch_size)


def dropout_mask(shape: tuple[int, ...], rate: float, seed: int) -> np.ndarray:
    """Return a float32 mask of `shape`: 0 with probability `rate`, else 1 / (1 - rate)."""
    keep = np.random.default_rng(seed).random(shape) >= rate
    return (keep / (1 - rate)).astype(np.float32)


def sketch(array: np.ndarray) -> list[float]:
    """Return 64 random projections of an array, the same directions for every array of its size.

    Each direction is standard normal, so the mean of the squared differences of two sketches
    estimates the squared Euclidean distance of the two arrays, to about 18 % (one standard
    deviation): Johnson and Lindenstrauss (1984). No element can differ by more than that distance.
    """
    rng = np.random.default_rng(64)
    flat = np.asarray(array, np.float64).ravel()
    return [float(rng.standard_normal(flat.size) @ flat) for _ in range(SKETCH_SIZE)]


def record(
    tolerance: float | None = 0.0, elsewhere: float | str | None = "as tolerance", **named: Any
) -> None:
    """Keep named results, and show them as an output that carries them as JSON.

    Parameters
    ----------
    tolerance : how far the tracks may differ in these results (`difference` says how it is
        measured); None where they may differ at will.
    elsewhere : how far a track may differ from its own numbers in git when another processor runs
        it; None where they are not compared; 0 where they are equal on every processor. Without
        it the tolerance counts; where that is None or 0, texts and whole numbers must be equal,
        and fractions are refused, since each processor rounds them in its own way.
    named : numbers, texts, lists of numbers (a curve: kept whole) and arrays (a tensor on the CPU,
        outside of any gradient, counts as one). An array of more than 256 elements is recorded as
        its shape and its `sketch`.

    Raises
    ------
    ValueError if a number is not finite, or if nothing says how far a fraction may move.
    """
    values = {name: _plain(name, value) for name, value in named.items()}
    bound = (tolerance or 0.0) if elsewhere == "as tolerance" else elsewhere
    if elsewhere == "as tolerance" and not tolerance:
        _refuse_fractions(values)
    _recorded.update(values)
    text = "recorded: " + ", ".join(f"{name} {_size(value)}" for name, value in values.items())
    rules = {"tolerance": tolerance, "elsewhere": bound}
    payload = {name: {"value": value} | rules for name, value in values.items()}
    display({MIME: payload, "text/plain": text}, raw=True)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    array = np.asarray(value)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds NaN or infinity: did the training diverge?")
    if array.size > SKETCH_ABOVE and not isinstance(value, list):
        return {"shape": list(array.shape), "sketch": sketch(array)}
    return array.tolist()


def _refuse_fractions(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) or np.asarray(value).dtype.kind == "f":
            raise ValueError(
                f"{name} holds fractions, which another processor rounds in its own way: say how "
                "far they may be from those in git, as in record(..., elsewhere=1e-6); None if "
                "they are not to be compared, 0 if they are equal on every processor."
            )


def _size(value: Any) -> str:
    shape = value["shape"] if isinstance(value, dict) else np.shape(value)
    return f"{tuple(shape)}" if len(shape) else f"= {value}"


def read_records(notebook: NotebookNode) -> dict[str, Any]:
    """Return everything that the cells of an executed notebook recorded: name -> value."""
    return {name: entry["value"] for name, entry in _entries(notebook)}


def read_tolerances(notebook: NotebookNode) -> dict[str, float | None]:
    """Return how far the tracks may differ in each recorded result: name -> tolerance."""
    return {name: entry["tolerance"] for name, entry in _entries(notebook)}


def read_elsewhere(notebook: NotebookNode) -> dict[str, float | None]:
    """Return how far each result may be from the one in git: name -> bound, None for any."""
    return {name: entry["elsewhere"] for name, entry in _entries(notebook)}


def _entries(notebook: NotebookNode) -> list[tuple[str, dict[str, Any]]]:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return [item for o in outputs for item in o.get("data", {}).get(MIME, {}).items()]


def load_recorded(lesson: str) -> dict[str, dict[str, Any]]:
    """Return track -> numbers as `quartet record` last stored them for a lesson folder's name."""
    path = ROOT / "lessons" / lesson / "recorded.json"
    if not path.is_file():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {track: stored[track]["numbers"] for track in TRACKS if track in stored}


def difference(a: Any, b: Any) -> float:
    """Return the largest absolute difference of two recorded values; infinity if of two kinds.

    For two sketches it is the estimated Euclidean distance, which no element's difference exceeds.
    Texts differ by 0 or infinity. NaN never agrees with anything.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        if a["shape"] != b["shape"]:
            return float("inf")
        return float(np.sqrt(np.mean(np.subtract(a["sketch"], b["sketch"]) ** 2)))
    if any(isinstance(value, (str, dict)) for value in (a, b)) or np.shape(a) != np.shape(b):
        return 0.0 if a == b else float("inf")
    worst = float(np.max(np.abs(np.subtract(a, b)), initial=0.0))
    return worst if worst == worst else float("inf")


def disagreements(
    mine: Mapping[str, Any], other: Mapping[str, Any], tolerances: Mapping[str, float | None]
) -> dict[str, float]:
    """Return the recorded results that differ by more than their tolerance: name -> difference.

    A result that only one of the two has differs by infinity; one with the tolerance None may
    differ at will.
    """
    found = {}
    for name, tolerance in tolerances.items():
        both = name in mine and name in other
        gap = difference(mine[name], other[name]) if both else float("inf")
        if tolerance is not None and gap > tolerance:
            found[name] = gap
    return found


def compare(lesson: str, track: str, curve: str = "loss", numbers: Sequence[str] = ()) -> None:
    """Draw this notebook's recorded curve over the other tracks' and show a table of numbers.

    Parameters
    ----------
    lesson : the lesson's folder name; its recorded.json holds the other tracks' numbers.
    track : this notebook's track.
    curve : the recorded name of a sequence of numbers.
    numbers : the recorded names of single numbers, the table's columns.

    Raises
    ------
    KeyError if this notebook has not recorded that curve.
    """
    if curve not in _recorded:
        raise KeyError(f"Nothing recorded as {curve!r} yet: run the cell that records it first.")
    tracks = _with_mine(lesson, track)
    tracks = {name: tracks[name] for name in tracks if curve in tracks[name]}
    draw(tracks, track, curve)
    plt.show()
    display(_table(tracks, track, curve, numbers))


def numbers(lesson: str, track: str, names: Sequence[str]) -> Markdown:
    """Return a table of recorded numbers, a row for each track; one row is this run's own."""
    tracks = _with_mine(lesson, track)
    rows = [[_title(t, track), *(tracks[t].get(name, "") for name in names)] for t in tracks]
    return table(["track", *(name.replace("_", " ") for name in names)], rows)


def _with_mine(lesson: str, mine: str) -> dict[str, dict[str, Any]]:
    """Return track -> numbers in the tracks' order, this run's in place of the stored ones."""
    tracks = load_recorded(lesson) | {mine: dict(_recorded)}
    return {name: tracks[name] for name in TRACKS if name in tracks}


def _title(track: str, mine: str) -> str:
    return TRACKS[track].title + (" (this run)" if track == mine else "")


def draw(tracks: Mapping[str, dict[str, Any]], mine: str, curve: str) -> np.ndarray:
    """Draw every track's curve in one plot, and below it their differences from one of them.

    Parameters
    ----------
    tracks : track -> recorded numbers, as `load_recorded` returns them.
    mine : the track that the others are compared with.
    curve : the recorded name of a sequence of numbers.

    Returns
    -------
    The two axes, upper and lower.
    """
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 5.2), sharex=True, layout="constrained")
    widths = dict(zip(tracks, (5.0, 3.4, 2.0, 0.8), strict=False))
    for name, numbers in tracks.items():
        steps = np.arange(1, len(numbers[curve]) + 1)
        style = {"color": PALETTE[name], "lw": widths[name], "label": TRACKS[name].title}
        axes[0].plot(steps, numbers[curve], **style)
        if name != mine and np.shape(numbers[curve]) == np.shape(tracks[mine][curve]):
            gap = np.abs(np.subtract(numbers[curve], tracks[mine][curve]))
            axes[1].semilogy(steps, np.maximum(gap, 1e-9), **(style | {"lw": 0.8}))
    axes[0].set(title=_finding(tracks, mine, curve), ylabel=curve)
    axes[1].set(xlabel="step", ylabel=f"distance from {TRACKS[mine].title}")
    axes[0].legend()
    _grid(axes)
    return axes


def _grid(axes: np.ndarray) -> None:
    for ax in axes:
        ax.grid(alpha=0.3)


def _finding(tracks: Mapping[str, dict[str, Any]], mine: str, curve: str) -> str:
    others = {name: numbers for name, numbers in tracks.items() if name != mine}
    if not others:
        return f"{curve}: no other track has been recorded yet"
    for name in SETTINGS:
        theirs = {json.dumps(numbers.get(name)) for numbers in others.values()}
        if theirs != {json.dumps(tracks[mine].get(name))}:
            return f"another {name} than the recorded runs had: the curves need not agree"
    worst = max(difference(numbers[curve], tracks[mine][curve]) for numbers in others.values())
    return f"{len(tracks)} frameworks, one {curve} curve: largest difference {worst:.1e}"


def _table(
    tracks: Mapping[str, dict[str, Any]], mine: str, curve: str, names: Sequence[str]
) -> Markdown:
    rows = []
    for track, values in tracks.items():
        shown = [f"{values[name]:.6f}" if name in values else "" for name in names]
        gap = difference(values[curve], tracks[mine][curve])
        rows.append([_title(track, mine), *shown, f"{gap:.1e}"])
    header = ["track", *(name.replace("_", " ") for name in names)]
    return table([*header, f"{curve}: largest difference"], rows)
