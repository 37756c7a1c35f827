"""Hungarian matching of predictions to targets (section 3.3).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, h x w the predicted masks, P places
where masks are compared.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from .point_sampling import PointSampling, random_pixels, read_predictions

FOCAL_ALPHA = 0.25
ELEMENTS_AT_ONCE = 2**19  # of predicted masks; what is computed at once should stay in a processor's cache


class PredictionIsNaN(ValueError):
    """The network has given something that is no number."""


def focal_terms(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Focal loss (alpha 0.25, gamma 2) of each pixel if its target were 1 less that if it were 0, the latter, and the
    pixel's probability."""
    probability = logits.sigmoid()
    # -log(1 - probability) as softplus computes it, but by log, which is many times as fast as log1p: what is lost is
    # below the rounding of 1, where the loss is next to nothing.
    if_zero = logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp(min=0))
    if_one = (if_zero - logits).mul_((1 - probability).square_()).mul_(FOCAL_ALPHA)
    if_zero = if_zero.mul_(probability.square()).mul_(1 - FOCAL_ALPHA)
    return if_one.sub_(if_zero), if_zero, probability


def matching_cost(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: torch.Tensor,
    targets: torch.Tensor,
    weights: tuple[float, float, float],
) -> torch.Tensor:
    """Cost of giving each of some queries of one image each of its targets: (Q, n).

    `class_logits` (Q, K+1), `class_labels` (n,); `mask_logits` (Q, P) and `targets` of zeros and ones (n, P), at the P
    places where masks are compared; `weights` of class, focal and dice cost.
    """
    difference, if_zero, probability = focal_terms(mask_logits)  # (Q, P)
    class_weight, mask_weight, dice_weight = weights

    focal, overlap = (torch.cat([difference, probability]) @ targets.T).chunk(2)  # (Q, n) each: one product for both
    focal = focal + if_zero.sum(1, keepdim=True)
    areas = probability.sum(1, keepdim=True) + targets.sum(1)
    dice = 1 - (2 * overlap + 1) / (areas + 1)
    classes = -class_logits.softmax(-1)[:, class_labels]
    return mask_weight * focal / targets.shape[1] + class_weight * classes + dice_weight * dice


def image_cost(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: torch.Tensor,
    masks: torch.Tensor,
    weights: tuple[float, float, float],
    points: PointSampling | None,
) -> torch.Tensor:
    """Cost of all layers of one image: (L, N, n). `class_logits` (L, N, K+1), `mask_logits` (L, N, h, w),
    `class_labels` (n,), `masks` bool (n, H, W), which are resized to h x w (nearest), or read at random points."""
    wide = torch.promote_types(mask_logits.dtype, torch.float32)
    size = mask_logits.shape[-2:]
    if points is None:
        # Masks as a batch of one channel each, which may be empty; channels may not.
        targets = F.interpolate(masks[:, None].to(torch.uint8), size=size, mode="nearest").flatten(1)  # (n, h * w)
    else:
        pixels = random_pixels(1, points.num_points, masks.shape[1:], masks.device)  # (1, P), shared by all masks
        targets = masks.flatten(1)[:, pixels[0]]  # (n, P)
    targets = targets.to(wide)
    # A CPU gains from small blocks, an accelerator from large ones.
    at_once = ELEMENTS_AT_ONCE if mask_logits.device.type == "cpu" else 64 * ELEMENTS_AT_ONCE
    step = max(1, at_once // max(size.numel(), targets.shape[1]))
    layers = []
    for layer_classes, layer_masks in zip(class_logits, mask_logits, strict=True):
        blocks = []
        for classes, logits in zip(layer_classes.split(step), layer_masks.split(step), strict=True):
            logits = logits.to(wide)  # (q, h, w)
            if points is None:
                logits = logits.flatten(1)  # (q, h * w)
            else:
                logits = read_predictions(logits[None], pixels, masks.shape[1:])[0]  # (q, P)
            blocks.append(matching_cost(classes.to(wide), logits, class_labels, targets, weights))
        layers.append(torch.cat(blocks))  # (N, n)
    return torch.stack(layers)  # (L, N, n)


@torch.no_grad()
def match(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: list[torch.Tensor],
    mask_labels: list[torch.Tensor],
    weights: tuple[float, float, float],
    points: PointSampling | None = None,
) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """The cheapest one-to-one assignment for every layer and image.

    `class_logits` (L, B, N, K+1), `mask_logits` (L, B, N, h, w); for each image `class_labels` (n_i,) and `mask_labels`
    bool (n_i, H, W). Returns, for each layer, one pair (queries, targets) an image: int64 index tensors of length
    min(N, n_i). With `points`, the masks of an image are compared at random points, the same for all of them. Computed
    in float32 or wider, whatever the precision of the network.

    Raises `PredictionIsNaN`, a `ValueError`, if a prediction holds NaN.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        costs = [
            image_cost(class_logits[:, image], mask_logits[:, image], labels, masks, weights, points)
            for image, (labels, masks) in enumerate(zip(class_labels, mask_labels, strict=True))
        ]
    counts = [len(labels) for labels in class_labels]
    # One transfer for all layers and images.
    table = torch.cat(costs, dim=2).cpu()  # (L, N, sum of n_i)
    if table.isnan().any():
        message = "a predicted class or mask is NaN, so nothing can be matched; is the learning rate too high?"
        raise PredictionIsNaN(message)
    return [
        [tuple(map(torch.as_tensor, linear_sum_assignment(cost))) for cost in layer.split(counts, dim=1)]
        for layer in table
    ]
