"""Group normalisation (arXiv 1803.08494) that needs no memory of its own, for inference on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import for_caches, is_plain, parts


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`; in inference on a CPU in the place of its input, which nobody else may need.

    There it also is more exact than PyTorch's, in the variance of maps whose mean is far from zero.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        if not for_caches(features) or not is_plain(features) or not is_plain(self.weight):
            return super().forward(features)
        if features.dim() != 4 or not features.is_contiguous(memory_format=torch.channels_last):
            return super().forward(features)
        for rows in features.permute(0, 2, 3, 1).flatten(1, 2):  # (h * w, C)
            self.normalize(rows)
        return features

    def normalize(self, rows: Tensor) -> None:
        """Overwrites the channels (L, C) of one image, contiguous."""
        mean = self.of_groups(rows.sum(0) / len(rows))  # (C,)
        squares, room = torch.zeros_like(mean), None
        for (part,) in parts(rows.shape[1], rows):
            room = torch.empty_like(part) if room is None else room[: len(part)]
            squares += torch.sub(part, mean, out=room).square_().sum(0)
        scale = self.weight * (self.of_groups(squares / len(rows)) + self.eps).rsqrt()  # (C,)
        shift = self.bias - mean * scale
        for (part,) in parts(rows.shape[1], rows):
            torch.addcmul(shift, part, scale, out=part)

    def of_groups(self, means: Tensor) -> Tensor:
        """The mean of each group, at all of its channels (C,)."""
        groups = means.view(self.num_groups, -1)
        return groups.mean(1, keepdim=True).expand_as(groups).flatten()
