"""Initial weights, as the official code draws them. Only what a checkpoint did not fill is touched."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import initialization as init

from .attention import MultiHeadAttention
from .swin import SwinBackbone, WindowAttention, relative_position_index
from .transformer_decoder import FeedForward, TransformerDecoder


@torch.no_grad()
def initialize(module: nn.Module, pre_norm: bool = False) -> None:
    """Initialises `module` itself; called for children before their parents, so that a parent has the last word.

    Attention and feed-forward layers start as officially, but with `pre_norm`, which no official model has, as torch
    makes them: sublayers that start smaller beside their residuals learn faster (docs/deviations.md).
    """
    if hasattr(module, "init_non_persistent_buffers"):  # timm's positions, which are in no checkpoint
        module.init_non_persistent_buffers()
    elif isinstance(module, nn.Linear):
        initialize_as_torch(module)
    elif isinstance(module, nn.Conv2d):
        init.kaiming_uniform_(module.weight, a=1)  # Caffe2's Xavier
        if module.bias is not None:
            init.zeros_(module.bias)
    elif getattr(module, "running_mean", None) is not None:  # batch norm, frozen or not
        init.zeros_(module.running_mean)
        init.ones_(module.running_var)
        initialize_norm(module)
        if getattr(module, "num_batches_tracked", None) is not None:
            init.zeros_(module.num_batches_tracked)
    elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        initialize_norm(module)
    elif isinstance(module, (MultiHeadAttention, FeedForward)) and pre_norm:
        return
    elif isinstance(module, MultiHeadAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            # The official projections are one (3C, C) matrix, whose Xavier bound is smaller by the square root of 2.
            init.xavier_uniform_(projection.weight, gain=math.sqrt(0.5))
            init.zeros_(projection.bias)
        init.xavier_uniform_(module.out_proj.weight)
        init.zeros_(module.out_proj.bias)
    elif isinstance(module, FeedForward):
        for linear in (module[0], module[-1]):
            init.xavier_uniform_(linear.weight)
    elif isinstance(module, TransformerDecoder):
        init.normal_(module.query_embeddings.weight)
    elif isinstance(module, WindowAttention):
        init.copy_(module.relative_position_index, relative_position_index(module.window))
        init.trunc_normal_(module.relative_position_bias_table, std=0.02)
    elif isinstance(module, SwinBackbone):
        for linear in (child for child in module.modules() if isinstance(child, nn.Linear)):
            init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                init.zeros_(linear.bias)
        initialize_as_torch(module.patch_embed["proj"])


def initialize_norm(module: nn.Module) -> None:
    """Scale one, shift zero."""
    if module.weight is not None:
        init.ones_(module.weight)
        init.zeros_(module.bias)


def initialize_as_torch(module: nn.Linear | nn.Conv2d) -> None:
    """Weights and bias uniform, as torch makes them."""
    init.kaiming_uniform_(module.weight, a=math.sqrt(5))
    if module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        init.uniform_(module.bias, -bound, bound)
