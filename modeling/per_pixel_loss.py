"""Cross-entropy of pixels at full resolution, without anything of full resolution kept for the backward pass.

The loss is a sum over pixels, so the gradient with respect to the small logits is computed beside the value, a few rows
at a time, and only it is kept.

Shapes: B images, K classes, logits of h x w, labels of 4h x 4w.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .loss import sum_over_processes

STRIDE = 4  # of the logits; the official heads enlarge them by this factor, whatever the canvas
ELEMENTS_AT_ONCE = 2**20  # enlarged logits computed at once, of a size that a processor's cache holds


def labels_on_grid(labels: torch.Tensor, logits: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """`labels` (B, H, W) cut, or filled with `ignore_index`, to the 4h x 4w pixels of `logits` (B, K, h, w).

    Raises `ValueError`, naming the image, where labels are no integers or outside of 0 to K - 1.
    """
    if labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)}; {len(logits)} images need (batch, height, width)"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    labels = labels.to(logits.device, torch.int64)
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= logits.shape[1]))
    if wrong.any():
        image = wrong.flatten(1).any(1).nonzero()[0].item()
        raise ValueError(
            f"image {image}: label {labels[image][wrong[image]][0].item()} is outside of 0 to {logits.shape[1] - 1}"
            f" and is not the ignored one, {ignore_index}"
        )
    height, width = (STRIDE * size for size in logits.shape[-2:])
    return F.pad(labels, (0, width - labels.shape[2], 0, height - labels.shape[1]), value=ignore_index)  # (B, 4h, 4w)


def loss_normalizers(labels: list[torch.Tensor], ignore_index: int, device: torch.device) -> dict[str, torch.Tensor]:
    """What the losses of a step are divided by, from the `labels` (B, H, W) of all its batches.

    `num_pixels` counts those that have a class, at least 1, summed over all processes and divided by their number.
    """
    valid = sum((part != ignore_index).sum() for part in labels)
    wide = torch.float32 if device.type == "mps" else torch.float64
    total, processes = sum_over_processes(valid.to(device, wide))
    return {"num_pixels": total.clamp(min=1) / processes}


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Sum of the cross-entropy over the pixels that have a class; `logits` (B, K, h, w) are enlarged bilinearly to
    `labels` (B, 4h, 4w). Computed in float32 or wider; second derivatives do not exist."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return PixelCrossEntropy.apply(logits, labels, ignore_index)


class PixelCrossEntropy(torch.autograd.Function):
    """The sum over pixels, and its gradient at the resolution of the logits."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, labels: torch.Tensor, ignore_index: int):
        # A CPU gains from small blocks, an accelerator from large ones.
        elements = ELEMENTS_AT_ONCE if logits.device.type == "cpu" else 64 * ELEMENTS_AT_ONCE
        num_labels, height, width = logits.shape[1:]
        step = max(1, elements // (num_labels * width * STRIDE**2))
        total, gradient = logits.new_zeros(()), torch.zeros_like(logits)
        for image in range(len(logits)):
            for first in range(0, height, step):
                last = min(first + step, height)
                # Bilinear weights reach one row beyond the block.
                rows = slice(max(first - 1, 0), min(last + 1, height))
                with torch.enable_grad():
                    block = logits[image, None, :, rows].detach().requires_grad_()  # (1, K, r, w)
                    pixels = F.interpolate(block, scale_factor=STRIDE, mode="bilinear")  # (1, K, 4r, 4w)
                    pixels = pixels[:, :, STRIDE * (first - rows.start) : STRIDE * (last - rows.start)]
                    target = labels[image, None, STRIDE * first : STRIDE * last]
                    loss = F.cross_entropy(pixels, target, ignore_index=ignore_index, reduction="sum")
                total += loss.detach()
                if ctx.needs_input_grad[0]:
                    gradient[image, :, rows] += torch.autograd.grad(loss, block)[0][0]
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, by_total: torch.Tensor):
        (gradient,) = ctx.saved_tensors
        return by_total * gradient, None, None
