"""Whose score is the highest at every pixel of an answer, where each mask has a score of its own.

A pixel's logits are means of those around it, with weights that all masks share, and scores are p x sigmoid(logit).
That q is ahead of r or equal, p_q sigmoid(m_q) >= p_r sigmoid(m_r), reads m_q >= g(m_r) with
g(m) = logit(p_r / p_q x sigmoid(m)). If p_q <= p_r, g is convex: what holds at all places around a pixel holds for
their means. If p_q > p_r, g lies below m_r + log(p_r / p_q), so that m_q + log p_q >= m_r + log p_r is enough, which
carries over to means as well. So a mask that is first by score and by logit + log p at all places around a tile is
first all over it, and so is one whose logits are highest, where these are the scores. The other tiles are computed
pixel by pixel. The answer is that of the whole computation, to float rounding.

Whose turn it is at a place is noted in bits of whole numbers, which float32 has exactly up to 24: what holds at all
places around a tile is then one "and", whatever the number of masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from torch import Tensor

from .row_blocks import BLOCK_ELEMENTS
from .tile_grid import TILE, Sampling
from .tiles import Tiles, Winners, blocks

BITS = 24


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
    ahead, *claims = everywhere(noted(tiles.masks, weights, mask_threshold), grid.points)  # (words, t, t') each
    is_open = (ahead == 0).all(0)  # (t, t')
    if claims:
        is_open |= (claims[0] | claims[1]).ne(bits(masks, ahead.device).sum(1).int()[:, None, None]).any(0)
    leader = first(ahead).masked_fill_(is_open, 0)  # (t, t')
    areas = (grid.areas * ~is_open).flatten()
    won = areas.new_zeros(masks).index_add_(0, leader.flatten(), areas)  # (N,), float64
    claimed = counted(claims[0].flatten(1), masks, areas) if claims else None  # (N,)
    row, column = torch.nonzero(is_open, as_tuple=True)  # (U,)
    winners = [row.new_empty(0, TILE * TILE)]
    for chunk in blocks(len(row), tiles.elements(masks)):
        place = row[chunk], column[chunk]
        scores = tiles.scores(*place)  # (U, P, N)
        inside = grid.pixels_inside(*place).flatten()
        if claims:
            claimed += inside @ at_least(scores, mask_threshold).flatten(0, 1)  # so few that float32 counts them
        winner = (scores if weights is None else scores.mul_(weights)).argmax(-1)  # (U, TILE x TILE)
        won.index_add_(0, winner.flatten(), inside.double())
        winners.append(winner)
    shares = Shares(won.long(), claimed.long() if claims else None)
    return Winners(grid, leader, row, column, torch.cat(winners)), shares


def noted(masks: Tensor, weights: Tensor | None, mask_threshold: float | None) -> Tensor:
    """Which of `masks` (N, h, w) is ahead at each place, then which ones claim it and which do not, `packed`, int32
    (1 or 3, words, h, w)."""
    found = []
    for part in masks.split(max(1, BLOCK_ELEMENTS // masks[:, 0].numel()), dim=1):  # (N, R, w)
        if weights is None:
            found.append(only_first(packed(highest(part.clone())))[None])
            continue
        p = weights[:, None, None]
        scores, claims = part.sigmoid(), []
        if mask_threshold is not None:
            claim = packed(at_least(scores, mask_threshold))  # (words, R, w)
            claims = [claim, packed(torch.ones_like(p)) - claim]
        by_score, by_sum = packed(highest(scores.mul_(p))), packed(highest(part + p.log()))
        ahead = only_first(by_score) * (by_score == by_sum).all(0)  # where both say the same
        found.append(torch.stack([ahead, *claims]))
    return torch.cat(found, dim=2).int()


def highest(values: Tensor) -> Tensor:
    """One where `values` (N, ...) are the highest along the first dimension and zero elsewhere, in their place."""
    return values.eq_(values.amax(0))


def at_least(values: Tensor, threshold: float) -> Tensor:
    """One where `values` are at least `threshold`, and zero elsewhere: floats, which are many times as fast as bool."""
    return torch.ge(values, threshold, out=torch.empty_like(values))


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
    some = words > 0
    highest_bit = torch.ldexp(some.float(), torch.frexp(words).exponent - 1)
    return highest_bit * (some.cumsum(0) == 1)


def first(words: Tensor) -> Tensor:
    """The first flag that is not zero of those `packed` in int32 `words` (words, ...), int64 (...)."""
    places = BITS - torch.frexp(words.float()).exponent.long()  # (words, ...): BITS where none is
    return reduce(lambda later, place: torch.where(place < BITS, place, BITS + later), places.flip(0))


def everywhere(words: Tensor, points: Sampling) -> Tensor:
    """The bits of `words` (M, words, h, w) that are set at all places around a tile, (M, words, t, t')."""
    words = words.permute(2, 3, 0, 1)  # (h, w, M, words)
    words = reduce(torch.bitwise_and, (words.index_select(0, place) for place in points.rows.T))  # (t, w, M, words)
    words = words.transpose(0, 1).contiguous()  # (w, t, M, words)
    words = reduce(torch.bitwise_and, (words.index_select(0, place) for place in points.columns.T))
    return words.permute(2, 3, 1, 0)  # (M, words, t, t')
