"""What a training step costs in memory and time, with several ways to compute the same loss.

A step is forward pass, loss and backward pass; the optimiser is left out, being the same for all. Each measurement has
a process of its own, so that none inherits another's memory.

Peak memory is what the process holds at most beyond what it held before the step: the model, not its gradients.

Shapes: L decoder layers, B images, N queries, K classes, n_i targets of image i, M matched pairs of a layer.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig
from maskformer.benchmarks.memory import peak_memory
from maskformer.benchmarks.peers import transformers_model

LOSSES = {
    "none": "the sum of all outputs",
    "plain": "the official formulas, everything kept",
    "lean": "this package's, at full resolution",
    "points": "this package's, at sampled points",
    "transformers": "transformers' own model and loss, with the same weights",
}
NUM_POINTS = 12544  # as Mask2Former trains


@dataclass(frozen=True)
class Step:
    """What is measured: a `loss` of LOSSES, with or without activation checkpointing."""

    config: MaskFormerUniversalConfig
    loss: str
    checkpointing: bool
    image_size: int
    batch_size: int
    num_masks: int
    device: str


@dataclass(frozen=True)
class StepCost:
    """Bytes above the model, None where they cannot be told, and seconds."""

    peak_memory: int | None
    seconds: float


def measure_steps(steps: list[Step], rounds: int, progress=lambda steps: steps) -> list[StepCost]:
    """Medians over `rounds`, in each of which all steps have their turn. `progress` may wrap the sequence of steps."""
    costs: dict[int, list[StepCost]] = {index: [] for index in range(len(steps))}
    order = [index for _ in range(rounds) for index in range(len(steps))]
    for index in progress(order):
        # A process each: what a library or an allocator keeps would count for the next one.
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            costs[index].append(pool.submit(measure_step, steps[index]).result())
    return [
        StepCost(
            None if found[0].peak_memory is None else int(statistics.median(cost.peak_memory for cost in found)),
            statistics.median(cost.seconds for cost in found),
        )
        for found in costs.values()
    ]


def measure_step(step: Step, repeats: int = 2) -> StepCost:
    """One step in this process, after one that is not counted; the time is the least of `repeats`."""
    torch.manual_seed(0)
    config = copy.deepcopy(step.config)
    config.train_num_points = NUM_POINTS if step.loss == "points" else None
    model = MaskFormerForUniversalSegmentation(config).to(step.device).train()
    if step.checkpointing:
        model.activation_checkpointing_enable()
    if step.loss == "transformers":
        model = transformers_model(model, training=True).to(step.device).train()
    batch = make_batch(step, config.num_labels)

    def run() -> float:
        model.zero_grad(set_to_none=True)
        began = time.perf_counter()
        training_loss(model, batch, step.loss).backward()
        if step.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    run()
    seconds = min(run() for _ in range(repeats))
    model.zero_grad(set_to_none=True)
    gc.collect()
    return StepCost(peak_memory(run, step.device), seconds)


def make_batch(step: Step, num_labels: int) -> dict:
    """Noise, and rectangles as targets: the numbers do not matter for the cost."""
    size, device = step.image_size, step.device
    corners = torch.randint(size // 2, (step.batch_size, step.num_masks, 2)).tolist()
    masks = torch.zeros(step.batch_size, step.num_masks, size, size, dtype=torch.bool)
    for image, boxes in enumerate(corners):
        for mask, (top, left) in enumerate(boxes):
            masks[image, mask, top : top + size // 2, left : left + size // 2] = True
    return {
        "pixel_values": torch.randn(step.batch_size, 3, size, size, device=device),
        "mask_labels": list(masks.to(device)),
        "class_labels": list(torch.randint(num_labels, (step.batch_size, step.num_masks), device=device)),
    }


def training_loss(model: MaskFormerForUniversalSegmentation, batch: dict, name: str) -> torch.Tensor:
    """The loss of LOSSES that `name` says."""
    if name in ("lean", "points"):
        return model(**batch).loss
    if name == "transformers":
        masks = [masks.float() for masks in batch["mask_labels"]]
        return model(**batch | {"mask_labels": masks}, output_hidden_states=True).loss
    outputs = model(batch["pixel_values"])
    layers = [(outputs.class_queries_logits, outputs.masks_queries_logits)]
    layers += [(aux["class_queries_logits"], aux["masks_queries_logits"]) for aux in outputs.auxiliary_logits]
    if name == "none":
        return sum(classes.sum() + masks.sum() for classes, masks in layers)
    return sum(plain_loss(*layer, batch["class_labels"], batch["mask_labels"], model.config) for layer in layers)


def plain_loss(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    class_labels: list[torch.Tensor],
    mask_labels: list[torch.Tensor],
    config: MaskFormerUniversalConfig,
) -> torch.Tensor:
    """Section 3.3 word by word, for one layer: `class_logits` (B, N, K+1), `mask_logits` (B, N, h, w)."""
    pairs = [
        plain_matching(*image, config)
        for image in zip(class_logits, mask_logits, class_labels, mask_labels, strict=True)
    ]
    wanted_classes = torch.full(class_logits.shape[:2], config.num_labels, device=class_logits.device)  # (B, N)
    for image, (queries, targets) in enumerate(pairs):
        wanted_classes[image, queries] = class_labels[image][targets]
    weight = class_logits.new_ones(config.num_labels + 1)
    weight[-1] = config.no_object_weight
    cross_entropy = F.cross_entropy(class_logits.transpose(1, 2), wanted_classes, weight)

    predicted = torch.cat([masks[queries] for masks, (queries, _) in zip(mask_logits, pairs, strict=True)])  # (M, h, w)
    wanted = torch.cat([masks[targets] for masks, (_, targets) in zip(mask_labels, pairs, strict=True)])  # (M, H, W)
    wanted = wanted.to(predicted).flatten(1)  # (M, H * W)
    size = mask_labels[0].shape[-2:]
    predicted = F.interpolate(predicted[:, None], size=size, mode="bilinear").flatten(1)  # (M, H * W)
    probability = predicted.sigmoid()
    right = probability * wanted + (1 - probability) * (1 - wanted)
    alpha = 0.25 * wanted + 0.75 * (1 - wanted)
    focal = alpha * F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none") * (1 - right) ** 2
    dice = 1 - (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)
    num_masks = max(1, sum(map(len, class_labels)))
    masks = config.mask_weight * focal.mean(1).sum() + config.dice_weight * dice.sum()
    return config.class_weight * cross_entropy + masks / num_masks


@torch.no_grad()
def plain_matching(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor, config
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cheapest assignment of one image: `class_logits` (N, K+1), `mask_logits` (N, h, w), `masks` (n, H, W)."""
    wanted = F.interpolate(masks[:, None].to(mask_logits), size=mask_logits.shape[-2:], mode="nearest")
    predicted, wanted = mask_logits.flatten(1), wanted.flatten(1)  # (N, h * w), (n, h * w)
    probability = predicted.sigmoid()
    if_one = 0.25 * (1 - probability) ** 2 * F.softplus(-predicted)
    if_zero = 0.75 * probability**2 * F.softplus(predicted)
    focal = (if_one @ wanted.T + if_zero @ (1 - wanted).T) / wanted.shape[1]  # (N, n)
    areas = probability.sum(1)[:, None] + wanted.sum(1)
    dice = 1 - (2 * probability @ wanted.T + 1) / (areas + 1)
    classes = -class_logits.softmax(-1)[:, labels]
    cost = config.mask_weight * focal + config.class_weight * classes + config.dice_weight * dice
    return tuple(map(torch.as_tensor, linear_sum_assignment(cost.cpu())))
