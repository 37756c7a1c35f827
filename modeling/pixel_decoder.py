"""The pixel decoder of Figure 2: a feature pyramid that ends in per-pixel embeddings (section 4.1)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig

from .blocks import for_caches, parts
from .group_norm import GroupNorm
from .transformer_decoder import TransformerEncoder
from .winograd import Conv3x3, convolution, worth


class ConvNorm(nn.Sequential):
    """A convolution without bias, then group normalisation over 32 groups."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        layer = Conv3x3 if kernel_size == 3 else nn.Conv2d
        super().__init__(
            layer(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            GroupNorm(32, out_channels),
        )


class MaskProjection(Conv3x3):
    """The last convolution, linear: from the pyramid's features to the per-pixel embeddings, or right to masks."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config.feature_size, config.mask_feature_size, kernel_size=3, padding=1)

    def forward(self, features: torch.Tensor, mask_embeddings: torch.Tensor | None = None) -> torch.Tensor:
        """`features` (B, C, h, w) to E_pixel (B, C_E, h, w); with E_mask (B, N, C_E), to mask logits (B, N, h, w).

        The latter are the dot products of both to rounding: a convolution by the products of E_mask and the weights,
        which has N outputs instead of C_E.
        """
        if mask_embeddings is None:
            return super().forward(features)
        weights = torch.einsum("bqe,ecij->bqcij", mask_embeddings, self.weight)  # (B, N, C, 3, 3)
        biases = mask_embeddings @ self.bias  # (B, N)
        masks = [convolve(*one) for one in zip(features.split(1), weights, biases, strict=True)]
        return torch.cat(masks) if len(masks) > 1 else masks[0]  # (B, N, h, w)


def convolve(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`image` (1, C, h, w) and `weight` (N, C, 3, 3) to (1, N, h, w), the fast way."""
    if worth(image, weight):
        return convolution(image, weight, bias)
    return nn.functional.conv2d(image, weight.to(memory_format=torch.channels_last), bias, padding=1)


def plus_enlarged(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """`fine` (B, C, H, W) plus `coarse` (B, C, h, w), enlarged to it by nearest pixels; for caches in the place of
    `fine`, which nobody else may need."""
    size = fine.shape[-2:]
    if not for_caches(fine):
        return fine + nn.functional.interpolate(coarse, size=size, mode="nearest")  # (B, C, H, W)
    rows, columns = (nearest(*sizes, fine.device) for sizes in zip(coarse.shape[-2:], size, strict=True))
    for image, small in zip(fine.permute(0, 2, 3, 1), coarse.permute(0, 2, 3, 1), strict=True):  # (H, W, C), (h, w, C)
        for part, row in parts(image[0].numel(), image, rows):
            place = row[:, None] * small.shape[1] + columns  # (R, W)
            part.add_(small.flatten(0, 1).index_select(0, place.flatten()).view(part.shape))  # (R, W, C)
    return fine


def nearest(old: int, new: int, device: torch.device) -> torch.Tensor:
    """Which of `old` pixels each of `new` is like, int64 (new,)."""
    line = torch.arange(old, dtype=torch.float64, device=device)[None, None]  # (1, 1, old)
    return nn.functional.interpolate(line, size=new, mode="nearest").flatten().long()


class PixelDecoder(nn.Module):
    """Top-down pathway over the image features, finest stride 4.

    With `pixel_decoder_encoder_layers` a transformer encoder first works on the stride-32 map, and its output is what
    the transformer decoder attends to instead of the backbone's.
    """

    def __init__(self, config: PreTrainedConfig, channels: list[int]):
        super().__init__()
        width = config.feature_size
        self.encoder = None
        coarsest = channels[-1]
        if config.pixel_decoder_encoder_layers:
            self.encoder_projection = nn.Conv2d(coarsest, width, kernel_size=1)
            self.encoder = TransformerEncoder(config, width, config.pixel_decoder_encoder_layers)
            coarsest = width
        # Both lists run from fine to coarse; the coarsest map has no lateral convolution.
        self.laterals = nn.ModuleList(ConvNorm(count, width, 1) for count in channels[:-1])
        self.outputs = nn.ModuleList(
            [*(ConvNorm(width, width, 3) for _ in channels[:-1]), ConvNorm(coarsest, width, 3)]
        )
        for output in self.outputs[:-1]:
            output[0].owns_input = True  # a sum made for it
        self.mask_projection = MaskProjection(config)

    def forward(
        self, image_features: tuple[torch.Tensor, ...], project: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`image_features`, strides 4 to 32, to the per-pixel embeddings (B, C_E, H/4, W/4) and the encoder's map
        (B, C, H/32, W/32), if there is one. Without `project`, instead of the former what `mask_projection` takes."""
        encoded = None
        if self.encoder is not None:
            encoded = self.encoder(self.encoder_projection(image_features[-1]))  # (B, C, H/32, W/32)
        pyramid = self.outputs[-1](image_features[-1] if encoded is None else encoded).relu_()
        for features, lateral, output in zip(
            image_features[-2::-1], self.laterals[::-1], self.outputs[-2::-1], strict=True
        ):
            pyramid = output(plus_enlarged(lateral(features), pyramid)).relu_()
        return self.mask_projection(pyramid) if project else pyramid, encoded  # (B, C_E or C, H/4, W/4)
