"""The pixel-level module of Figure 2: backbone and pixel decoder (section 3.3)."""

from __future__ import annotations

import torch
from torch import nn

from .backbone import STRIDES, load_backbone
from .configuration_maskformer import SegmentationNetworkConfig
from .pixel_decoder import PixelDecoder


class PixelLevelModule(nn.Module):
    """Backbone and pixel decoder: an image to its features F and per-pixel embeddings E_pixel."""

    def __init__(self, config: SegmentationNetworkConfig):
        super().__init__()
        self.backbone = load_backbone(config)
        self.pixel_decoder = PixelDecoder(config, self.backbone.channels)
        self.attended = STRIDES.index(config.decoder_stride)

    def forward(self, pixel_values: torch.Tensor, project: bool = True):
        """`pixel_values` (B, 3, H, W) to F, E_pixel and the map that the transformer decoder attends to.

        Without `project`, instead of E_pixel what the pixel decoder's `mask_projection` makes it of.
        """
        image_features = self.backbone(pixel_values)
        pixel_embeddings, encoded = self.pixel_decoder(image_features, project)
        attended = image_features[self.attended] if encoded is None else encoded
        return image_features, pixel_embeddings, attended


def attended_channels(config: SegmentationNetworkConfig, pixel_level_module: PixelLevelModule) -> int:
    """Channels of the map that the transformer decoder attends to: the encoder's, or the backbone's where none is."""
    if config.pixel_decoder_encoder_layers:
        return config.feature_size
    return pixel_level_module.backbone.channels[pixel_level_module.attended]
