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
