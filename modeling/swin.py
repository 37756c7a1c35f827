"""Swin Transformer (arXiv 2103.14030) as a backbone, exact at every image size.

Feature maps that the window does not divide are padded first and shifted then, as in the official segmentation code;
timm's Swin does it the other way round. Names of parameters are those of the official checkpoints.

Shapes: B images, C channels, H x W tokens of the stage, w the window's side, n = w * w its tokens, W_n its windows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from timm.layers import DropPath
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention
from .blocks import for_caches, parts
from .linear import Linear, is_watched, prepared
from .windows import Placed, Source, Windows, arrange, arrange_quarters, layout

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


def attend_in_place(
    states: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Attention inside windows: queries, keys and values (3, G, heads, n, d) to (G, n, C), in the place of the queries.

    `bias` (1, heads, n, n) and `mask` (G, 1, n, n) are where the scores begin, to which products are added.
    """
    _, count, heads, length, _ = states.shape
    query, key, value = states.flatten(1, 2)  # (G x heads, n, d)
    scores = states.new_empty(count, heads, length, length)
    if mask is None:
        scores.copy_(bias)
    else:
        torch.add(bias, mask, out=scores)
    scores = scores.flatten(0, 1).baddbmm_(query, key.transpose(1, 2), alpha=scaling)  # (G x heads, n, n)
    attended = torch.bmm(torch.softmax(scores, -1, out=scores), value, out=query)  # (G x heads, n, d)
    return attended.view(count, heads, length, -1).transpose(1, 2).reshape(count, length, -1)  # (G, n, C)


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each relative position."""

    def __init__(self, config: PreTrainedConfig, channels: int, heads: int, window: int):
        super().__init__()
        self.config, self.heads, self.window = config, heads, window
        self.scaling = (channels // heads) ** -0.5
        self.is_causal = False
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)

    def forward(self, windows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`windows` (B x W_n, n, C) with `mask` (B x W_n, 1, n, n) or none to the same shape."""
        return self.proj(self.attend(self.qkv(windows), mask))

    def attend(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`states` (B x W_n, n, 3C), queries, keys and values, to (B x W_n, n, C)."""
        count, length, _ = states.shape
        states = states.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B x W_n, heads, n, d)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]  # (n * n, heads)
        bias = bias.view(1, length, length, self.heads).permute(0, 3, 1, 2)  # (1, heads, n, n)
        # Flash attention takes no bias: only eager and sdpa apply here. For windows this small sdpa's blocks are slower
        # than plain products, as long as these stay in the caches.
        in_caches = for_caches(states)
        if in_caches and states.dtype == bias.dtype == torch.float32:
            return attend_in_place(states.contiguous(), bias.contiguous(), mask, self.scaling)
        if mask is not None:
            bias = bias + mask  # (B x W_n, heads, n, n)
        plain = in_caches and states.dtype == torch.bfloat16
        implementation = "eager" if plain or self.config._attn_implementation == "eager" else "sdpa"
        attended, _ = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)(
            self, *states, bias, scaling=self.scaling
        )
        return attended.reshape(count, length, -1)  # (B x W_n, n, C), from (B x W_n, n, heads, d)

    def prepared(self, count: int) -> Callable:
        """The same for the tokens (M, C) of some windows, which are `Placed`, to (M, C); all these have `count` places.

        What stands for other padding stands for its queries, keys and values too, and for what it attends to.
        """
        if is_watched(self):
            return lambda tokens, placed, mask: placed.tokens(self(placed.windows(tokens), mask))
        qkv, proj = prepared(self.qkv, count), prepared(self.proj, count)
        return lambda tokens, placed, mask: proj(placed.tokens(self.attend(placed.windows(qkv(tokens)), mask)))


class Block(GradientCheckpointingLayer):
    """Window attention, shifted in every second block, and a feed-forward layer."""

    def __init__(self, config: PreTrainedConfig, channels: int, heads: int, window: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(config, channels, heads, window)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.ModuleDict({"fc1": Linear(channels, 4 * channels), "fc2": Linear(4 * channels, channels)})

    def forward(self, tokens: torch.Tensor, windows: Windows, mask: torch.Tensor | None) -> torch.Tensor:
        """`tokens` (B, H, W, C), which lie in `windows` with that mask and may be overwritten, to the same shape."""
        if for_caches(tokens) and not (self.training or self.drop_path.training):
            return self.in_place(tokens.contiguous(), windows, mask)
        placed = windows.source.of(self.norm1(tokens).flatten(0, 2))  # (B x W_n, n, C)
        attended = self.attn(placed, mask).flatten(0, 1)  # (B x W_n x n, C)
        tokens = tokens + self.drop_path(attended.index_select(0, windows.place).view(tokens.shape))
        return tokens + self.drop_path(self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(tokens)))))

    def in_place(self, tokens: torch.Tensor, windows: Windows, mask: torch.Tensor | None) -> torch.Tensor:
        """`forward` in the place of `tokens`, some windows and some tokens at a time: nothing new is of the map's size,
        which to write would take as long as products do."""
        rows, channels = tokens.flatten(0, 2), tokens.shape[-1]  # (B x H x W, C)
        attention = self.attn.prepared(windows.source.token.numel())
        for *places, part in parts(3 * self.attn.window**2 * channels, *windows.source, mask):
            placed = Placed.of(Source(*places))
            found = self.norm1(rows.index_select(0, placed.token)).index_fill_(0, placed.blank, 0.0)  # (M, C)
            attended = attention(found, placed, part).to(rows.dtype).index_fill_(0, placed.blank, 0.0)  # (M, C)
            rows.index_add_(0, placed.token, attended)
        first, second = prepared(self.mlp["fc1"], len(rows), gelu=True), prepared(self.mlp["fc2"], len(rows))
        for (part,) in parts(4 * channels, rows):
            part.add_(second(first(self.norm2(part))))
        return tokens


class PatchMerging(nn.Module):
    """Halves the map: every 2 x 2 tokens become one of twice the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) to (B, H/2, W/2, 2C), odd sides padded."""
        batch, height, width, channels = tokens.shape
        rows, places = tokens.flatten(0, 2), layout(arrange_quarters, tokens)
        some, reduction = [places], self.reduction
        if for_caches(tokens):
            some, reduction = parts(4 * channels, *places), prepared(self.reduction, len(places.token))
        merged = [reduction(self.norm(Source(*part).of(rows).flatten(1))) for part in some]  # (L, 2C) each
        return torch.cat(merged).view(batch, (height + 1) // 2, (width + 1) // 2, 2 * channels)  # (B, H/2, W/2, 2C)


class Stage(nn.Module):
    """The blocks of one resolution."""

    def __init__(self, config: PreTrainedConfig, channels: int, heads: int, window: int, drop_path: list[float]):
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(Block(config, channels, heads, window, rate) for rate in drop_path)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`tokens` (B, H, W, C), which may be overwritten, to the same shape; every second block shifts its windows."""
        plain, shifted = (layout(arrange, tokens, self.window, shift) for shift in (0, self.window // 2))
        mask = shifted.mask(tokens.dtype) if len(self.blocks) > 1 else None
        watched = any(map(is_watched, self.blocks))  # then each block's answer is kept for who watches
        for index, block in enumerate(self.blocks):
            tokens = tokens.clone() if watched and index else tokens
            tokens = block(tokens, shifted, mask) if index % 2 else block(tokens, plain, None)
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
        pixel_values = nn.functional.pad(pixel_values, (0, 3, 0, 3))  # what is over, the strides leave out
        if for_caches(pixel_values):  # so the map is channels last too, without a copy
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
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
