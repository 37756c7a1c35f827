"""Focal and dice loss of masks, at full resolution or at sampled points, without keeping any of that for the backward
pass.

Both losses are sums over pixels, and each mask's gradient depends on its own sums alone. So the gradient with respect
to the small predicted masks is computed beside the value, a few masks at a time, and only it is kept.

Shapes: M predicted masks of h x w, T target masks of H x W, P places where they are compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .matcher import FOCAL_ALPHA
from .point_sampling import PointSampling, read_predictions, read_targets, training_pixels

PLACES_AT_ONCE = 2**18  # what is computed at once should stay in the cache of a processor core


def focal_and_dice(
    mask_logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal loss (alpha 0.25, gamma 2, mean over the pixels) and dice loss of each mask, (M,) both.

    `mask_logits` (M, h, w) are resized bilinearly to the size of `targets`, bool (T, H, W); mask m is compared with
    target `indices[m]`. Gradients are exact; second derivatives do not exist.
    """
    rows = interpolation_matrix(mask_logits.shape[1], targets.shape[1], mask_logits)  # (H, h)
    columns = interpolation_matrix(mask_logits.shape[2], targets.shape[2], mask_logits)  # (W, w)

    def compare(logits: torch.Tensor, which: torch.Tensor):
        everywhere = rows @ logits @ columns.T  # (m, H, W)
        return everywhere, targets[which], lambda gradient: rows.T @ gradient @ columns  # (m, h, w)

    return FocalAndDice.apply(mask_logits, indices, compare, targets.shape[1:].numel())


def focal_and_dice_at_points(
    mask_logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor, sampling: PointSampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal loss (mean over the points) and dice loss of each mask at its own points, (M,) both.

    `mask_logits` (M, h, w) and bool `targets` (T, H, W); mask m is compared with target `indices[m]`.
    """
    size = tuple(targets.shape[1:])

    def compare(logits: torch.Tensor, which: torch.Tensor):
        pixels = training_pixels(logits, size, sampling)  # (m, P)
        with torch.enable_grad():
            source = logits.detach().requires_grad_()
            read = read_predictions(source[:, None], pixels, size)  # (m, 1, P)

        def back(gradient: torch.Tensor) -> torch.Tensor:
            return torch.autograd.grad(read, source, gradient, retain_graph=True)[0]  # (m, h, w)

        return read.detach(), read_targets(targets, which, pixels)[:, None], back

    return FocalAndDice.apply(mask_logits, indices, compare, int(sampling.oversample_ratio * sampling.num_points))


def interpolation_matrix(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """(target, source): linear interpolation of a row of `source` values to `target`, without aligned corners."""
    identity = torch.eye(source, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=target, mode="linear", align_corners=False)[0].T  # (target, source)


class FocalAndDice(torch.autograd.Function):
    """Both losses of each mask, and their gradients at the resolution of the prediction.

    `compare` takes a block of predicted masks (m, h, w) and the indices of their targets (m,); it gives the logits at P
    places, the target there (both (m, ...)), and the function that carries a gradient back to (m, h, w).
    """

    @staticmethod
    def forward(ctx, mask_logits: torch.Tensor, indices: torch.Tensor, compare: Callable, places: int):
        # A CPU gains from small blocks, an accelerator from large ones.
        at_once = PLACES_AT_ONCE if mask_logits.device.type == "cpu" else 16 * PLACES_AT_ONCE
        step = max(1, at_once // places)
        losses = mask_logits.new_empty(2, len(mask_logits))  # focal and dice
        gradients = mask_logits.new_empty(2, *mask_logits.shape)
        for first in range(0, len(mask_logits), step):
            part = slice(first, first + step)
            logits, target, back = compare(mask_logits[part], indices[part])
            losses[0, part], losses[1, part], by_focal, by_dice = losses_and_gradients(logits, target)
            gradients[0, part], gradients[1, part] = back(by_focal), back(by_dice)
        ctx.save_for_backward(gradients)
        return losses[0], losses[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, by_focal: torch.Tensor, by_dice: torch.Tensor):
        (gradients,) = ctx.saved_tensors
        by_logits = by_focal[:, None, None] * gradients[0]  # (M, h, w)
        return by_logits.addcmul_(by_dice[:, None, None], gradients[1]), None, None, None


def losses_and_gradients(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Focal and dice loss (m,) of `logits` (m, a, b) against bool `targets`, and their gradients by each logit."""
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
    return (square * cross_entropy).sum((1, 2)), (1 - ratio).flatten(), by_focal, by_dice
