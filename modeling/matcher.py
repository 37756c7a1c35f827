"""Hungarian matching of predictions to targets (section 3.3).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, h x w the predicted masks, P places
where masks are compared.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from .point_sampling import PointSampling, random_pixels, read_predictions

FOCAL_ALPHA = 0.25
ELEMENTS_AT_ONCE = 2**18  # of predicted masks; what is computed at once should stay in a processor's cache
FEW_CORES = 3  # on which PyTorch's logarithm is slower than NumPy's on one
ROWS = 16  # of which matrix products like to have a multiple


class PredictionIsNaN(ValueError):
    """The network has given something that is no number, or infinities to which nothing can be matched."""


def focal_terms(logits: torch.Tensor, terms: torch.Tensor, work: torch.Tensor) -> torch.Tensor:
    """Of `logits` (L, N, P), in units of 1 - alpha: the focal loss (alpha 0.25, gamma 2) if a pixel's target were 0
    less that if it were 1, with the pixel's probability, in `terms` (L, N, 2, P); and the loss if it were 0, (L, N, P).
    The latter is a part of `work` (2, L, N, P), which is overwritten.
    """
    difference, probability = terms.unbind(2)
    if_zero, opposite = work
    torch.sigmoid(logits, out=probability)
    torch.sub(logits.new_ones(()), probability, out=opposite)
    # -log(1 - probability) as softplus computes it, but by log, which is many times as fast as log1p: what is lost is
    # below the rounding of 1, where the loss is next to nothing.
    logarithm_(torch.maximum(probability, opposite, out=if_zero))
    torch.sub(torch.clamp(logits, min=0, out=difference), if_zero, out=if_zero)
    torch.sub(if_zero, logits, out=difference)  # -log(probability)
    if_zero.mul_(probability).mul_(probability)
    torch.addcmul(if_zero, opposite.square_(), difference, value=-FOCAL_ALPHA / (1 - FOCAL_ALPHA), out=difference)
    return if_zero


def logarithm_(values: torch.Tensor) -> None:
    """Logarithms in the place of `values`. NumPy takes half of PyTorch's time on two cores, and only works on one."""
    if values.device.type == "cpu" and torch.get_num_threads() <= FEW_CORES:
        np.log(values.numpy(), out=values.numpy())
    else:
        values.log_()


