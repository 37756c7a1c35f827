"""Linear layers by oneDNN's kernels, which in inference on a CPU are faster than those that PyTorch takes.

They want weights in an order of their own. PyTorch's layers bring them into it at every call, which is a tenth of the
time of a call with some hundred rows; here it is done once for all parts of a map. The operators are those that
`torch.compile` uses on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from .blocks import for_caches, is_plain

FEW_ROWS = 256  # for which it does not pay
OPERATORS = torch.ops.mkldnn


class Linear(nn.Linear):
    """`nn.Linear`; see above."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., C) to (..., K)."""
        if not for_caches(inputs) or not is_plain(inputs) or inputs.shape[:-1].numel() < FEW_ROWS:
            return super().forward(inputs)
        product = prepared(self)
        return super().forward(inputs) if product is self else product(inputs)


def prepared(layer: nn.Module, gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """`layer`, to be called without gradients for several parts (..., C) while its weights stay; `gelu` follows it.

    Other layers than a plain `Linear` of float32, and those that are watched, are called as they are.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if type(layer) is not Linear or is_watched(layer) or not is_plain(weight) or not is_fast(dtype):
        return (lambda inputs: nn.functional.gelu(layer(inputs))) if gelu else layer
    weight = OPERATORS._reorder_linear_weight(weight.to(dtype))
    bias = None if bias is None else bias.to(dtype)
    after = ("gelu", [], "none") if gelu else ("none", [], "")

    def product(inputs: Tensor) -> Tensor:
        return OPERATORS._linear_pointwise(inputs.to(dtype), weight, bias, *after)  # (..., K)

    return product


def is_fast(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and has products of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(OPERATORS, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and OPERATORS._is_mkldnn_bf16_supported())


def is_watched(module: nn.Module) -> bool:
    """Whether somebody has hooks on `module`, or a `forward` of their own, who would miss it if it were not called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    hooks += (every_module._global_forward_hooks, every_module._global_forward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
