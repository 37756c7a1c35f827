"""How the tokens of maps lie in Swin's windows (arXiv 2103.14030, section 3.2), as places that are data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

MUCH_PADDING = 0.1  # share of places from which on it pays to leave padding out


# Both are found by adding. They are data to a compiler so: with `arange` and sizes that it does not know, all that
# follows is algebra, in which it spends minutes, and which ONNX cannot say.
def positions(length: int, device: torch.device) -> torch.Tensor:
    """0 to `length` - 1, int64 (length,)."""
    return torch.ones(length, dtype=torch.int64, device=device).cumsum(0) - 1


def number(length: int, device: torch.device) -> torch.Tensor:
    """`length`, int64 ()."""
    return torch.ones(length, dtype=torch.int64, device=device).sum()


class Source(NamedTuple):
    """Where the tokens of G groups of n come from, among those of all images."""

    token: torch.Tensor  # (G, n), among the B x H x W tokens; any where that is padding
    padding: torch.Tensor  # (G, n), true outside the map

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` (B x H x W, C) to (G, n, C), zero outside the map."""
        found = rows.index_select(0, self.token.flatten()).view(*self.token.shape, -1)
        return found.masked_fill_(self.padding[..., None], 0.0)


def source(
    image: torch.Tensor, row: torch.Tensor, column: torch.Tensor, height: torch.Tensor, width: torch.Tensor, group: int
) -> Source:
    """The places (`image`, `row`, `column`), each (G x n,), of maps of `height` x `width`, in groups of n = `group`."""
    padding = (row >= height) | (column >= width)
    token = ((image * height + row) * width + column).masked_fill(padding, 0)
    return Source(token.view(-1, group), padding.view(-1, group))


class Placed(NamedTuple):
    """The tokens that the places of some groups take, with few or none of those that are padding."""

    token: torch.Tensor  # (M,), among those of the map; any where it is padding
    blank: torch.Tensor  # which of these M are padding
    shape: torch.Size  # of the places, (G, n)
    place: torch.Tensor | None  # (M,), of each of them, among G x n; None where all are there
    slot: torch.Tensor | None  # (G x n,), which of the M is at each place

    @classmethod
    def of(cls, source: Source) -> Placed:
        """Padding is all alike: where there is much of it, one token stands for all."""
        token, padding = source.token.flatten(), source.padding.flatten()
        outside = padding.nonzero()[:, 0]
        if len(outside) < MUCH_PADDING * len(padding):
            return cls(token, outside, source.token.shape, None, None)
        kept = ~padding
        kept[outside[0]] = True
        slot = kept.cumsum(0) - 1
        blank = slot[outside[:1]]  # (1,)
        place = kept.nonzero()[:, 0]
        return cls(token[place], blank, source.token.shape, place, slot.masked_fill_(padding, int(blank)))

    def windows(self, tokens: torch.Tensor) -> torch.Tensor:
        """`tokens` (M, C) in their places, (G, n, C)."""
        return (tokens if self.slot is None else tokens.index_select(0, self.slot)).view(*self.shape, -1)

    def tokens(self, windows: torch.Tensor) -> torch.Tensor:
        """What is in their places in `windows` (G, n, C), (M, C)."""
        places = windows.flatten(0, 1)
        return places if self.place is None else places.index_select(0, self.place)


class Windows(NamedTuple):
    """How the tokens of B maps of H x W lie in windows, the maps padded first and shifted then; L = B x W_n x n."""

    source: Source  # of the n places of each window
    place: torch.Tensor  # (B x H x W,), among those L, of each token
    regions: torch.Tensor | None  # (B x W_n, n), of shifted maps: tokens of one window and region were neighbours

    def mask(self, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the scores, (B x W_n, 1, n, n): -100 between tokens that were not neighbours."""
        if self.regions is None:
            return None
        differ = self.regions[:, None, :, None] != self.regions[:, None, None, :]  # (B x W_n, 1, n, n)
        return torch.zeros(differ.shape, device=differ.device, dtype=dtype).masked_fill(differ, -100.0)


def layout(make: Callable, tokens: torch.Tensor, *settings: int):
    """`make(B, H, W, *settings, device)` for `tokens` (B, H, W, C), remembered for the sizes that came last.

    On a GPU its many small steps would take as long as the attention. What is compiled or traced makes its own.
    """
    size = (*tokens.shape[:3], *settings, tokens.device)
    if torch.compiler.is_compiling() or type(tokens) not in (torch.Tensor, nn.Parameter):
        return make(*size)
    return remembered(make, *size)


@lru_cache(maxsize=24)  # eleven for a size of images: two for each stage, one between two stages
def remembered(make: Callable, *size):
    """`make(*size)`, its tensors fit for training wherever they are made."""
    with torch.inference_mode(False):
        return make(*size)


def arrange(batch: int, height: int, width: int, window: int, shift: int, device: torch.device) -> Windows:
    """The windows of `batch` maps of `height` x `width` tokens.

    Plain arithmetic over all places, and one copy of the tokens with what it gives: pad, roll and a view of H x W as
    windows would be three, and ask, of a size that the compiler does not know, whether there is one window or no
    padding.
    """
    area = window * window
    windows = batch * ((height + window - 1) // window) * ((width + window - 1) // window)
    slot, token = positions(windows * area, device), positions(batch * height * width, device)  # (L,), (B x H x W,)
    height, width = number(height, device), number(width, device)
    rows, columns = (height + window - 1) // window, (width + window - 1) // window

    index, within = slot // area, slot % area  # of the window, and of the token in it
    shifted_row = index // columns % rows * window + within // window
    shifted_column = index % columns * window + within % window
    row, column = (shifted_row + shift) % (rows * window), (shifted_column + shift) % (columns * window)
    taken = source(index // (rows * columns), row, column, height, width, area)

    row = (token // width % height - shift) % (rows * window)
    column = (token % width - shift) % (columns * window)
    index = (token // (height * width) * rows + row // window) * columns + column // window
    place = index * area + row % window * window + column % window

    regions = None
    if shift:
        down, right = rows * window, columns * window
        regions = 3 * band(shifted_row, down, window, shift) + band(shifted_column, right, window, shift)
        regions = regions.view(-1, area)  # (B x W_n, n)
    return Windows(taken, place, regions)


def band(position: torch.Tensor, length: int, window: int, shift: int) -> torch.Tensor:
    """0, 1 or 2 for `position` on a shifted side of `length`: before the last window, in it, or wrapped around."""
    return (position >= length - window).long() + (position >= length - shift)


def arrange_quarters(batch: int, height: int, width: int, device: torch.device) -> Source:
    """The four tokens that become one, one after another, of each of B x H/2 x W/2: the two of a column first."""
    quarter = positions(4 * batch * ((height + 1) // 2) * ((width + 1) // 2), device)
    height, width = number(height, device), number(width, device)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    row = quarter // (4 * columns) % rows * 2 + quarter % 2
    column = quarter // 4 % columns * 2 + quarter // 2 % 2
    return source(quarter // (4 * rows * columns), row, column, height, width, 4)
