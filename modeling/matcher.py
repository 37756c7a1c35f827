"""Hungarian matching of predictions to targets (section 3.3).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, h x w the predicted masks, P places
where masks are compared.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from .point_sampling import PointSampling, random_pixels, read_predictions

FOCAL_ALPHA = 0.25
ELEMENTS_AT_ONCE = 2**18  # of predicted masks; what is computed at once should stay in a processor's cache
SMALLEST = 1e-37  # of probabilities whose logarithm is taken; a normal number
FEW_CORES = 3  # on which MKL's logarithm may be slower than NumPy's on one
PLACES_AT_ONCE = 1024  # or so, of each mask: about a page of memory
ALIGNED = 64  # places of which a part has a multiple, so that rows begin where a processor's vectors do
ROWS = 16  # of which matrix products like to have a multiple
CPUINFO = Path("/proc/cpuinfo")  # where Linux has it


class PredictionIsNaN(ValueError):
    """The network has given something that is no number, or infinities to which nothing can be matched."""


def focal_terms(logits: torch.Tensor, terms: torch.Tensor, log: torch.Tensor) -> torch.Tensor:
    """Of `logits` (L, N, P), in units of 1 - alpha: the focal loss (alpha 0.25, gamma 2) if a pixel's target were 0
    less that if it were 1, and the pixel's probability, in `terms` (L, N, 2, P). Returns the sum over pixels of the
    loss if all targets were 0, (L, N). `log` (L, N, P) is overwritten.
    """
    difference, probability = terms.unbind(2)
    # A copy reads ahead of itself, where a sigmoid would wait for memory.
    torch.sigmoid(difference.copy_(logits), out=probability)
    # log(probability); far below zero that is the logit. -log(1 - probability) is the logit less it. What rounding
    # takes from either where it is small is below the rounding of 1, and factors of that size come to it.
    logarithm_(torch.clamp(probability, min=SMALLEST, out=log))
    torch.minimum(log, difference, out=log)
    difference.sub_(log).mul_(probability).mul_(probability)  # the loss if the target were 0
    total = difference.sum(2)
    log.addcmul_(log, probability, value=-1).addcmul_(log, probability, value=-1)  # times 1 - probability, twice
    difference.add_(log, alpha=FOCAL_ALPHA / (1 - FOCAL_ALPHA))
    return total


def logarithm_(values: torch.Tensor) -> None:
    """Logarithms in the place of `values`."""
    if values.device.type == "cpu" and torch.get_num_threads() <= FEW_CORES and mkl_is_slow():
        np.log(values.numpy(), out=values.numpy())
    else:
        values.log_()


@cache
def mkl_is_slow() -> bool:
    """PyTorch may take logarithms by MKL, which on processors other than Intel's takes several times as long."""
    if not torch.backends.mkl.is_available():
        return False
    try:
        return "GenuineIntel" not in CPUINFO.read_text()
    except OSError:
        return "GenuineIntel" not in platform.processor()


def those_there(targets: torch.Tensor, step: int) -> list[torch.Tensor | None]:
    """For every `step` of the places of `targets` bool (n, P): which of them are not all false there, and some more, up
    to a multiple of 16, int64; None stands for all."""
    steps = F.pad(targets, (0, -targets.shape[1] % step)).unflatten(1, (-1, step))  # (n, steps, step)
    there = steps.byte().amax(2)  # (n, steps), which bool takes many times as long for
    counts = -(-there.count_nonzero(0) // ROWS) * ROWS
    order = there.argsort(0, descending=True).T.contiguous()  # (steps, n)
    return [some[:count] if count < len(some) else None for some, count in zip(order, counts.tolist(), strict=True)]


def mask_costs(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal and dice cost of giving each query of each layer each of n targets, (L, N, n) each.

    `logits` (L, N, P) and `targets` bool (n, ...) at the P places where masks are compared.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    count, (layers, queries, places) = len(targets), logits.shape
    # One more target is all ones, for the area of what is predicted; the others fill up.
    rows = torch.zeros(-(-(count + 1) // ROWS) * ROWS, places, dtype=torch.bool, device=logits.device)
    rows[:count].view(targets.shape).copy_(targets)
    rows[count] = True
    # A CPU gains from small blocks, an accelerator from large ones.
    on_cpu = logits.device.type == "cpu"
    at_once = ELEMENTS_AT_ONCE if on_cpu else 64 * ELEMENTS_AT_ONCE
    layers_at_once = min(layers, max(1, round(at_once / max(1, queries) / PLACES_AT_ONCE)))
    step = max(256, at_once // max(1, layers_at_once * queries) // ALIGNED * ALIGNED)
    # Masks are in one place: most parts of the image have few of them. To ask, an accelerator would have to wait.
    there = those_there(rows, step) if on_cpu else [None] * -(-places // step)
    wanted = [
        (some, (part if some is None else part[some]).to(wide))  # (m, P')
        for part, some in zip(rows.split(step, dim=1), there, strict=True)
    ]
    sums, constant = zip(*(sums_over(group, wanted, len(rows)) for group in logits.split(layers_at_once)), strict=True)
    sums, constant = torch.cat(sums), torch.cat(constant)  # (L, N, 2, more than n), (L, N)
    difference, overlap = sums.unbind(2)
    focal = (1 - FOCAL_ALPHA) * (constant[..., None] - difference[..., :count])
    areas = overlap[..., count, None] + rows[:count].sum(1)
    return focal / places, 1 - (2 * overlap[..., :count] + 1) / (areas + 1)


def sums_over(
    logits: torch.Tensor, wanted: list[tuple[torch.Tensor | None, torch.Tensor]], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `focal_terms` of `logits` (L, N, P) summed over each of `count` masks, (L, N, 2, count), and their sum of the
    loss if all targets were 0, which is no number if any logit is none or infinite, (L, N).

    `wanted` are the masks part by part: which ones (m,), None for all, and their zeros and ones (m, P').
    """
    kept, queries, step = logits.shape[:2], logits.shape[:2].numel(), wanted[0][1].shape[1]
    room = wanted[0][1].new_empty(3, queries * step)  # the same memory for all: new memory costs
    sums, constant = room.new_zeros(2 * queries, count), room.new_zeros(kept)
    terms = log = None
    for part, (some, masks) in zip(logits.split(step, dim=2), wanted, strict=True):
        if log is None or log.shape != part.shape:  # to make the same views again takes as long as to compute
            terms, log = room[:2].flatten()[: 2 * part.numel()], room[2, : part.numel()].view(part.shape)  # (L, N, P')
            # Both terms of a query lie together: so the core that computes them is the one that multiplies them, where
            # products are shared out by rows. From one core's cache to another's is a long way.
            terms = terms.view(*kept, 2, -1)  # (L, N, 2, P')
            flat = terms.flatten(0, 2)  # (L x N x 2, P'): one product for both
        constant += focal_terms(part, terms, log)
        if some is None:
            sums.addmm_(flat, masks.T)
        else:
            sums.index_add_(1, some, flat @ masks.T)  # (L x N x 2, m)
    return sums.view(*kept, 2, -1), constant


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
