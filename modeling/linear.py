"""Linear layers by oneDNN's kernels, which in inference on a CPU are faster than those that PyTorch takes.

They want weights in an order of their own. For many rows it pays to bring them into it, once for all parts of a map;
of more than one row it changes no bit. The operators are those that `torch.compile` uses on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from .blocks import for_caches, is_plain

OPERATORS = torch.ops.mkldnn
MANY_ROWS = 2048  # from which on it pays to bring weights into another order


class Linear(nn.Linear):
    """`nn.Linear`; see above."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., C) to (..., K)."""
        product = None
        if for_caches(inputs) and is_plain(inputs):
            product = onednn_product(self, inputs.shape[:-1].numel())
        return super().forward(inputs) if product is None else product(inputs)


def prepared(layer: nn.Module, rows: int, gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """`layer`, with `gelu` after it or not, to be called without gradients for parts (..., C) of so many `rows`, while
    its weights stay.

    Other layers than a `Linear`, and those that are watched, are called as they are.
    """
    product = onednn_product(layer, rows, gelu) if type(layer) is Linear and not is_watched(layer) else None
    return product or ((lambda inputs: nn.functional.gelu(layer(inputs))) if gelu else layer)


def onednn_product(layer: nn.Linear, rows: int, gelu: bool = False) -> Callable[[Tensor], Tensor] | None:
    """What gives `layer`'s answers for `rows` in all, in the precision of autocast where that is on; None where it
    cannot be had. With `gelu` that is part of it, which spares a pass."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    if not is_plain(layer.weight) or not is_fast(dtype):
        return None
    weight = layer.weight.detach().to(dtype)
    if rows >= MANY_ROWS:
        weight = OPERATORS._reorder_linear_weight(weight)
    bias = None if layer.bias is None else layer.bias.to(dtype).contiguous()
    activation = ("gelu", [], "none") if gelu else ("none", [], "")  # "none": by erf, not tanh

    def product(inputs: Tensor) -> Tensor:
        return OPERATORS._linear_pointwise(inputs.to(dtype), weight, bias, *activation)  # (..., K)

    return product


def is_fast(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and has products of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not torch._C._get_mkldnn_enabled():
        return False
    if not hasattr(OPERATORS, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and OPERATORS._is_mkldnn_bf16_supported())


def is_watched(module: nn.Module) -> bool:
    """Whether somebody has hooks on `module`, or a `forward` of their own, who would miss it if it were not called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    hooks += (every_module._global_forward_hooks, every_module._global_forward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
