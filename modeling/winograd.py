"""3x3 convolutions with fewer multiplications (Winograd; arXiv 1509.09308), for inference on a CPU.

A tile of 4 x 4 results needs 6 x 6 values around it. Seen as polynomials at six points these multiply one by one: 36
products for each pair of channels, where the convolution itself has 144. The points 0, 1, -1, 1/2, -2 and infinity keep
the rounding error small (arXiv 1803.10986): twice that of the convolution itself, root mean square, in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .blocks import for_caches, is_plain
from .linear import OPERATORS, is_fast

TILE, SPAN = 4, 6  # results of a tile's side, and the values they need
BLOCK_ELEMENTS = 2**21  # elements of a block's largest tensor: 8 MB, about as large as the transformed weights
MANY_TILES = 1000  # from which on it pays to bring weights into another order

# Whatever the default type and device are when this is imported.
CONSTANT = {"dtype": torch.float32, "device": "cpu"}
# One axis: six values at the points, three weights at the points, and back to four results.
VALUES = torch.tensor(
    [
        [1, -1.5, -2, 1.5, 1, 0],
        [0, -1, 0.5, 2.5, 1, 0],
        [0, 1, -2.5, 0.5, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 0.5, -1, -0.5, 1, 0],
        [0, 1, -1.5, -2, 1.5, 1],
    ],
    **CONSTANT,
)
WEIGHTS = torch.tensor(
    [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, -1 / 3], [-16 / 15, -8 / 15, -4 / 15], [1 / 15, -2 / 15, 4 / 15]]
    + [[0, 0, 1]],
    **CONSTANT,
)
RESULTS = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 0.5, -2, 0], [0, 1, 1, 0.25, 4, 0], [0, 1, -1, 0.125, -8, 1]],
    **CONSTANT,
)
# Both axes: (36, 36), (36, 9) and (16, 36).
VALUES, WEIGHTS, RESULTS = (torch.kron(matrix, matrix) for matrix in (VALUES, WEIGHTS, RESULTS))


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d`, faster where `pays` says so: float32 on a CPU, without gradients, wide and large.

    Where it `owns_input`, nobody else needs that input, and the result may take its place.
    """

    owns_input = False

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h, w)."""
        if not pays(self, features):
            return super().forward(features)
        return convolution(features, self.weight, self.bias, in_place=self.owns_input)


def pays(layer: nn.Conv2d, features: Tensor) -> bool:
    """Whether `convolution` of `layer` and `features` (B, C, h, w) is right, and faster than PyTorch's."""
    plain = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode) == (
        (3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros",
    )  # fmt: skip
    return plain and worth(features, layer.weight)


def worth(features: Tensor, weight: Tensor) -> bool:
    """Whether `features` (B, C, h, w) and `weight` (K, C, 3, 3) are of a kind and size for which it is faster."""
    if not for_caches(features) or torch.is_autocast_enabled("cpu") or features.dim() != 4:
        return False
    if not is_plain(features) or not is_plain(weight):
        return False
    pixels, channels = features.shape[-2] * features.shape[-1], weight.shape[:2]
    return min(channels) >= 96 and pixels >= 4 * max(channels)


def convolution(features: Tensor, weight: Tensor, bias: Tensor | None = None, in_place: bool = False) -> Tensor:
    """`features` (B, C, h, w) and `weight` (K, C, 3, 3) to (B, K, h, w), with one zero around, channels last.

    Works in blocks of rows of tiles, whose intermediate values stay in the caches. `in_place` puts the result where
    `features` are, if it fits.
    """
    batch, channels, height, width = features.shape
    count = len(weight)
    down, across = -(-height // TILE), -(-width // TILE)  # tiles
    spectrum = WEIGHTS @ weight.permute(0, 2, 3, 1).reshape(count, 9, channels)  # (K, 36, C)
    multiply = multiplication(spectrum.transpose(0, 1), down * across)
    images, whole = features.permute(0, 2, 3, 1), (batch, down * TILE, across * TILE, count)  # (B, h, w, C)
    out = images if in_place and images.shape == whole and images.is_contiguous() else features.new_empty(whole)
    step = max(1, BLOCK_ELEMENTS // (SPAN**2 * across * max(channels, count)))
    for image, found in zip(images, out, strict=True):
        above = image.new_zeros(width, channels)
        for first in range(0, down, step):
            tiles = min(step, down - first)
            rows = surrounded(image, first * TILE, tiles * TILE, across * TILE, above)
            above = rows[-2, 1 : width + 1]  # which may be overwritten below
            values = rows.unfold(0, SPAN, TILE).unfold(1, SPAN, TILE)  # (tiles, across, C, 6, 6)
            values = values.permute(0, 1, 3, 4, 2).reshape(tiles * across, SPAN**2, channels)  # (T, 36, C)
            results = RESULTS @ multiply(VALUES @ values)  # (T, 16, K)
            results = results.view(tiles, across, TILE, TILE, count).transpose(1, 2)  # (tiles, 4, across, 4, K)
            found[first * TILE : (first + tiles) * TILE].view_as(results).copy_(results)
    out = out.permute(0, 3, 1, 2)[:, :, :height, :width]  # (B, K, h, w)
    return out if bias is None else out.add_(bias.view(-1, 1, 1))


def multiplication(spectrum: Tensor, tiles: int) -> Callable[[Tensor], Tensor]:
    """The products with `spectrum` (36, K, C): values (T, 36, C) to (T, 36, K). `tiles` is the sum of all T."""
    _, count, channels = spectrum.shape
    if tiles < MANY_TILES or count % 32 or not is_fast(torch.float32):
        return lambda values: torch.bmm(values.transpose(0, 1), spectrum.transpose(1, 2)).transpose(0, 1)
    # As a convolution of 36 groups, 1 x 1, whose kernels are a sixth faster once the weights lie as they want them.
    setting = [0, 0], [1, 1], [1, 1], SPAN**2  # padding, stride, dilation and groups
    weights = spectrum.reshape(SPAN**2 * count, channels, 1, 1)
    weights = OPERATORS._reorder_convolution_weight(weights, *setting, [1, SPAN**2 * channels, 1, tiles])

    def product(values: Tensor) -> Tensor:
        image = values.reshape(1, 1, -1, SPAN**2 * channels).permute(0, 3, 1, 2)  # (1, 36 x C, 1, T)
        found = OPERATORS._convolution_pointwise(image, weights, None, *setting, "none", [], "")
        return found.permute(0, 2, 3, 1).reshape(-1, SPAN**2, count)  # (T, 36, K)

    return product


def surrounded(image: Tensor, first: int, rows: int, columns: int, above: Tensor) -> Tensor:
    """`rows` x `columns` of `image` (h, w, C) from row `first` on, and one more on every side; zero where it ends.

    `above` (w, C) is the row before them.
    """
    height, width, channels = image.shape
    found = image.new_zeros(rows + 2, columns + 2, channels)
    bottom = min(height, first + rows + 1)
    found[0, 1 : width + 1] = above
    found[1 : bottom - first + 1, 1 : width + 1] = image[first:bottom]
    return found
