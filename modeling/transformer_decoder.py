"""The transformer layers of Figure 2: DETR's decoder, and its encoder for the pixel decoder that has one.

Shapes: B images, N queries, M = H/32 * W/32 positions of the image, C channels.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MultiHeadAttention
from .linear import Linear
from .position_embedding import sine_positions


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU and dropout between them."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int):
        super().__init__(
            Linear(hidden_size, config.intermediate_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            Linear(config.intermediate_size, hidden_size),
        )


class Residual(nn.Module):
    """The residual around one sublayer: normalised after the sum (the paper) or before the sublayer (`pre_norm`)."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: torch.Tensor, sublayer) -> torch.Tensor:
        """`states` (B, N, C) plus what the function `sublayer` makes of them.

        It must not be a module: where weights are offloaded, accelerate moves what a module is called with.
        """
        if self.pre_norm:
            return states + self.dropout(sublayer(self.norm(states)))
        return self.norm(states + self.dropout(sublayer(states)))


class TransformerEncoderLayer(GradientCheckpointingLayer):
    """Self-attention over the image, then a feed-forward layer."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int):
        super().__init__()
        self.self_attention = MultiHeadAttention(config, hidden_size)
        self.self_attention_residual = Residual(config, hidden_size)
        self.feed_forward = FeedForward(config, hidden_size)
        self.feed_forward_residual = Residual(config, hidden_size)

    def forward(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """`states` (B, M, C) and `positions` (M, C) to (B, M, C)."""
        states = self.self_attention_residual(states, lambda x: self.self_attention(x + positions, x + positions, x)[0])
        return self.feed_forward_residual(states, lambda x: self.feed_forward(x))


class QueryAttention(MultiHeadAttention):
    """Attention of the queries to each other; a class of its own, by which its weights are recorded."""


class ImageAttention(MultiHeadAttention):
    """Attention of the queries to the image, likewise."""


class TransformerDecoderLayer(GradientCheckpointingLayer):
    """Self-attention over the queries, attention to the image, then a feed-forward layer."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.self_attention = QueryAttention(config, config.hidden_size)
        self.self_attention_residual = Residual(config, config.hidden_size)
        self.cross_attention = ImageAttention(config, config.hidden_size)
        self.cross_attention_residual = Residual(config, config.hidden_size)
        self.feed_forward = FeedForward(config, config.hidden_size)
        self.feed_forward_residual = Residual(config, config.hidden_size)

    def forward(
        self, states: torch.Tensor, image_keys: torch.Tensor, image_values: torch.Tensor, query_positions: torch.Tensor
    ) -> torch.Tensor:
        """`states` (B, N, C), keys (positions included) and values of the image (B, M, C), `query_positions` (N, C)."""
        states = self.self_attention_residual(
            states, lambda x: self.self_attention(x + query_positions, x + query_positions, x)[0]
        )
        states = self.cross_attention_residual(
            states, lambda x: self.cross_attention(x + query_positions, image_keys, image_values)[0]
        )
        return self.feed_forward_residual(states, lambda x: self.feed_forward(x))


class TransformerEncoder(nn.Module):
    """Encoder layers over one feature map."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(TransformerEncoderLayer(config, hidden_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size) if config.pre_norm else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` (B, C, H/32, W/32) to the same shape."""
        channels, height, width = features.shape[1:]
        positions = sine_positions(height, width, channels, features.device, features.dtype)
        states = features.flatten(2).transpose(1, 2)  # (B, M, C)
        for layer in self.layers:
            states = layer(states, positions)
        return self.norm(states).transpose(1, 2).unflatten(2, (height, width))  # (B, C, H/32, W/32)


class TransformerDecoder(nn.Module):
    """The transformer module of Figure 2: N learned queries become N per-segment embeddings Q."""

    def __init__(self, config: PreTrainedConfig, in_channels: int):
        super().__init__()
        # The official code projects only where the widths differ.
        self.input_projection = (
            nn.Conv2d(in_channels, config.hidden_size, kernel_size=1)
            if in_channels != config.hidden_size
            else nn.Identity()
        )
        self.query_embeddings = nn.Embedding(config.num_queries, config.hidden_size)
        self.layers = nn.ModuleList(TransformerDecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`features` (B, in_channels, H/32, W/32) to one normed (B, N, C) a layer."""
        features = self.input_projection(features)  # (B, C, H/32, W/32)
        batch, channels, height, width = features.shape
        values = features.flatten(2).transpose(1, 2)  # (B, M, C)
        keys = values + sine_positions(height, width, channels, features.device, features.dtype)
        # All rows, by a call: where weights are offloaded, it is the call that fetches them.
        queries = self.query_embeddings(torch.arange(self.query_embeddings.num_embeddings, device=features.device))
        states = queries.new_zeros(batch, *queries.shape).to(values)  # (B, N, C)
        segment_embeddings = []
        for layer in self.layers:
            states = layer(states, keys, values, queries)
            segment_embeddings.append(self.norm(states))
        return tuple(segment_embeddings)
