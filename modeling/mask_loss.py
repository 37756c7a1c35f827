"""Focal and dice loss of masks at full resolution, without anything of full resolution kept for the backward pass.

Both losses are sums over pixels, and each mask's gradient depends on its own sums alone. So the gradient with respect
to the small predicted masks is computed beside the value, a few masks at a time, and only it is kept.

Shapes: M masks, h x w as predicted, H x W as the targets are.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .matcher import FOCAL_ALPHA

PIXELS_AT_ONCE = 2**18  # what is computed at once should stay in the cache of a processor core


def focal_and_dice(mask_logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over M masks of the focal loss (alpha 0.25, gamma 2, mean over the pixels) and of the dice loss.

    `mask_logits` (M, h, w) are resized to the size of `targets`, bool (M, H, W), bilinearly. Gradients are exact;
    second derivatives do not exist.
    """
    return FocalAndDice.apply(mask_logits, targets)


def interpolation_matrix(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """(target, source): linear interpolation of a row of `source` values to `target`, without aligned corners."""
    identity = torch.eye(source, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=target, mode="linear", align_corners=False)[0].T  # (target, source)


class FocalAndDice(torch.autograd.Function):
    """Both sums, and their gradients at the resolution of the prediction."""

    @staticmethod
    def forward(ctx, mask_logits: torch.Tensor, targets: torch.Tensor):
        height, width = targets.shape[1:]
        rows = interpolation_matrix(mask_logits.shape[1], height, mask_logits)  # (H, h)
        columns = interpolation_matrix(mask_logits.shape[2], width, mask_logits)  # (W, w)
        # A CPU gains from small blocks, an accelerator from large ones.
        pixels = PIXELS_AT_ONCE if mask_logits.device.type == "cpu" else 64 * PIXELS_AT_ONCE
        step = max(1, pixels // (height * width))
        focal_sum = dice_sum = mask_logits.new_zeros(())
        gradients = mask_logits.new_empty(2, *mask_logits.shape)  # of focal and of dice
        for first in range(0, len(mask_logits), step):
            part = slice(first, first + step)
            logits = rows @ mask_logits[part] @ columns.T  # (m, H, W)
            focal, dice, by_focal, by_dice = losses_and_gradients(logits, targets[part])
            focal_sum, dice_sum = focal_sum + focal, dice_sum + dice
            for gradient, by_pixel in zip(gradients, (by_focal, by_dice), strict=True):
                torch.matmul(rows.T @ by_pixel, columns, out=gradient[part])  # (m, h, w)
        ctx.save_for_backward(gradients)
        return focal_sum, dice_sum

    @staticmethod
    @once_differentiable
    def backward(ctx, by_focal_sum: torch.Tensor, by_dice_sum: torch.Tensor):
        (gradients,) = ctx.saved_tensors
        return by_focal_sum * gradients[0] + by_dice_sum * gradients[1], None


def losses_and_gradients(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Focal and dice sums of `logits` (m, H, W) against bool `targets`, and their gradients by each logit."""
    target = targets.to(logits.dtype)
    sign = 1 - 2 * target
    wrong = sign * logits  # logit of the wrong answer
    error = wrong.sigmoid()  # 1 - p_t
    cross_entropy = F.softplus(wrong)
    square = error.square() * (FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)) / target[0].numel()
    slope = error * (1 - error)  # of the probability
    by_focal = sign * square * (2 * (1 - error) * cross_entropy + error)

    area = target.sum((1, 2), keepdim=True)
    missed = (error * target).sum((1, 2), keepdim=True)
    overlap = area - missed
    total = area + overlap + error.sum((1, 2), keepdim=True) - missed  # target's and prediction's area, (m, 1, 1)
    ratio = (2 * overlap + 1) / (total + 1)
    by_dice = slope * (ratio - 2 * target) / (total + 1)
    return (square * cross_entropy).sum(), (1 - ratio).sum(), by_focal, by_dice
