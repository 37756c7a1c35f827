"""The highest score at every pixel of an answer, found by tiles.

Enlarged masks are smooth: over most tiles of a few pixels one label, or one query, is ahead of all others wherever the
pixel lies. A pixel is a weighted mean of the logits around it, so the lowest and the highest of these bound it, and
with them every score of the tile. Only tiles that the bounds leave open are computed pixel by pixel. The answer is that
of the whole computation, to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_blocks import composed_weights

TILE = 6  # pixels of a tile's side
BLOCK_ELEMENTS = 2**19  # elements of a block's largest tensor: 2 MB in float32, which caches hold
COLUMNS = 16  # of which matrix products like to have a multiple


@dataclass(frozen=True)
class TileAxis:
    """One axis of a grid of t tiles: what P points of every tile take from a line of values.

    Point p of tile i is the sum over j of `weights[i, p, j]` x line[`index[i, j]`]; they are (t, P, w) and (t, w).
    """

    index: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> TileAxis:
        return TileAxis(self.index.to(device), self.weights.to(device))


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


@lru_cache(maxsize=32)  # two for every size of images, which often come in rows
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


class Tiles:
    """The tiles of an answer of `size` (H, W), over the `logits` (h, w, N) of masks or of labels.

    `rows` and `columns` are `tile_axes`. `activate` makes scores of logits, and never changes their order.
    """

    def __init__(self, logits: Tensor, rows: tuple, columns: tuple, size: tuple[int, int], activate: Callable):
        self.logits, self.size, self.activate = logits, size, activate
        self.points, *self.pixels = (
            (down.to(logits.device), across.to(logits.device)) for down, across in zip(rows, columns, strict=True)
        )
        self.weights = [spread(*axes) for axes in (self.points, *self.pixels)]
        self.shape = tuple(len(axis.index) for axis in self.points)  # rows and columns of tiles

    def elements(self, channels: int) -> int:
        """Of the largest tensor that a tile's `scores` and `of_pixels` need, for so many of N or K."""
        found = 0
        for down, across in (self.points, *self.pixels):
            points, window = (down.weights.shape[axis] * across.weights.shape[axis] for axis in (1, 2))
            found = max(found, points * window, points * channels, window * channels)
        return found

    def bounds(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The lowest and highest scores near each tile of the grid's `rows`, (tiles, N) each."""
        (down, across), low, high = self.points, None, None
        for place in down.index[rows].T:
            line = self.logits.index_select(0, place)  # (R, w, N)
            low, high = (line, line) if low is None else (torch.minimum(low, line), torch.maximum(high, line))
        # One pass over both: what is highest is lowest with the other sign.
        both = torch.cat([low, -high], dim=2).flatten(0, 1)  # (R x w, 2N)
        first = torch.arange(len(low), device=both.device)[:, None] * low.shape[1]  # (R, 1)
        low, high = reduce(
            torch.minimum, (both.index_select(0, (first + place).flatten()) for place in across.index.T)
        ).chunk(2, dim=1)
        return self.activate(low), self.activate(-high)

    def scores(self, row: Tensor, column: Tensor) -> Tensor:
        """The scores (U, P, N) at the points of the tiles in `row` and `column` (U,) of the grid."""
        down, across = self.points
        near = down.index[row][:, :, None] * self.logits.shape[1] + across.index[column][:, None]  # (U, w, w')
        near = self.logits.flatten(0, 1)[near.flatten(1)]  # (U, w x w', N)
        found = self.window_weights(0, row, column) @ near  # (U, P, N)
        return self.activate(found, out=found)

    def window_weights(self, step: int, row: Tensor, column: Tensor) -> Tensor:
        """What the points (`step` 0) or pixels (1) of tiles in `row` and `column` (U,) take from what lies around them,
        (U, points, window)."""
        down, across = self.weights[step]
        weights = down.index_select(0, row).mul_(across.index_select(0, column))  # (U, P, P', w, w')
        return weights.flatten(3).flatten(1, 2)  # (U, P x P', w x w')

    def of_pixels(self, scores: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The scores (U, TILE x TILE, K) of the pixels of tiles, of those at their points (U, P, K)."""
        return self.window_weights(1, row, column) @ scores if self.pixels else scores

    def inside(self, axis: int) -> Tensor:
        """Which pixels of every tile along `axis` lie in the answer, bool (t, TILE)."""
        pixels = torch.arange(self.shape[axis] * TILE, device=self.logits.device) < self.size[axis]
        return pixels.view(-1, TILE)

    def pixels_inside(self, row: Tensor, column: Tensor) -> Tensor:
        """Which pixels of the tiles in `row` and `column` (U,) lie in the answer, bool (U, TILE x TILE)."""
        return (self.inside(0)[row][:, :, None] & self.inside(1)[column][:, None]).flatten(1)


def spread(rows: TileAxis, columns: TileAxis) -> tuple[Tensor, Tensor]:
    """The weights of both axes, each where their products will be, (t, P, P', w, w') and (t', P, P', w, w'): factors of
    one shape are multiplied many times as fast as such small ones of two."""
    down, across = rows.weights[:, :, None, :, None], columns.weights[:, None, :, None, :]
    shape = torch.broadcast_shapes(down.shape[1:], across.shape[1:])
    return down.expand(-1, *shape).contiguous(), across.expand(-1, *shape).contiguous()


@dataclass(frozen=True)
class Winners:
    """Where every pixel of an answer has its highest score: the same place all over a tile, or for each of its pixels.

    `leader` (t, t') is that of whole tiles; those of `row` and `column` (U,) have `winner` (U, TILE x TILE) instead.
    `claimed` (N,) are the pixels where each score reaches a threshold, if there is one.
    """

    tiles: Tiles
    leader: Tensor
    row: Tensor
    column: Tensor
    winner: Tensor
    claimed: Tensor | None

    def answer(self, table: Tensor | None = None) -> Tensor:
        """(H, W), as int64 positions, or what `table` (K,) has for them."""
        leader, winner = (self.leader, self.winner) if table is None else (table[self.leader], table[self.winner])
        answer = leader[:, None, :, None].repeat(1, TILE, 1, TILE)  # (t, TILE, t', TILE)
        answer[self.row, :, self.column, :] = winner.view(-1, TILE, TILE)
        height, width = self.tiles.size
        return answer.view(len(leader) * TILE, -1)[:height, :width].contiguous()  # (H, W)

    def won(self, length: int) -> Tensor:
        """How many pixels each of `length` places has, int64 (length,)."""
        rows, columns = (self.tiles.inside(axis).long().sum(1) for axis in (0, 1))
        pixels = torch.outer(rows, columns)  # of every tile
        pixels[self.row, self.column] = 0
        whole = pixels.new_zeros(length).index_add_(0, self.leader.flatten(), pixels.flatten())
        return whole + torch.bincount(self.winner[self.tiles.pixels_inside(self.row, self.column)], minlength=length)


def highest_scores(tiles: Tiles, weights: Tensor, mask_threshold: float | None = None) -> Winners:
    """The position of the highest weighted score of every pixel, and how many pixels queries claim.

    Scores (..., N) are weighted one by one, by `weights` (N,), or summed up to K, by (N, K); no weight is negative.
    `mask_threshold` asks for the number of pixels where each score is at least that; it needs weights one by one, and
    points that are pixels.
    """
    leader, is_open, rivals, claimed = by_bounds(tiles, weights, mask_threshold)
    row, column = torch.nonzero(is_open, as_tuple=True)  # (U,)
    winners = [row.new_empty(0, TILE * TILE)]
    for chunk in blocks(len(row), tiles.elements(max(weights.shape))):
        place = row[chunk], column[chunk]
        scores = tiles.scores(*place)  # (U, P, N)
        if weights.dim() == 2:  # what is highest in none of these tiles needs no sums
            contend = torch.nonzero(rivals[chunk].any(0)).flatten()  # (K',)
            contend = torch.cat([contend, contend[-1:].expand(-len(contend) % COLUMNS)])  # the last again and again
            sums = tiles.of_pixels(scores @ weights[:, contend], *place)  # (U, TILE x TILE, K')
            winners.append(contend[sums.argmax(-1)])
            continue
        winners.append(tiles.of_pixels(scores * weights, *place).argmax(-1))  # (U, TILE x TILE)
        if mask_threshold is not None:
            inside = tiles.pixels_inside(*place).flatten().float()  # so few that float32 counts them
            claimed = claimed + (inside @ (scores >= mask_threshold).flatten(0, 1).float()).long()  # (N,)
    return Winners(tiles, leader, row, column, torch.cat(winners), claimed)


def by_bounds(
    tiles: Tiles, weights: Tensor, mask_threshold: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What bounds say: the leader of each tile and whether the tile is open, both of the grid's shape; what may be
    highest in each open tile, (U, K); and what the other tiles add to the claims of `highest_scores`.
    """
    pixels = torch.outer(*(tiles.inside(axis).sum(1) for axis in (0, 1)))  # of every tile
    leaders, is_open, rivals, claimed = [], [], [], None if mask_threshold is None else 0
    # Low and high together, and several of them.
    for rows in blocks(tiles.shape[0], 2 * tiles.shape[1] * max(weights.shape)):
        low, high = tiles.bounds(rows)  # (tiles, N)
        bound = weighted(high, weights)  # (tiles, K)
        leader = bound.argmax(-1)  # (tiles,)
        least = of_one(low, weights, leader)  # (tiles,): what the leader's score is at least
        contend = bound >= least[:, None]  # (tiles, K), with the leader
        undecided = contend.sum(1) > 1
        if mask_threshold is not None:
            claims = low >= mask_threshold  # (tiles, N)
            undecided |= ((high >= mask_threshold) != claims).any(1)
            claimed = claimed + count(pixels[rows].flatten() * ~undecided, claims)  # (N,)
        rivals.append(contend[undecided])
        leaders.append(leader.view(-1, tiles.shape[1]))
        is_open.append(undecided.view(-1, tiles.shape[1]))
    return torch.cat(leaders), torch.cat(is_open), torch.cat(rivals), claimed


def weighted(scores: Tensor, weights: Tensor) -> Tensor:
    """`scores` (..., N) times `weights` (N,), or summed up by `weights` (N, K)."""
    return scores * weights if weights.dim() == 1 else scores @ weights


def of_one(scores: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """The weighted scores of (M, N) at one `index` (M,) each, (M,)."""
    if weights.dim() == 1:
        return scores.gather(1, index[:, None])[:, 0] * weights[index]
    return (scores * weights.T[index]).sum(1)


def count(pixels: Tensor, claims: Tensor) -> Tensor:
    """The sum of `pixels` (M,) where `claims` (M, N) are true, int64 (N,)."""
    return (pixels.double() @ claims.double()).long()


def blocks(length: int, elements: int) -> list[slice]:
    """0 to `length` in slices, whose parts of `elements` each stay within a block (one part at least)."""
    step = max(1, BLOCK_ELEMENTS // max(1, elements))
    return [slice(first, first + step) for first in range(0, length, step)]
