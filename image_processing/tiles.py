"""The highest sum of scores at every pixel of an answer, found by tiles.

Enlarged masks are smooth: over most tiles of a few pixels one label is ahead of all others wherever the pixel lies. A
pixel is a weighted mean of the logits around it, so the lowest and the highest of these bound it, and with them every
sum of scores of the tile, and the difference of every two. Only tiles that the bounds leave open are computed pixel by
pixel. The answer is that of the whole computation, to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from .tile_grid import TILE, TileGrid

BLOCK_ELEMENTS = 2**19  # elements of a block's largest tensor: 2 MB in float32, which caches hold
COLUMNS = 16  # of which matrix products like to have a multiple
MANY_TILES = 2048  # that are compared with all labels at once


class Tiles:
    """The tiles of an answer in a `grid` over `masks` (N, h, w): their logits, or those of labels.

    `activate` makes scores of logits, and never changes their order.
    """

    def __init__(self, masks: Tensor, grid: TileGrid, activate: Callable):
        self.masks, self.grid, self.activate = masks, grid, activate

    @cached_property
    def logits(self) -> Tensor:
        """Those of the masks, place by place, (h, w, N)."""
        return self.masks.permute(1, 2, 0).contiguous()

    def elements(self, channels: int) -> int:
        """Of the largest tensor that a tile's `scores` and `of_pixels` need, for so many of N or K."""
        samplings = [sampling for sampling in (self.grid.points, self.grid.pixels) if sampling]
        return max(max(s.count * s.window, s.count * channels, s.window * channels) for s in samplings)

    def bounds(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The lowest and highest scores near each tile of the grid's `rows`, (tiles, N) each."""
        low = high = None
        for place in self.grid.points.rows[rows].T:
            line = self.logits.index_select(0, place)  # (R, w, N)
            low, high = (line, line) if low is None else (torch.minimum(low, line), torch.maximum(high, line))
        # One pass over both: what is highest is lowest with the other sign.
        both = torch.cat([low, -high], dim=2).flatten(0, 1)  # (R x w, 2N)
        first = torch.arange(len(low), device=both.device)[:, None] * low.shape[1]  # (R, 1)
        low, high = reduce(
            torch.minimum, (both.index_select(0, (first + place).flatten()) for place in self.grid.points.columns.T)
        ).chunk(2, dim=1)
        return self.activate(low), self.activate(-high)

    def scores(self, row: Tensor, column: Tensor) -> Tensor:
        """The scores (U, P, N) at the points of the tiles in `row` and `column` (U,) of the grid."""
        places = self.grid.points.window_places(row, column, self.masks.shape[2])  # (U, window)
        near = self.logits.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)  # (U, window, N)
        found = self.grid.points.weights(row, column).mT @ near  # (U, P, N)
        return self.activate(found, out=found)

    def scores_by_mask(self, row: Tensor, column: Tensor) -> Tensor:
        """The same, (U, N, P): to look for the highest along a dimension that is not the last is many times as fast."""
        places = self.grid.points.window_places(row, column, self.masks.shape[2])  # (U, window)
        near = self.masks.flatten(1).gather(1, places.flatten().expand(len(self.masks), -1))  # (N, U x window)
        near = near.unflatten(1, places.shape).transpose(0, 1)  # (U, N, window)
        found = near @ self.grid.points.weights(row, column)  # (U, N, P)
        return self.activate(found, out=found)

    def of_pixels(self, scores: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The scores (U, TILE x TILE, K) of the pixels of tiles, of those at their points (U, P, K)."""
        return scores if self.grid.pixels is None else self.grid.pixels.weights(row, column).mT @ scores


@dataclass(frozen=True)
class Winners:
    """Where every pixel of an answer has its highest score: the same place all over a tile, or for each of its pixels.

    `leader` (t, t') is that of whole tiles; those of `row` and `column` (U,) have `winner` (U, TILE x TILE) instead.
    """

    grid: TileGrid
    leader: Tensor
    row: Tensor
    column: Tensor
    winner: Tensor

    def answer(self, table: Tensor | None = None) -> Tensor:
        """(H, W), as int64 positions, or what `table` (K,) has for them."""
        leader, winner = (self.leader, self.winner) if table is None else (table[self.leader], table[self.winner])
        answer = leader[:, None, :, None].repeat(1, TILE, 1, TILE)  # (t, TILE, t', TILE)
        answer[self.row, :, self.column, :] = winner.view(-1, TILE, TILE)
        height, width = self.grid.size
        return answer.view(len(leader) * TILE, -1)[:height, :width].contiguous()  # (H, W)


def highest_sums(tiles: Tiles, weights: Tensor) -> Winners:
    """The position of the highest sum of scores (..., N) times `weights` (N, K), none negative, of every pixel."""
    leader, is_open, rivals = by_bounds(tiles, weights)
    row, column = torch.nonzero(is_open, as_tuple=True)  # (U,)
    winners = [row.new_empty(0, TILE * TILE)]
    for chunk in blocks(len(row), tiles.elements(max(weights.shape))):
        place = row[chunk], column[chunk]
        # What is highest in none of these tiles needs no sums.
        contend = torch.nonzero(rivals[chunk].any(0)).flatten()  # (K',)
        contend = torch.cat([contend, contend[-1:].expand(-len(contend) % COLUMNS)])  # the last again and again
        sums = tiles.of_pixels(tiles.scores(*place) @ weights[:, contend], *place)  # (U, TILE x TILE, K')
        winners.append(contend[sums.argmax(-1)])
    return Winners(tiles.grid, leader, row, column, torch.cat(winners))


def by_bounds(tiles: Tiles, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What bounds say: the leader of each tile and whether the tile is open, both of the grid's shape; and what may be
    highest in each open tile, (U, K)."""
    leaders, is_open, contend, left = [], [], [], []
    down, across = tiles.grid.shape
    # Low and high together, and several of them.
    for rows in blocks(down, 2 * across * max(weights.shape)):
        low, high = tiles.bounds(rows)  # (tiles, N)
        bound = high @ weights  # (tiles, K)
        leader = bound.argmax(-1)  # (tiles,)
        least = (low * weights.T[leader]).sum(1)  # (tiles,): what the leader's sum is at least
        undecided = (bound >= least[:, None]).sum(1) > 1
        left.append((low[undecided], high[undecided], leader[undecided]))
        leaders.append(leader.view(-1, across))
        is_open.append(undecided.view(-1, across))
        if sum(len(tiles_left[0]) for tiles_left in left) >= MANY_TILES or rows.stop >= down:
            contend.append(contenders(*map(torch.cat, zip(*left, strict=True)), weights))
            left = []
    is_open, contend = torch.cat(is_open), torch.cat(contend)
    undecided = contend.sum(1) > 1
    return torch.cat(leaders), is_open.masked_scatter(is_open, undecided), contend[undecided]


def contenders(low: Tensor, high: Tensor, leader: Tensor, weights: Tensor) -> Tensor:
    """Which labels may be ahead of the `leader` (T,) somewhere in its tile, with it, bool (T, K).

    Scores are between `low` and `high` (T, N). Two labels share most of what these leave uncertain, so their difference
    reaches less far than each of them.
    """
    radius = (high - low) / 2
    sums = (low + radius) @ weights  # (T, K): in the middle
    contend = torch.zeros_like(sums, dtype=torch.bool)
    for label in leader.unique().tolist():
        tiles = torch.nonzero(leader == label).flatten()
        reach = radius[tiles] @ (weights - weights[:, label, None]).abs()  # (T', K), of the difference
        own = sums[tiles]
        contend[tiles] = own + reach >= own[:, label, None]
    return contend


def blocks(length: int, elements: int, at_once: int | None = None) -> list[slice]:
    """0 to `length` in slices, whose parts of `elements` each have no more than `at_once`, by default `BLOCK_ELEMENTS`
    (one part at least)."""
    step = max(1, (at_once or BLOCK_ELEMENTS) // max(1, elements))
    return [slice(first, first + step) for first in range(0, length, step)]
