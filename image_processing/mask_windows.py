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
    """A mask: `inside` and `probabilities` (R, C) of the answer's `rows` and `columns`. Nothing else is inside it."""

    rows: slice
    columns: slice
    probabilities: Tensor
    inside: Tensor

    def of(self, picture: Tensor) -> Tensor:
        """The window's part of a picture (H, W), a view."""
        return picture[self.rows, self.columns]  # (R, C)


def mask_windows(p: ImagePrediction, queries: Sequence[int], mask_threshold: float) -> Iterator[MaskWindow]:
    """A window for each of `queries` at the output's size; inside is where the probability reaches `mask_threshold`."""
    masks = p.mask_logits[list(queries)].detach()  # (n, h, w)
    lines = zip(masks.shape[1:], p.canvas_size, p.image_size, p.output_size, strict=True)
    down, across = (resizing_matrix(*line).to(masks.device) for line in lines)  # (H, h) and (W, w)
    reaches = masks.sigmoid() >= mask_threshold  # (n, h, w); a pixel lies between the values it is a mean of
    rows, columns = reached(reaches.any(2), down), reached(reaches.any(1), across)
    for mask, (top, bottom), (left, right) in zip(masks, rows, columns, strict=True):
        probabilities = (down[top:bottom] @ mask @ across[left:right].T).sigmoid_()  # (R, C)
        yield MaskWindow(slice(top, bottom), slice(left, right), probabilities, probabilities >= mask_threshold)


def resizing_matrix(old: int, canvas: int, image: int, output: int) -> Tensor:
    """What each of `output` places takes from a line of `old` that is resized to `canvas`, cut to `image` and resized
    to `output`, (output, old): few of them are not 0, but a product with small matrices is faster than many steps."""
    index, weights = composed_weights(torch.arange(output), [(old, canvas), (image, output)])  # (output, taps)
    return torch.zeros(output, old).scatter_add_(1, index, weights)


def reached(values: Tensor, matrix: Tensor) -> list[list[int]]:
    """First and end of the places that take from true `values` (n, old), by a `resizing_matrix` (output, old)."""
    takes = values.float() @ (matrix > 0).float().T > 0  # (n, output)
    first = takes.int().argmax(1)  # (n,)
    end = takes.shape[1] - takes.flip(1).int().argmax(1)  # (n,)
    return (torch.stack([first, end], dim=1) * takes.any(1, keepdim=True)).tolist()  # nothing where none is true
