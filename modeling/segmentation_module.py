"""The segmentation module of Figure 2: per-segment embeddings to classes and masks (section 3.3)."""

from __future__ import annotations

import torch
from torch import nn

from .configuration_maskformer import MaskFormerUniversalConfig, SegmentationNetworkConfig
from .pixel_decoder import MaskProjection


class MaskHead(nn.Sequential):
    """Three linear layers: per-segment embeddings Q (..., C) to mask embeddings E_mask (..., C_E)."""

    def __init__(self, config: SegmentationNetworkConfig):
        super().__init__(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.mask_feature_size),
        )


class SegmentationModule(nn.Module):
    """Per-segment embeddings Q to classes and masks; masks are dot products with the per-pixel embeddings."""

    def __init__(self, config: MaskFormerUniversalConfig):
        super().__init__()
        self.class_head = nn.Linear(config.hidden_size, config.num_labels + 1)
        self.mask_head = MaskHead(config)

    def forward(
        self, segment_embeddings: torch.Tensor, pixel_embeddings: torch.Tensor, projection: MaskProjection | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q (L, B, N, C) and E_pixel (B, C_E, h, w) to class logits (L, B, N, K+1) and mask logits (L, B, N, h, w).

        With `projection`, of one layer only, `pixel_embeddings` are what it would make E_pixel of.
        """
        mask_embeddings = self.mask_head(segment_embeddings)  # E_mask (L, B, N, C_E)
        if projection is None:
            masks = torch.einsum("lbqc,bchw->lbqhw", mask_embeddings, pixel_embeddings)  # (L, B, N, h, w)
        else:
            masks = projection(pixel_embeddings, mask_embeddings[0])[None]  # (1, B, N, h, w)
        return self.class_head(segment_embeddings), masks
