"""Swin Transformer (arXiv 2103.14030) as a backbone, exact at every image size.

Feature maps that the window does not divide are padded first and shifted then, as in the official segmentation code;
timm's Swin does it the other way round. Names of parameters are those of the official checkpoints.

Shapes: B images, C channels, H x W tokens of the stage, w the window's side, n = w * w its tokens, W_n its windows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention

# name: (channels of the first stage, blocks of each stage, attention heads of each stage)
VARIANTS = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
NAME = re.compile(r"swin_(tiny|small|base|large)_patch4_window(\d+)_\d+(\..+)?")


def architecture(
    name: str,
    embed_dim: int | None = None,
    depths: Sequence[int] | None = None,
    num_heads: Sequence[int] | None = None,
    window_size: int | None = None,
    **unknown,
) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    """Channels of the first stage, blocks and heads of each stage, and the window, of timm's `name`; arguments, by
    timm's names, replace them.

    Raises `ValueError` for a name or an argument that is not known, and unless there are four stages.
    """
    if unknown:
        known = "drop_path_rate, embed_dim, depths, num_heads, window_size"
        raise ValueError(f"a Swin Transformer has no backbone_kwargs {', '.join(unknown)}; it has {known}")
    match = NAME.fullmatch(name)
    if match is None:
        known = ", ".join(f"swin_{size}_patch4_window7_224" for size in VARIANTS)
        raise ValueError(f"backbone {name!r} is not a Swin Transformer that is known here; known are {known}, ...")
    named = VARIANTS[match[1]]
    depths, num_heads = tuple(depths or named[1]), tuple(num_heads or named[2])
    if len(depths) != 4 or len(num_heads) != 4:
        raise ValueError(f"depths {depths} and num_heads {num_heads} must have one number for each of the four stages")
    return embed_dim or named[0], depths, num_heads, window_size or int(match[2])


def relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table for each pair of tokens of a window: int64 (n, n)."""
    tokens = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(tokens, tokens, indexing="ij"))  # (n,)
    row_offset = rows[:, None] - rows[None] + window - 1  # (n, n), 0 to 2w - 2
    column_offset = columns[:, None] - columns[None] + window - 1
    return row_offset * (2 * window - 1) + column_offset


