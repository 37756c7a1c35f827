"""Hungarian matching of predictions to targets (section 3.3).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, h x w the predicted masks.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

FOCAL_ALPHA = 0.25


def focal_terms(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Focal loss (alpha 0.25, gamma 2) of each pixel if its target were 1 and if it were 0, and its probability."""
    probability = logits.sigmoid()
    if_one = FOCAL_ALPHA * (1 - probability) ** 2 * F.softplus(-logits)
    if_zero = (1 - FOCAL_ALPHA) * probability**2 * F.softplus(logits)
    return if_one, if_zero, probability


def matching_cost(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: torch.Tensor,
    masks: torch.Tensor,
    weights: tuple[float, float, float],
) -> torch.Tensor:
    """Cost of giving each query of one image each of its targets: (Q, n).

    `class_logits` (Q, K+1) and `mask_logits` (Q, h, w) may hold the queries of several layers; `class_labels` (n,),
    `masks` bool (n, H, W), which are resized to h x w (nearest); `weights` of class, focal and dice cost.
    """
    size = mask_logits.shape[-2:]
    # Masks as a batch of one channel each, which may be empty; channels may not.
    targets = F.interpolate(masks[:, None].to(torch.uint8), size=size, mode="nearest")  # (n, 1, h, w)
    targets = targets.flatten(1).to(mask_logits.dtype)  # (n, h * w)
    if_one, if_zero, probability = focal_terms(mask_logits.flatten(1))  # (Q, h * w)
    class_weight, mask_weight, dice_weight = weights

    focal = (if_one - if_zero) @ targets.T + if_zero.sum(1, keepdim=True)  # (Q, n)
    overlap = probability @ targets.T
    areas = probability.sum(1, keepdim=True) + targets.sum(1)
    dice = 1 - (2 * overlap + 1) / (areas + 1)
    classes = -class_logits.softmax(-1)[:, class_labels]
    return mask_weight * focal / targets.shape[1] + class_weight * classes + dice_weight * dice


@torch.no_grad()
def match(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: list[torch.Tensor],
    mask_labels: list[torch.Tensor],
    weights: tuple[float, float, float],
) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """The cheapest one-to-one assignment for every layer and image.

    `class_logits` (L, B, N, K+1), `mask_logits` (L, B, N, h, w); for each image `class_labels` (n_i,) and `mask_labels`
    bool (n_i, H, W). Returns, for each layer, one pair (queries, targets) an image: int64 index tensors of length
    min(N, n_i). Computed in float32 or wider, whatever the precision of the network.

    Raises `ValueError` if a prediction holds NaN.
    """
    layers, _, queries = class_logits.shape[:3]
    wide = torch.promote_types(mask_logits.dtype, torch.float32)
    with torch.autocast(mask_logits.device.type, enabled=False):
        costs = [
            matching_cost(
                class_logits[:, image].flatten(0, 1).to(wide),  # (L * N, K+1)
                mask_logits[:, image].flatten(0, 1).to(wide),  # (L * N, h, w)
                labels,
                masks,
                weights,
            )
            for image, (labels, masks) in enumerate(zip(class_labels, mask_labels, strict=True))
        ]
    counts = [len(labels) for labels in class_labels]
    # One transfer for all layers and images.
    table = torch.cat(costs, dim=1).view(layers, queries, sum(counts)).cpu()  # (L, N, sum of n_i)
    if table.isnan().any():
        raise ValueError("a predicted class or mask is NaN, so nothing can be matched; is the learning rate too high?")
    return [
        [tuple(map(torch.as_tensor, linear_sum_assignment(cost))) for cost in layer.split(counts, dim=1)]
        for layer in table
    ]
