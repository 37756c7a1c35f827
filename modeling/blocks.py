"""Work in parts that caches hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor, nn

BLOCK_ELEMENTS = 2**20  # elements of a part's largest tensor: 4 MB in float32


def for_caches(tensor: Tensor) -> bool:
    """Whether `tensor` is computed on, as it is and without gradients, by a CPU, for which its caches decide.

    What is compiled, traced or differentiated is not: there the whole computation is wanted in one piece. To be asked
    before any size is, which a compiler would take for fixed.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled():
        return False
    return type(tensor) is Tensor and tensor.device.type == "cpu"


def is_plain(weight: Tensor) -> bool:
    """Whether `weight` is a tensor of float32 and nothing else, such as a quantised one."""
    return type(weight) in (Tensor, nn.Parameter) and weight.dtype == torch.float32


def in_blocks(function: Callable[..., Tensor], elements: int, rows: Tensor, *others: Tensor | None) -> Tensor:
    """`function(rows, *others)`, which treats each of their rows (along the first dimension) alone.

    `elements` is the size of its largest intermediate tensor for one row.
    """
    if not for_caches(rows):
        return function(rows, *others)
    step = max(1, BLOCK_ELEMENTS // elements)
    if step >= len(rows):
        return function(rows, *others)
    parts = [rows.split(step), *(repeat(None) if other is None else other.split(step) for other in others)]
    return torch.cat([function(*part) for part in zip(*parts, strict=False)])  # as long as `rows`


def plus(tensor: Tensor, new: Tensor) -> Tensor:
    """The sum of both, of one shape: in the place of `new`, which nobody else may need, where new memory costs."""
    return new.add_(tensor) if for_caches(new) and new.dtype == tensor.dtype else tensor + new


class Linear(nn.Linear):
    """`nn.Linear`, in inference on a CPU as a 1x1 convolution, whose kernels (oneDNN's) are up to a tenth faster."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., C) to (..., K)."""
        plain = is_plain(inputs) and is_plain(self.weight) and not torch.is_autocast_enabled("cpu")
        if not plain or not for_caches(inputs):
            return super().forward(inputs)
        rows = inputs.shape[:-1].numel()
        if rows < 256:
            return super().forward(inputs)
        image = inputs.reshape(1, 1, rows, -1).permute(0, 3, 1, 2)  # (1, C, 1, L), channels last
        found = nn.functional.conv2d(image, self.weight[:, :, None, None], self.bias)  # (1, K, 1, L)
        return found.permute(0, 2, 3, 1).reshape(*inputs.shape[:-1], -1)  # (..., K)
