"""The plots that every lesson draws alike: learning curves, image grids and a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from utils.tracks import TRACKS

PALETTE = {name: track.color for name, track in TRACKS.items()}


def learning_curves(
    curves: Mapping[str, Sequence[float]], title: str, xlabel: str = "step", ylabel: str = "loss"
) -> Axes:
    """Draw one line for each named sequence of numbers; a track's name brings its color.

    Parameters
    ----------
    curves : name -> values, one value a step (or an epoch: say so in `xlabel`).
    title : what the plot shows, said as a finding.
    """
    _, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, values in curves.items():
        ax.plot(np.arange(1, len(values) + 1), values, label=name, color=PALETTE.get(name), lw=1.2)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    if len(curves) > 1:
        ax.legend()
    return ax


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 6) -> np.ndarray:
    """Draw gray or color images in rows, each under its title.

    Parameters
    ----------
    images : (n, height, width) or (n, height, width, 3); dark is high.
    titles : n short texts.

    Returns
    -------
    The array of axes, (rows, columns).
    """
    rows = -(-len(images) // columns)
    size = (1.35 * columns, 1.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, cmap="gray_r")
        ax.set_title(title, fontsize=8)
    return axes


def confusion_counts(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the (classes, classes) int matrix of true class (row) by predicted class."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str
) -> Axes:
    """Draw how often each true class (row) was taken for each class (column).

    Parameters
    ----------
    truth, predicted : (n,) integer labels from 0 to len(classes) - 1.
    """
    counts = confusion_counts(truth, predicted, len(classes))
    _, ax = plt.subplots(figsize=(6.2, 5.4), layout="constrained")
    ax.imshow(counts, cmap="Blues")
    dark = counts > counts.max() / 2
    for row, column in np.argwhere(counts):
        color = "white" if dark[row, column] else "black"
        ax.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(title=title, xlabel="predicted class", ylabel="true class")
    return ax


def graph(nodes: Mapping[str, str], edges: Sequence[tuple[str, str]], title: str) -> Axes:
    """Draw a directed graph without cycles from left to right.

    Parameters
    ----------
    nodes : name -> the text in its box; a node with no edge into it stands just before its use.
    edges : pairs of names, from and to.
    """
    at = _places(nodes, edges)
    columns = 1 + max(column for column, _ in at.values())
    _, ax = plt.subplots(figsize=(1 + 0.85 * columns, 2), layout="constrained")
    for a, b in edges:
        span = at[b][0] - at[a][0]
        bend = -1 / span if span > 1 else 0  # an edge that passes nodes goes around them
        style = {"arrowstyle": "->", "connectionstyle": f"arc3,rad={bend}", "color": "0.3"}
        ax.annotate("", at[b], at[a], arrowprops=style | {"shrinkA": 17, "shrinkB": 24})
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.3"}
    for name, text in nodes.items():
        ax.text(*at[name], text, ha="center", va="center", fontsize=7, bbox=box)
    ax.set(title=title, xlim=(-0.6, columns - 0.4), ylim=(-1.3, 0.8))
    ax.axis("off")
    return ax


def _places(
    nodes: Mapping[str, str], edges: Sequence[tuple[str, str]]
) -> dict[str, tuple[int, float]]:
    """Return name -> column and height: the longest path into a node is its column."""
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:  # often enough for every path
        for a, b in edges:
            column[b] = max(column[b], column[a] + 1)
    sources = nodes.keys() - {b for _, b in edges}
    for name in sources:
        column[name] = min((column[b] for a, b in edges if a == name), default=1) - 1
    order = sorted(nodes, key=sources.__contains__)  # sources stand below
    ranks = {c: [n for n in order if column[n] == c] for c in column.values()}
    return {n: (c, -0.9 * i) for c, row in ranks.items() for i, n in enumerate(row)}
