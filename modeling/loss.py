"""The criterion: cross-entropy, focal and dice losses of matched predictions (section 3.3 and 4.1).

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, M matched pairs of all layers and
images.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch.nn import functional as F

from .mask_loss import focal_and_dice, focal_and_dice_at_points
from .matcher import match
from .point_sampling import PointSampling


def sum_over_processes(value: torch.Tensor) -> tuple[torch.Tensor, int]:
    """`value` summed over all processes of the job, and their number; itself and 1 where there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        return value, torch.distributed.get_world_size()
    return value, 1


def loss_normalizers(
    class_labels: list[torch.Tensor], num_queries: int, no_object_weight: float, device: torch.device
) -> dict[str, torch.Tensor]:
    """What the losses of a step are divided by, from the targets of all its images (`class_labels`, each (n_i,)).

    `num_masks` of the mask losses counts the targets, at least 1; `class_weight` of the cross-entropy is the weight of
    all queries, of which min(N, n_i) an image have a target, whatever the matching; 1 where nothing weighs anything,
    for want of targets and of a `no_object_weight`. Both are summed over the images of all processes and divided by the
    number of processes: the mean over processes of the gradients, as distributed training takes it, is then the
    gradient of one batch of all images.
    """
    targets = sum(map(len, class_labels))
    matched = sum(min(num_queries, len(labels)) for labels in class_labels)
    weight = matched + no_object_weight * (num_queries * len(class_labels) - matched)
    wide = torch.float32 if device.type == "mps" else torch.float64
    totals, processes = sum_over_processes(torch.tensor([targets, weight], dtype=wide, device=device))
    class_weight = torch.where(totals[1] > 0, totals[1], 1)
    return {"num_masks": totals[0].clamp(min=1) / processes, "class_weight": class_weight / processes}


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
    normalizers: dict[str, torch.Tensor] | None = None,
    points: PointSampling | None = None,
) -> dict[tuple[str, int], torch.Tensor]:
    """Unweighted losses of every layer, by (name, layer); names are `loss_ce`, `loss_mask` and `loss_dice`.

    `class_logits` (L, B, N, K+1) and `mask_logits` (L, B, N, h, w); for each image `mask_labels` bool (n_i, H, W) and
    `class_labels` int64 (n_i,). `weights` (class, focal, dice) are those of the matching cost only. Sums are divided by
    `normalizers`, by default those of this batch (`loss_normalizers`). Computed in float32 or wider.
    `canvas_size` (H, W) is that of `pixel_values`, by default that of the first image's masks. With `points`, masks are
    compared at sampled points instead of everywhere.

    Raises `ValueError` where targets do not fit (`check_targets`).
    """
    check_targets(class_logits, mask_labels, class_labels, canvas_size)
    device, (layers, _, queries, _) = mask_logits.device, class_logits.shape
    class_labels = [labels.to(device, torch.int64) for labels in class_labels]
    mask_labels = [masks.to(device, torch.bool) for masks in mask_labels]
    if normalizers is None:
        normalizers = loss_normalizers(class_labels, queries, no_object_weight, device)
    assignments = match(class_logits, mask_logits, class_labels, mask_labels, weights, points)
    rows, targets = pair_indices(assignments, class_labels, queries, device)
    with torch.autocast(device.type, enabled=False):
        wide = torch.promote_types(mask_logits.dtype, torch.float32)
        # Stored image by image; so this is a view, and the gradient of all layers is made once.
        predicted = mask_logits.transpose(0, 1).flatten(0, 2).index_select(0, rows).to(wide)  # (M, h, w)
        wanted = torch.cat(mask_labels)  # (sum of n_i, H, W)
        if points is None:
            focal, dice = focal_and_dice(predicted, wanted, targets)  # (M,) each
        else:
            focal, dice = focal_and_dice_at_points(predicted, wanted, targets, points)
        sums = {
            "loss_ce": cross_entropy_sums(class_logits, torch.cat(class_labels)[targets], rows, no_object_weight),
            "loss_mask": sum_by_layer(focal, assignments),
            "loss_dice": sum_by_layer(dice, assignments),
        }
        divisors = {"loss_ce": "class_weight", "loss_mask": "num_masks", "loss_dice": "num_masks"}
        losses = {name: total / normalizers[divisors[name]].to(total) for name, total in sums.items()}  # (L,) each
    return {(name, layer): losses[name][layer] for layer in range(layers) for name in losses}


def pair_indices(
    assignments: list, class_labels: list[torch.Tensor], num_queries: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The matched pairs of all images and layers as two index tensors (M,), in one transfer to `device`.

    The first counts predictions in the order (B, L, N), the second the targets of all images, one after another.
    """
    first = [0]
    for labels in class_labels:
        first.append(first[-1] + len(labels))
    pairs = [
        torch.stack([(image * len(assignments) + layer) * num_queries + queries, first[image] + targets])  # (2, m)
        for image in range(len(class_labels))
        for layer, (queries, targets) in enumerate(images[image] for images in assignments)
    ]
    return tuple(torch.cat(pairs, dim=1).to(device))


def sum_by_layer(values: torch.Tensor, assignments: list) -> torch.Tensor:
    """Values of all pairs (M,), in the order of `pair_indices`, to their sums (L,)."""
    layers = len(assignments)
    counts = [layers * len(queries) for queries, _ in assignments[0]]  # the same number of pairs in every layer
    return sum(
        part.view(layers, len(part) // layers).sum(1) for part in values.split(counts)
    )  # (L, pairs of an image) to (L,)


def cross_entropy_sums(
    class_logits: torch.Tensor, matched_labels: torch.Tensor, rows: torch.Tensor, no_object_weight: float
) -> torch.Tensor:
    """Weighted cross-entropy (L,) of `class_logits` (L, B, N, K+1), summed over images and queries.

    The predictions `rows` (M,) should have the `matched_labels` (M,), all others should say "no object".
    """
    layers, images, queries, classes = class_logits.shape
    target = class_logits.new_full((images * layers * queries,), classes - 1, dtype=torch.int64)  # (B * L * N,)
    target[rows] = matched_labels
    logits = class_logits.to(torch.promote_types(class_logits.dtype, torch.float32))
    weight = logits.new_ones(classes)
    weight[-1] = no_object_weight
    values = F.cross_entropy(logits.transpose(0, 1).flatten(0, 2), target, weight, reduction="none")  # (B * L * N,)
    return values.view(images, layers, queries).sum((0, 2))  # (L,)
