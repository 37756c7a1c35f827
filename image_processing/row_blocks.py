"""Bilinear resizing a block of rows at a time, so that nothing of full size has to exist.

A network's logits (C, h, w) are resized to its canvas, cut to the image on it, and resized to the size asked for, as
the official inference does. Each step is linear and separable: a block of rows of the answer needs a few rows of its
input. Weights are computed in float32 as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` does,
so the blocks together equal its answer to float rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_ELEMENTS = 2**22  # elements of a block's largest tensor: 16 MB in float32
ACCELERATOR_BLOCK_ELEMENTS = 2**23  # 32 MB: an accelerator is slowed down by many small operations


def without_autocast(function: Callable) -> Callable:
    """Keeps `function(prediction, ...)` out of autocast, which would round its products: they stand for resizing."""

    @functools.wraps(function)
    def exact(prediction, *args, **kwargs):
        if not torch.is_autocast_enabled(prediction.device.type):
            return function(prediction, *args, **kwargs)  # to leave it again and again takes longer than to look
        with torch.autocast(prediction.device.type, enabled=False):
            return function(prediction, *args, **kwargs)

    return exact


def row_blocks(height: int, elements_per_row: int, elements: int | None = None) -> Sequence[Tensor]:
    """The rows 0 to `height`, int64, in blocks of at most `elements`, or `BLOCK_ELEMENTS` (one row at least)."""
    return torch.arange(height).split(max(1, (elements or BLOCK_ELEMENTS) // max(1, elements_per_row)))


def resized_rows(rows_of: Callable[[Tensor], Tensor], old_height: int, size: tuple[int, int], rows: Tensor) -> Tensor:
    """Rows `rows` (R,) of a picture of `old_height` rows resized to `size` (H, W), as (C, R, W).

    `rows_of(needed)` gives the rows `needed` (R',) of the picture, (C, R', w); R' is at most 2R.
    """
    low, high, weight = resizing_weights(old_height, size[0], rows)
    needed, position = torch.unique(torch.cat([low, high]), return_inverse=True)
    picture = rows_of(needed)  # (C, R', w)
    low, high = position.to(picture.device).chunk(2)
    weight = weight.to(picture.device)[:, None]
    picture = torch.lerp(picture.index_select(1, low), picture.index_select(1, high), weight)  # (C, R, w)
    if picture.shape[-1] == size[1]:
        return picture
    if picture.device.type == "cpu":
        return F.interpolate(picture, size=size[1], mode="linear", align_corners=False)  # (C, R, W)
    # CUDA's own works on one column at a time.
    low, high, weight = (
        w.to(picture.device) for w in resizing_weights(picture.shape[-1], size[1], torch.arange(size[1]))
    )
    return torch.lerp(picture.index_select(2, low), picture.index_select(2, high), weight)  # (C, R, W)


def resizing_weights(old: int, new: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two positions of `old` that each of `points` in 0 to `new` lies between, and the weight of the second."""
    position = ((points.float() + 0.5) * torch.tensor(old / new, dtype=torch.float32) - 0.5).clamp(min=0)
    low = position.long().clamp(max=old - 1)
    return low, (low + 1).clamp(max=old - 1), (position - low).clamp(0, 1)


def composed_weights(points: Tensor, steps: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """What `points` (...) of a line that was resized by each of `steps` (old, new) in turn take from the first line.

    Positions (..., taps), rising, and their weights. Between two steps the line may be cut at its end.
    """
    index, weight = points.unsqueeze(-1), torch.ones(*points.shape, 1, dtype=torch.float32)  # (..., 1)
    for old, new in reversed(steps):
        if old != new:
            low, high, share = resizing_weights(old, new, index)
            index = torch.stack([low, high], dim=-1).flatten(-2)  # (..., 2 x taps)
            weight = torch.stack([weight * (1 - share), weight * share], dim=-1).flatten(-2)  # (..., 2 x taps)
    return index, weight