def to_windows(tokens: torch.Tensor, window: int) -> torch.Tensor:
    """(B, H, W, C) to (B, W_n, n, C); the window divides H and W."""
    batch, height, width, channels = tokens.shape
    tokens = tokens.view(batch, height // window, window, width // window, window, channels)
    return tokens.transpose(2, 3).reshape(batch, -1, window * window, channels)  # (B, W_n, n, C)


def from_windows(windows: torch.Tensor, window: int, height: int, width: int) -> torch.Tensor:
    """(B, W_n, n, C) to (B, H, W, C)."""
    batch = windows.shape[0]  # `len` would be a number to the exporter
    windows = windows.view(batch, height // window, width // window, window, window, -1)
    return windows.transpose(2, 3).reshape(batch, height, width, -1)  # (B, H, W, C)


def shift_mask(height: int, width: int, window: int, like: torch.Tensor) -> torch.Tensor:
    """What is added to the scores of shifted windows, (W_n, 1, n, n): -100 between tokens that were not neighbours."""

    # By comparisons, not by slices: those of a size that is not known yet take the exporter minutes.
    def bands(length: int) -> torch.Tensor:
        index = torch.arange(length, device=like.device)
        return (index >= length - window).long() + (index >= length - window // 2)  # (length,), 0 to 2

    regions = 3 * bands(height)[:, None] + bands(width)  # (H, W)
    regions = to_windows(regions[None, :, :, None], window)[0, :, :, 0]  # (W_n, n)
    differ = regions[:, None, :, None] != regions[:, None, None, :]  # (W_n, 1, n, n)
    return torch.zeros(differ.shape, device=like.device, dtype=like.dtype).masked_fill(differ, -100.0)


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each relative position."""

    def __init__(self, config: PreTrainedConfig, channels: int, heads: int, window: int):
        super().__init__()
        self.config, self.heads, self.window = config, heads, window
        self.scaling = (channels // heads) ** -0.5
        self.is_causal = False
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`windows` (B, W_n, n, C) with `mask` (W_n, 1, n, n) or none to the same shape."""
        batch, count, length, channels = windows.shape
        query, key, value = (
            self.qkv(windows)
            .view(batch * count, length, 3, self.heads, -1)
            .permute(2, 0, 3, 1, 4)  # (3, B x W_n, heads, n, d)
        )
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]  # (n * n, heads)
        bias = bias.view(1, length, length, self.heads).permute(0, 3, 1, 2)  # (1, heads, n, n)
        if mask is not None:
            bias = (bias + mask).expand(batch, -1, -1, -1, -1).flatten(0, 1)  # (B x W_n, heads, n, n)
        # Flash attention takes no bias: only eager and sdpa apply here.
        implementation = "eager" if self.config._attn_implementation == "eager" else "sdpa"
        attended, _ = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)(
            self, query, key, value, bias, scaling=self.scaling
        )
        attended = attended.reshape(batch, count, length, channels)  # from (B x W_n, n, heads, d)
        return self.proj(attended)


class Block(GradientCheckpointingLayer):
    """Window attention, shifted in every second block, and a feed-forward layer."""

    def __init__(
        self, config: PreTrainedConfig, channels: int, heads: int, window: int, shifted: bool, drop_path: float
    ):
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(config, channels, heads, window)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)})

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`tokens` (B, H, W, C); `mask` that of the padded, shifted map."""
        height, width = tokens.shape[1:3]
        # As a number of windows, by which the exporter, which does not know it, divides without a question.
        padded = [-(-side // self.window) * self.window for side in (height, width)]
        windows = nn.functional.pad(self.norm1(tokens), (0, 0, 0, padded[1] - width, 0, padded[0] - height))
        if self.shift:
            windows = windows.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attn(to_windows(windows, self.window), mask if self.shift else None)
        attended = from_windows(windows, self.window, *padded)  # (B, H, W, C), padded
        if self.shift:
            attended = attended.roll((self.shift, self.shift), (1, 2))
        tokens = tokens + self.drop_path(attended[:, :height, :width])
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.drop_path(self.mlp["fc2"](hidden))


class PatchMerging(nn.Module):
    """Halves the map: every 2 x 2 tokens become one of twice the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) to (B, H/2, W/2, 2C), odd sides padded."""
        height, width = tokens.shape[1:3]
        tokens = nn.functional.pad(tokens, (0, 0, 0, width % 2, 0, height % 2))
        quarters = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1)))  # (B, H/2, W/2, 4C) to 2C


class Stage(nn.Module):
    """The blocks of one resolution."""

    def __init__(self, config: PreTrainedConfig, channels: int, heads: int, window: int, drop_path: list[float]):
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            Block(config, channels, heads, window, shifted=index % 2 == 1, drop_path=rate)
            for index, rate in enumerate(drop_path)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`tokens` (B, H, W, C) to the same shape."""
        height, width = (-(-side // self.window) * self.window for side in tokens.shape[1:3])
        mask = shift_mask(height, width, self.window, like=tokens)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens


class SwinBackbone(nn.Module):
    """Swin Transformer that returns the normed maps of its four stages.

    `name` is timm's (`swin_base_patch4_window12_384`); `drop_path_rate` is the stochastic depth of the last block;
    `changes` are what else differs from the named model (see `architecture`).
    """

    def __init__(self, config: PreTrainedConfig, name: str, drop_path_rate: float = 0.0, **changes):
        super().__init__()
        width, depths, heads, window = architecture(name, **changes)
        self.channels = [width * 2**stage for stage in range(4)]
        rates = [drop_path_rate * index / (sum(depths) - 1) for index in range(sum(depths))]
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 4, stride=4), "norm": nn.LayerNorm(width)})
        self.layers = nn.ModuleList()
        for stage, channels in enumerate(self.channels):
            first = sum(depths[:stage])
            layer = Stage(config, channels, heads[stage], window, rates[first : first + depths[stage]])
            if stage < 3:
                layer.downsample = PatchMerging(channels)
            self.layers.append(layer)
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pixel_values` (B, 3, H, W) to maps of strides 4, 8, 16 and 32."""
        height, width = pixel_values.shape[-2:]
        pixel_values = nn.functional.pad(pixel_values, (0, -width % 4, 0, -height % 4))
        tokens = self.patch_embed["proj"](pixel_values).permute(0, 2, 3, 1)  # (B, H/4, W/4, C)
        tokens = self.patch_embed["norm"](tokens)
        features = []
        for stage, layer in enumerate(self.layers):
            if stage:
                tokens = self.layers[stage - 1].downsample(tokens)
            tokens = layer(tokens)
            normed = getattr(self, f"norm{stage}")(tokens)
            features.append(normed.permute(0, 3, 1, 2))  # (B, C, H/s, W/s), channels last in memory
        return tuple(features)
