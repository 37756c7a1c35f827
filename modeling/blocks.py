"""Work in parts that caches hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor as is_wrapped  # to be batched or differentiated

BLOCK_ELEMENTS = 2**20  # elements of a part's largest tensor, about: 4 MB in float32


def for_caches(tensor: Tensor) -> bool:
    """Whether `tensor` is computed on, as it is and without gradients, by a CPU, for which its caches decide.

    What is compiled, traced or differentiated is not: there the whole computation is wanted in one piece. To be asked
    before any size is, which a compiler would take for fixed.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled():
        return False
    if type(tensor) is not Tensor or tensor.device.type != "cpu" or is_wrapped(tensor):
        return False
    return torch.autograd.forward_ad._current_level < 0


def is_plain(weight: Tensor) -> bool:
    """Whether `weight` is a tensor of float32 and nothing else, such as a quantised one."""
    return type(weight) in (Tensor, nn.Parameter) and weight.dtype == torch.float32 and not is_wrapped(weight)


def parts(elements: int, *tensors: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """The same rows (along the first dimension) of all `tensors`, some at a time; None stays None.

    `elements` is the size of the largest tensor that one row leads to. All parts are about as large, as products of few
    rows take almost the time of many.
    """
    rows = next(len(tensor) for tensor in tensors if tensor is not None)
    step = -(-rows // max(1, round(rows * elements / BLOCK_ELEMENTS))) or 1
    return zip(*(repeat(None) if tensor is None else tensor.split(step) for tensor in tensors), strict=False)
