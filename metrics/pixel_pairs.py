"""Which values two maps hold at the same pixels, and how often: what all metrics of label maps are counted from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SAMPLED_ROWS = 16  # one row in so many tells how busy a map is
BUSY = 0.1  # runs a pixel, above which counting cells is faster than finding runs
MOST_CELLS = 2**20  # pairs of values that are counted in a table


def check_paired(predictions: Sequence[Any] | None, references: Sequence[Any] | None) -> None:
    """Raises `ValueError` unless there are as many predictions as references."""
    if predictions is None or references is None or len(predictions) != len(references):
        given = ["no" if side is None else len(side) for side in (predictions, references)]
        raise ValueError(f"{given[0]} predictions for {given[1]} references; there must be one for each")


def integer_map(labels: Any, what: str) -> np.ndarray:
    """An integer map (H, W) of numpy, from an array or a tensor on any device; `what` names it in errors.

    Raises `ValueError` for another number of dimensions, `TypeError` for anything but integers.
    """
    array = np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)
    if array.ndim != 2:
        raise ValueError(f"{what} has shape {array.shape}; it must be (height, width)")
    if array.dtype.kind not in "biu":
        raise TypeError(f"{what} holds {array.dtype}; it must hold integers")
    return array


def pixel_pairs(predicted: np.ndarray, true: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of values that the integer maps (H, W) hold at a pixel: predicted, true, and number of pixels.

    All three are int64 (n,); a pair may come several times. Raises `ValueError`, naming `what` (the prediction), if
    the sizes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"{what} has size {predicted.shape} and its reference {true.shape} (height, width); resize the prediction "
            "to the size of the reference"
        )
    sampled = [side[::SAMPLED_ROWS] for side in (predicted, true)]
    if _count_borders(*sampled) > BUSY * sampled[0].size:
        cells = (int(predicted.max()) + 1) * (int(true.max()) + 1)
        if cells <= MOST_CELLS and min(predicted.min(), true.min()) >= 0:
            return _counted_cells(predicted, true)
    return _runs(predicted.reshape(-1), true.reshape(-1))  # (H * W,) each


def _count_borders(first: np.ndarray, second: np.ndarray) -> int:
    """How many pixels of two maps (h, W) differ from their left neighbour."""
    return np.count_nonzero((first[:, 1:] != first[:, :-1]) | (second[:, 1:] != second[:, :-1]))


def _counted_cells(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`pixel_pairs` by one count over all pixels, for maps of small values that change everywhere, such as noise."""
    columns = int(predicted.max()) + 1
    cells = np.multiply(true, columns, dtype=np.int64, casting="unsafe")  # values are small: uint64 fits too
    np.add(cells, predicted, out=cells, casting="unsafe")
    counts = np.bincount(cells.reshape(-1))  # (H * W,) in
    cells = np.flatnonzero(counts)
    rows, columns = np.divmod(cells, columns)
    return columns, rows, counts[cells]


def _runs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`pixel_pairs` of flat maps (P,) by the runs of pixels along which both are constant.

    Label maps have few runs, some per cent of their pixels, so that whatever follows costs next to nothing.
    """
    borders = np.ones(first.size + 1, bool)
    np.not_equal(first[1:], first[:-1], out=borders[1:-1])
    borders[1:-1] |= second[1:] != second[:-1]
    borders = np.flatnonzero(borders)  # (runs + 1,)
    starts = borders[:-1]
    return first[starts].astype(np.int64), second[starts].astype(np.int64), np.diff(borders)
