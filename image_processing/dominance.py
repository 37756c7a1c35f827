"""Whose score is the highest at every pixel of an answer, where each mask has a score of its own.

A pixel's logits are means of those around it, with weights that all masks share, and scores are p x sigmoid(logit).
That q is ahead of r or equal, p_q sigmoid(m_q) >= p_r sigmoid(m_r), reads m_q >= g(m_r) with
g(m) = logit(p_r / p_q x sigmoid(m)). If p_q <= p_r, g is convex: what holds at all places around a pixel holds for
their means. If p_q > p_r, g lies below m_r + log(p_r / p_q), so that m_q + log p_q >= m_r + log p_r is enough, which
carries over to means as well. So a mask that is first by score and by logit + log p at all places around a tile is
first all over it, and so is one whose logits are highest, where these are the scores. The other tiles are computed
pixel by pixel. The answer is that of the whole computation, to float rounding.

Where one mask alone claims a place, its logit is the highest there, and so is its logit + log p beside all of smaller
p. Segments overlap little: if this leaves few tiles open, scores and claims tell enough.

Whose turn it is at a place is noted in bits of whole numbers, which float32 has exactly up to 24: what holds at all
places around a tile is then one "and", whatever the number of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from torch import Tensor

from .row_blocks import BLOCK_ELEMENTS
from .tile_grid import TILE, Sampling
from .tiles import Tiles, Winners, blocks

BITS = 24
EXPONENT = 0x7F800000  # the bits of a float32 that say between which powers of two it lies
OPEN_ELEMENTS = 2**20  # of tiles that are computed at once, 4 MB in float32
FEW = 1 / 4  # of the tiles, which are sooner computed pixel by pixel than told by more comparisons


@dataclass(frozen=True)
class Shares:
    """How many pixels each mask has, `won`, and `claimed`, where there is a threshold; int64 (N,)."""

    won: Tensor
    claimed: Tensor | None


def highest_masks(
    tiles: Tiles, weights: Tensor | None = None, mask_threshold: float | None = None
) -> tuple[Winners, Shares]:
    """The mask with the highest score of every pixel, and the shares of all masks.

    A score is the logit itself, or its sigmoid times one of `weights` (N,), none negative. A pixel is claimed where the
    sigmoid is at least `mask_threshold`.
    """
    grid, masks = tiles.grid, len(tiles.masks)
    ahead, claims = near_tiles(tiles.masks, weights, mask_threshold, grid.points)  # (words, t, t')
    is_open = (ahead == 0).all(0)  # (t, t')
    leader = first(ahead).masked_fill_(is_open, 0)  # (t, t')
    areas = (grid.areas * ~is_open).flatten()
    won = areas.new_zeros(masks).index_add_(0, leader.flatten(), areas)  # (N,), float64
    claimed = won.clone() if claims is None else counted(claims.flatten(1), masks, areas)  # (N,)
    row, column = torch.nonzero(is_open, as_tuple=True)  # (U,)
    winners = [row.new_empty(0, TILE * TILE)]
    falling = torch.arange(masks, 0, -1, dtype=torch.float32, device=row.device)[:, None]  # the first counts most
    for chunk in blocks(len(row), tiles.elements(masks), OPEN_ELEMENTS):
        place = row[chunk], column[chunk]
        scores = tiles.scores_by_mask(*place)  # (U, N, P)
        inside = grid.pixels_inside(*place)  # (U, P)
        if weights is not None:
            claimed += (at_least(scores, mask_threshold) @ inside[:, :, None]).sum((0, 2))  # so few that float32 counts
            scores.mul_(weights[:, None])
        winner = (masks - highest(scores, 1).mul_(falling).amax(1)).long()  # (U, TILE x TILE), the first of equal ones
        won.index_add_(0, winner.flatten(), inside.flatten().double())
        winners.append(winner)
    shares = Shares(won.long(), None if weights is None else claimed.long())
    return Winners(grid, leader, row, column, torch.cat(winners)), shares


def near_tiles(
    masks: Tensor, weights: Tensor | None, mask_threshold: float | None, points: Sampling
) -> tuple[Tensor, Tensor | None]:
    """The mask that is first all over each tile, none for an open one, and those that claim it, None where the first
    alone does or nothing is claimed; `packed`, int32 (words, t, t') each."""
    if weights is None:
        return everywhere(by_logit(masks, 0).int(), points), None
    ahead, claims = by_score(masks, weights, mask_threshold)  # (words, h, w) each
    # What alone claims a place has the highest logit there, and so the highest logit + log p of those with less p.
    alone = same(ahead, claims)  # (h, w)
    lone = everywhere((ahead * alone).int(), points)  # (words, t, t')
    if lone.count_nonzero() >= (1 - FEW) * lone[0].numel():  # one bit each
        return lone, None
    ahead *= torch.maximum(alone, same(ahead, by_logit(masks, weights.log()[:, None, None])))
    of_all = bits(len(masks), masks.device).sum(1)[:, None, None]
    words = everywhere(torch.cat([ahead, claims, of_all - claims]).int(), points)
    ahead, claims, others = words.unflatten(0, (3, -1))  # (words, t, t') each
    return ahead * (claims | others).eq(of_all.int()).all(0), claims


def by_logit(masks: Tensor, shift: Tensor | float) -> Tensor:
    """Which of `masks` (N, h, w) has the highest logit + `shift` at each place, `packed` (words, h, w)."""
    return only_first(torch.cat([packed(highest(part + shift)) for part in parts(masks)], dim=1))


def by_score(masks: Tensor, weights: Tensor, mask_threshold: float) -> tuple[Tensor, Tensor]:
    """Which of `masks` (N, h, w) has the highest score at each place, and which ones claim it, `packed` (words, h, w)
    each."""
    found = []
    for part in parts(masks):
        scores = part.sigmoid()  # (N, R, w)
        claims = packed(at_least(scores, mask_threshold))  # (words, R, w)
        found.append((packed(highest(scores.mul_(weights[:, None, None]))), claims))
    ahead, claims = (torch.cat(words, dim=1) for words in zip(*found, strict=True))
    return only_first(ahead), claims


def parts(masks: Tensor) -> Sequence[Tensor]:
    """`masks` (N, h, w) by some rows at a time, (N, R, w)."""
    return masks.split(max(1, BLOCK_ELEMENTS // masks[:, 0].numel()), dim=1)


def highest(values: Tensor, dim: int = 0) -> Tensor:
    """One where `values` are the highest along a dimension and zero elsewhere, in their place."""
    return values.eq_(values.amax(dim, keepdim=True))


def at_least(values: Tensor, threshold: float) -> Tensor:
    """One where `values` are at least `threshold`, and zero elsewhere: floats, which are many times as fast as bool."""
    return torch.ge(values, threshold, out=torch.empty_like(values))


def same(one: Tensor, other: Tensor) -> Tensor:
    """One where words (words, ...) are equal, and zero elsewhere, (...)."""
    return torch.eq(one, other, out=torch.empty_like(one)).amin(0)


@lru_cache(maxsize=128)
def bits(length: int, device: torch.device) -> Tensor:
    """What each of `length` N flags counts in each word, float32 (words, N)."""
    table = torch.zeros(-(-length // BITS), length, dtype=torch.float32)
    for flag in range(length):
        table[flag // BITS, flag] = 2.0 ** (BITS - 1 - flag % BITS)
    return table.to(device)


def packed(flags: Tensor) -> Tensor:
    """Zeros and ones (N, ...) as bits of whole numbers (words, ...), all float32; the first has the highest bit."""
    return (bits(len(flags), flags.device) @ flags.flatten(1)).unflatten(1, flags.shape[1:])


def counted(words: Tensor, length: int, areas: Tensor) -> Tensor:
    """The sum of `areas` (T,) where each of `length` N flags `packed` in int32 `words` (words, T) is one, (N,), both
    float64."""
    bit = bits(length, words.device).sum(0)  # (N,)
    place = torch.arange(length, device=words.device) // BITS
    return (words.index_select(0, place) & bit.int()[:, None]).double() @ areas / bit


def only_first(words: Tensor) -> Tensor:
    """The same `packed` flags (words, ...) without those after the first: of equal masks the first is ahead."""
    highest_bit = (words.view(torch.int32) & EXPONENT).view(torch.float32)  # a number without its mantissa
    return highest_bit if len(words) == 1 else highest_bit * (words.cumsum(0) == words)


def first(words: Tensor) -> Tensor:
    """The first flag that is not zero of those `packed` in `words` (words, ...), int64 (...)."""
    places = BITS - 1 + 127 - (words.float().view(torch.int32) >> 23)  # (words, ...): BITS or more where none is
    return reduce(lambda later, place: torch.where(place < BITS, place, BITS + later), places.flip(0)).long()


def everywhere(words: Tensor, points: Sampling) -> Tensor:
    """The bits of `words` (words, h, w) that are set at all places around a tile, (words, t, t')."""
    words = words.permute(1, 2, 0)  # (h, w, words)
    words = reduce(torch.bitwise_and, (words.index_select(0, place) for place in points.rows.T))  # (t, w, words)
    words = words.transpose(0, 1).contiguous()  # (w, t, words)
    words = reduce(torch.bitwise_and, (words.index_select(0, place) for place in points.columns.T))
    return words.permute(2, 1, 0)  # (words, t, t')
