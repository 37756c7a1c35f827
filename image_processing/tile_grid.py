"""The grid of tiles that an answer is computed by, and what its pixels take from masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_blocks import composed_weights

TILE = 6  # pixels of a tile's side


@dataclass(frozen=True)
class TileAxis:
    """One axis of a grid of t tiles: what P points of every tile take from a line of values.

    Point p of tile i is the sum over j of `weights[i, p, j]` x line[`index[i, j]`]; they are (t, P, w) and (t, w).
    """

    index: Tensor
    weights: Tensor


class Sampling:
    """What the points of every tile take from the places around it, by the axes `rows` and `columns`."""

    def __init__(self, rows: TileAxis, columns: TileAxis, device: torch.device):
        self.rows, self.columns = rows.index.to(device), columns.index.to(device)  # (t, w), (t', w')
        self.count, self.window = (rows.weights.shape[i] * columns.weights.shape[i] for i in (1, 2))  # of each tile
        # Spread to where their products will be: factors of one shape are multiplied many times as fast as such small
        # ones of two.
        # (t, w, 1, P, 1) and (t', 1, w', 1, P') to (t, w, w', P, P') and (t', w, w', P, P').
        down, across = rows.weights.mT[:, :, None, :, None], columns.weights.mT[:, None, :, None, :]
        shape = torch.broadcast_shapes(down.shape[1:], across.shape[1:])  # (w, w', P, P')
        self.down, self.across = (factor.expand(-1, *shape).contiguous().to(device) for factor in (down, across))

    def weights(self, row: Tensor, column: Tensor) -> Tensor:
        """Those of the tiles in `row` and `column` (U,) of the grid, (U, window, points)."""
        weights = self.down.index_select(0, row).mul_(self.across.index_select(0, column))  # (U, w, w', P, P')
        return weights.flatten(3).flatten(1, 2)  # (U, w x w', P x P')

    def window_places(self, row: Tensor, column: Tensor, width: int) -> Tensor:
        """The places (U, window) around these tiles, counted through rows of `width`."""
        down, across = self.rows.index_select(0, row), self.columns.index_select(0, column)
        return (down[:, :, None] * width + across[:, None]).flatten(1)  # (U, w x w')


class TileGrid:
    """The tiles of an answer, whose `lines`, rows and columns, are (old, canvas, image, output) lengths each.

    `points` samples the masks where they become probabilities, and `pixels`, if these are not the pixels themselves,
    samples what the points have.
    """

    def __init__(self, lines: Sequence[tuple[int, int, int, int]], activate_on_canvas: bool, device: torch.device):
        rows, columns = (tile_axes(*line, activate_on_canvas) for line in lines)
        self.points, *pixels = (Sampling(*axes, device) for axes in zip(rows, columns, strict=True))
        self.pixels = pixels[0] if pixels else None
        self.size = tuple(line[-1] for line in lines)  # (H, W)
        self.shape = tuple(-(-edge // TILE) for edge in self.size)  # rows and columns of tiles
        # Which pixels of every tile lie in the answer, zeros and ones, (t, TILE) and (t', TILE).
        self.inside = [
            (torch.arange(tiles * TILE, device=device) < edge).float().view(tiles, TILE)
            for tiles, edge in zip(self.shape, self.size, strict=True)
        ]
        self.areas = torch.outer(*(inside.double().sum(1) for inside in self.inside))  # pixels of every tile, (t, t')

    def pixels_inside(self, row: Tensor, column: Tensor) -> Tensor:
        """Which pixels of the tiles in `row` and `column` (U,) lie in the answer, zeros and ones (U, TILE x TILE)."""
        down, across = (inside.index_select(0, place) for inside, place in zip(self.inside, (row, column), strict=True))
        return (down[:, :, None] * across[:, None]).flatten(1)


@lru_cache(maxsize=16)  # images of one size often come in rows
def tile_grid(lines: tuple[tuple[int, int, int, int], ...], activate_on_canvas: bool, device: torch.device) -> TileGrid:
    """The `TileGrid`, which is not to be changed."""
    return TileGrid(lines, activate_on_canvas, device)


@lru_cache(maxsize=32)
def tile_axes(old: int, canvas: int, image: int, output: int, activate_on_canvas: bool) -> tuple[TileAxis, ...]:
    """The axis of the points where masks become probabilities, and, if these are not the pixels, that of the pixels.

    A line of `old` values is resized to `canvas`, cut to `image` and resized to `output`.
    """
    tiles = -(-output // TILE)
    pixels = torch.arange(tiles * TILE).clamp(max=output - 1).view(tiles, TILE)  # the last repeats beyond the end
    if not activate_on_canvas:
        return (tile_axis(pixels, [(old, canvas), (image, output)]),)
    of_pixels = tile_axis(pixels, [(image, output)])
    return tile_axis(of_pixels.index, [(old, canvas)]), of_pixels


def tile_axis(points: Tensor, steps: Sequence[tuple[int, int]]) -> TileAxis:
    """The axis whose tiles have `points` (t, P) of a line that was resized by each of `steps` (old, new) in turn."""
    index, weight = composed_weights(points, steps)  # (t, P, taps)
    tiles, count = points.shape
    taps, order = index.flatten(1).sort(dim=1)  # (t, P x taps)
    rank = F.pad((taps.diff(dim=1) > 0).long(), (1, 0)).cumsum(1)  # of every tap among the tile's distinct ones
    position = torch.empty_like(rank).scatter_(1, order, rank).view_as(index)  # (t, P, taps)
    width = int(rank.max()) + 1
    distinct = taps[:, :1].repeat(1, width).scatter_(1, rank, taps)  # (t, w), filled up with the first
    weights = torch.zeros(tiles, count, width, dtype=torch.float32).scatter_add_(2, position, weight)  # (t, P, w)
    return TileAxis(distinct, weights)