def those_there(targets: torch.Tensor, step: int) -> list[torch.Tensor | None]:
    """For every `step` of the places of `targets` (n, P): which of them are not all zero there, and some more, up to a
    multiple of 16, int64; None stands for all."""
    steps = F.pad(targets, (0, -targets.shape[1] % step)).unflatten(1, (-1, step))  # (n, steps, step)
    there = steps.amax(2)  # (n, steps)
    counts = -(-there.count_nonzero(0) // ROWS) * ROWS
    order = there.argsort(0, descending=True).T.contiguous()  # (steps, n)
    return [some[:count] if count < len(some) else None for some, count in zip(order, counts.tolist(), strict=True)]


def mask_costs(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal and dice cost of giving each query of each layer each of n targets, (L, N, n) each.

    `logits` (L, N, P) and `targets` of zeros and ones (n, ...) at the P places where masks are compared.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    count, places, queries = len(targets), logits.shape[2], logits.shape[:2].numel()
    # One more target is all ones, for the area of what is predicted; the others fill up.
    rows = torch.zeros(-(-(count + 1) // ROWS) * ROWS, places, dtype=wide, device=logits.device)
    rows[:count].view(targets.shape).copy_(targets)
    rows[count] = 1
    sums = rows.new_zeros(2 * queries, len(rows))
    constant = rows.new_zeros(*logits.shape[:2], 1)
    # A CPU gains from small blocks, an accelerator from large ones.
    at_once = ELEMENTS_AT_ONCE if logits.device.type == "cpu" else 64 * ELEMENTS_AT_ONCE
    step = max(256, at_once // max(1, queries))
    # Masks are in one place: most parts of the image have few of them. To ask, an accelerator would have to wait.
    parts = logits.split(step, dim=2)
    there = those_there(rows, step) if logits.device.type == "cpu" else [None] * len(parts)
    room = rows.new_empty(4 * queries * min(step, places))  # the same memory for all: new memory costs
    for part, wanted, some in zip(parts, rows.split(step, dim=1), there, strict=True):
        # Both terms of a query lie together: so the core that computes them is the one that multiplies them, where
        # products are shared out by rows. From one core's cache to another's is a long way.
        terms, work = room[: 4 * part.numel()].view(2, -1)  # (2 x L x N x P',) each
        terms, work = terms.view(*part.shape[:2], 2, -1), work.view(2, *part.shape)  # (L, N, 2, P'), (2, L, N, P')
        constant += focal_terms(part.to(wide), terms, work).sum(2, keepdim=True)
        terms = terms.flatten(0, 2)  # (L x N x 2, P'): one product for both
        if some is None:
            sums.addmm_(terms, wanted.T)
        else:
            sums.index_add_(1, some, terms @ wanted[some].T)  # (L x N x 2, m)
    difference, overlap = sums.view(*logits.shape[:2], 2, -1).unbind(2)  # (L, N, more than n)
    # An infinite logit is one wherever it is, in places that no mask asks about too.
    constant += 0 * difference[..., count, None]
    focal = (1 - FOCAL_ALPHA) * (constant - difference[..., :count])
    areas = overlap[..., count, None] + rows[:count].sum(1)
    return focal / places, 1 - (2 * overlap[..., :count] + 1) / (areas + 1)


def nearest(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`masks` bool (n, H, W) at `size` (h, w), by nearest pixels; a view where steps are whole, as in training."""
    (height, width), (rows, columns) = masks.shape[1:], size
    if height % rows == 0 and width % columns == 0:
        return masks[:, :: height // rows, :: width // columns]  # (n, h, w)
    # As a batch of one channel each, which may be empty; channels may not.
    return F.interpolate(masks[:, None].to(torch.uint8), size=size, mode="nearest")[:, 0]  # (n, h, w)


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
    size = mask_logits.shape[2:]
    if points is None:
        targets = nearest(masks, size)  # (n, h, w)
        logits = mask_logits.flatten(2)  # (L, N, h * w)
    else:
        pixels = random_pixels(1, points.num_points, masks.shape[1:], masks.device)  # (1, P), shared by all masks
        targets = masks.flatten(1)[:, pixels[0]]  # (n, P)
        read = [read_predictions(layer[None].to(wide), pixels, masks.shape[1:])[0] for layer in mask_logits]
        logits = torch.stack(read)  # (L, N, P)
    focal, dice = mask_costs(logits, targets)
    classes = -class_logits.to(wide).softmax(-1)[..., class_labels]  # (L, N, n)
    class_weight, mask_weight, dice_weight = weights
    return mask_weight * focal + class_weight * classes + dice_weight * dice


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

    Raises `PredictionIsNaN`, a `ValueError`, if a prediction holds NaN, or infinity that makes a cost NaN or infinite.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        costs = [
            image_cost(class_logits[:, image], mask_logits[:, image], labels, masks, weights, points)
            for image, (labels, masks) in enumerate(zip(class_labels, mask_labels, strict=True))
        ]
    counts = [len(labels) for labels in class_labels]
    # One transfer for all layers and images.
    table = torch.cat(costs, dim=2).cpu()  # (L, N, sum of n_i)
    if not table.isfinite().all():
        message = (
            "a predicted class or mask is NaN or infinite, so nothing can be matched; is the learning rate too high?"
        )
        raise PredictionIsNaN(message)
    return [
        [tuple(map(torch.as_tensor, linear_sum_assignment(cost))) for cost in layer.split(counts, dim=1)]
        for layer in table
    ]
