"""Sine positions of a feature map, as DETR defines them."""

from __future__ import annotations

import math

import torch


def sine_positions(height: int, width: int, channels: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Positions of a `height` x `width` map: (height * width, channels).

    Rows and columns are counted from 1 and divided by their number, so that the whole canvas spans 2 pi, padding
    included. The first half of the channels encodes the row, the second the column, sine and cosine in turn.
    Computed in float32, or in float64 where that is asked for (arXiv 2005.12872, appendix A.4).
    """
    half, precision = channels // 2, torch.promote_types(dtype, torch.float32)
    frequencies = torch.arange(half, dtype=precision, device=device)
    frequencies = 10000 ** (2 * (frequencies // 2) / half)  # (C/2,), in pairs

    def encode(length: int) -> torch.Tensor:
        position = torch.arange(1, length + 1, dtype=precision, device=device)
        angle = (position / (length + 1e-6) * (2 * math.pi))[:, None] / frequencies  # (length, C/2)
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)  # (length, C/2)

    rows = encode(height)[:, None].expand(-1, width, -1)  # (H, W, C/2)
    columns = encode(width)[None].expand(height, -1, -1)  # (H, W, C/2)
    return torch.cat((rows, columns), dim=2).flatten(0, 1).to(dtype)  # (H * W, C)
