"""Enlarged masks one at a time, each only where it can be inside: most queries mean a small part of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .dominance import at_least
from .image_prediction import ImagePrediction
from .row_blocks import composed_weights


@dataclass(frozen=True)
class MaskWindow:
    """A mask: `inside`, bool (R, C), of the answer's `rows` and `columns`; nothing else is inside it.

    `area` is the number of its pixels and `total` the sum of their probabilities, both ().
    """

    rows: slice
    columns: slice
    inside: Tensor
    area: Tensor
    total: Tensor

    def of(self, picture: Tensor) -> Tensor:
        """The window's part of a picture (H, W), a view."""
        return picture[self.rows, self.columns]  # (R, C)


def mask_windows(p: ImagePrediction, queries: Tensor, mask_threshold: float) -> Iterator[MaskWindow]:
    """A window for each of `queries` (n,) at the output's size; inside is where the probability reaches
    `mask_threshold`."""
    masks = [p.mask_logits[query].detach() for query in queries.tolist()]  # (h, w) each, as they lie
    if not masks:
        return
    lines = zip(masks[0].shape, p.canvas_size, p.image_size, p.output_size, strict=True)
    down, across = (resizing(*line, p.device) for line in lines)
    # A pixel lies between the values it is a mean of.
    maxima = (torch.stack([mask.amax(axis) for mask in masks]) for axis in (1, 0))  # (n, h), (n, w)
    reaches = [values.sigmoid() >= mask_threshold for values in maxima]
    for mask, row, column in zip(masks, down.reached(reaches[0]), across.reached(reaches[1]), strict=True):
        (from_rows, weights), (from_columns, others) = down.part(row), across.part(column)
        logits = torch.linalg.multi_dot([weights, mask[from_rows, from_columns], others.T])  # (R, C), cheaper way first
        probabilities = logits.sigmoid_()
        inside = at_least(probabilities, mask_threshold)
        total = probabilities.mul_(inside).sum()
        inside = inside.bool()
        yield MaskWindow(row, column, inside, inside.count_nonzero(), total)


@dataclass(frozen=True)
class Resizing:
    """What places of a line take from the line it was resized from, `matrix` (output, old): few of them are not 0, but
    a product with small matrices is faster than many steps. Place i takes from `first[i]` to before `end[i]`."""

    matrix: Tensor
    first: list[int]
    end: list[int]

    def part(self, places: slice) -> tuple[slice, Tensor]:
        """Where `places` take from, and what, (places, taken)."""
        if places.start == places.stop:
            return slice(0, 1), self.matrix[places, :1]
        taken = slice(self.first[places.start], self.end[places.stop - 1])
        return taken, self.matrix[places, taken]

    def reached(self, values: Tensor) -> list[slice]:
        """The places that take from true `values` (n, old), from the first to the last; none where none is true."""
        takes = values.float() @ self.matrix.T > 0  # (n, output), as no weight is negative
        first = takes.int().argmax(1)  # (n,)
        end = takes.shape[1] - takes.flip(1).int().argmax(1)  # (n,)
        return [slice(*pair) for pair in (torch.stack([first, end], 1) * takes.any(1, keepdim=True)).tolist()]


@lru_cache(maxsize=8)  # images of one size often come in rows
def resizing(old: int, canvas: int, image: int, output: int, device: torch.device) -> Resizing:
    """Of a line of `old` that is resized to `canvas`, cut to `image` and resized to `output`."""
    index, weights = composed_weights(torch.arange(output), [(old, canvas), (image, output)])  # (output, taps)
    matrix = torch.zeros(output, old, dtype=torch.float32).scatter_add_(1, index, weights)
    return Resizing(matrix.to(device), index.amin(1).tolist(), (index.amax(1) + 1).tolist())
