"""The criterion: cross-entropy, focal and dice losses of matched predictions (section 3.3 and 4.1).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, M matched pairs of the batch.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch.nn import functional as F

from .mask_loss import focal_and_dice
from .matcher import match


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """`value` averaged over all processes of the job; itself where there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


def check_targets(
    class_logits: torch.Tensor,
    mask_labels: list[torch.Tensor],
    class_labels: list[torch.Tensor],
    canvas_size: tuple[int, int] | None = None,
) -> None:
    """Raises `ValueError`, naming the image, where targets do not fit each other, the model or the canvas (H, W)."""
    batch, num_labels = class_logits.shape[1], class_logits.shape[-1] - 1
    if not len(mask_labels) == len(class_labels) == batch:
        raise ValueError(
            f"there are {batch} images, but {len(mask_labels)} entries in mask_labels and {len(class_labels)} in"
            " class_labels; one of each per image is needed"
        )
    if canvas_size is None and mask_labels:
        canvas_size = tuple(mask_labels[0].shape[-2:])
    for image, (masks, labels) in enumerate(zip(mask_labels, class_labels, strict=True)):
        if masks.ndim != 3 or len(masks) != len(labels):
            raise ValueError(
                f"image {image}: mask_labels of shape {tuple(masks.shape)} do not fit {len(labels)} class_labels;"
                f" the shape must be ({len(labels)}, height, width)"
            )
        # Any other size would be stretched to fit, and the loss would be of masks that are not where the objects are.
        if tuple(masks.shape[1:]) != tuple(canvas_size):
            raise ValueError(
                f"image {image}: mask_labels of {tuple(masks.shape[1:])} pixels, but the padded canvas has"
                f" {tuple(canvas_size)}; all masks must have its size"
            )
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_labels):
            wrong = labels[(labels < 0) | (labels >= num_labels)][0].item()
            raise ValueError(f"image {image}: class label {wrong} is outside of 0 to {num_labels - 1}")


def mask_classification_losses(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    mask_labels: list[torch.Tensor],
    class_labels: list[torch.Tensor],
    weights: tuple[float, float, float],
    no_object_weight: float,
    canvas_size: tuple[int, int] | None = None,
) -> dict[tuple[str, int], torch.Tensor]:
    """Unweighted losses of every layer, by (name, layer); names are `loss_ce`, `loss_mask` and `loss_dice`.

    `class_logits` (L, B, N, K+1) and `mask_logits` (L, B, N, h, w); for each image `mask_labels` bool (n_i, H, W) and
    `class_labels` int64 (n_i,). `weights` (class, focal, dice) are those of the matching cost only. Mask losses are
    divided by the number of masks in the batch, averaged over processes and at least 1. Computed in float32 or wider.
    `canvas_size` (H, W) is that of `pixel_values`, by default that of the first image's masks.

    Raises `ValueError` where targets do not fit (`check_targets`).
    """
    check_targets(class_logits, mask_labels, class_labels, canvas_size)
    class_labels = [labels.to(class_logits.device, torch.int64) for labels in class_labels]
    mask_labels = [masks.to(mask_logits.device, torch.bool) for masks in mask_labels]
    assignments = match(class_logits, mask_logits, class_labels, mask_labels, weights)
    num_masks = torch.tensor(float(sum(map(len, class_labels))), device=class_logits.device)
    num_masks = mean_over_processes(num_masks).clamp(min=1)

    losses = {}
    with torch.autocast(mask_logits.device.type, enabled=False):
        for layer, pairs in enumerate(assignments):
            pairs = [(queries.to(mask_logits.device), targets.to(mask_logits.device)) for queries, targets in pairs]
            losses["loss_ce", layer] = classification_loss(class_logits[layer], class_labels, pairs, no_object_weight)
            focal, dice = mask_losses(mask_logits[layer], mask_labels, pairs)
            losses["loss_mask", layer] = focal / num_masks
            losses["loss_dice", layer] = dice / num_masks
    return losses


def classification_loss(
    logits: torch.Tensor, class_labels: list[torch.Tensor], pairs: list, no_object_weight: float
) -> torch.Tensor:
    """Weighted cross-entropy of one layer's `logits` (B, N, K+1); queries without a target should say "no object"."""
    num_labels = logits.shape[-1] - 1
    target = torch.full(logits.shape[:2], num_labels, dtype=torch.int64, device=logits.device)  # (B, N)
    for image, (queries, targets) in enumerate(pairs):
        target[image, queries] = class_labels[image][targets]
    wide = torch.promote_types(logits.dtype, torch.float32)
    weight = torch.ones(num_labels + 1, dtype=wide, device=logits.device)
    weight[-1] = no_object_weight
    return F.cross_entropy(logits.flatten(0, 1).to(wide), target.flatten(), weight)  # (B * N, K+1)


def mask_losses(
    mask_logits: torch.Tensor, mask_labels: list[torch.Tensor], pairs: list
) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal and dice sums of one layer's `mask_logits` (B, N, h, w) over the matched pairs."""
    predicted = torch.cat([mask_logits[image, queries] for image, (queries, _) in enumerate(pairs)])  # (M, h, w)
    wanted = torch.cat([mask_labels[image][targets] for image, (_, targets) in enumerate(pairs)])  # (M, H, W)
    if not len(wanted):
        # Keeps every parameter in the graph, as distributed training wants it.
        zero = mask_logits.sum() * 0.0
        return zero, zero
    return focal_and_dice(predicted.to(torch.promote_types(predicted.dtype, torch.float32)), wanted)
