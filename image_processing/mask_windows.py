"""Enlarged masks one at a time, each only where it can be inside: most queries mean a small part of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def mask_windows(p: ImagePrediction, queries: Sequence[int], mask_threshold: float) -> Iterator[MaskWindow]:
    """A window for each of `queries` at the output's size; inside is where the probability reaches `mask_threshold`."""
    masks = p.mask_logits[list(queries)].detach()  # (n, h, w)
    lines = zip(masks.shape[1:], p.canvas_size, p.image_size, p.output_size, strict=True)
    down, across = (Resizing.of(*line, masks.device) for line in lines)
    reaches = masks.sigmoid() >= mask_threshold  # (n, h, w); a pixel lies between the values it is a mean of
    rows, columns = down.reached(reaches.any(2)), across.reached(reaches.any(1))
    for mask, row, column in zip(masks, rows, columns, strict=True):
        (from_rows, weights), (from_columns, others) = down.part(row), across.part(column)
        logits = torch.linalg.multi_dot([weights, mask[from_rows, from_columns], others.T])  # (R, C), cheaper way first
        probabilities = logits.sigmoid_()
        inside = probabilities >= mask_threshold
        yield MaskWindow(row, column, inside, inside.sum(), probabilities.mul_(inside).sum())


@dataclass(frozen=True)
class Resizing:
    """What places of a line take from the line it was resized from, `matrix` (output, old): few of them are not 0, but
    a product with small matrices is faster than many steps. Place i takes from `first[i]` to before `end[i]`."""

    matrix: Tensor
    first: Tensor
    end: Tensor

    @classmethod
    def of(cls, old: int, canvas: int, image: int, output: int, device: torch.device) -> Resizing:
        """A line of `old` that is resized to `canvas`, cut to `image` and resized to `output`."""
        index, weights = composed_weights(torch.arange(output), [(old, canvas), (image, output)])  # (output, taps)
        matrix = torch.zeros(output, old, dtype=torch.float32).scatter_add_(1, index, weights)
        return cls(matrix.to(device), index.amin(1), index.amax(1) + 1)

    def part(self, places: slice) -> tuple[slice, Tensor]:
        """Where `places` take from, and what, (places, taken)."""
        if places.start == places.stop:
            return slice(0, 1), self.matrix[places, :1]
        taken = slice(int(self.first[places.start]), int(self.end[places.stop - 1]))
        return taken, self.matrix[places, taken]

    def reached(self, values: Tensor) -> list[slice]:
        """The places that take from true `values` (n, old), from the first to the last; none where none is true."""
        takes = values.float() @ (self.matrix > 0).float().T > 0  # (n, output)
        first = takes.int().argmax(1)  # (n,)
        end = takes.shape[1] - takes.flip(1).int().argmax(1)  # (n,)
        return [slice(*pair) for pair in (torch.stack([first, end], 1) * takes.any(1, keepdim=True)).tolist()]
