"""From predictions to answers: this package, transformers, and the official order of operations written plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F
from transformers import MaskFormerImageProcessor
from transformers.models.maskformer.modeling_maskformer import MaskFormerForInstanceSegmentationOutput

from maskformer import MaskFormerUniversalImageProcessor
from maskformer.benchmarks.alternating import Timing, alternate
from maskformer.benchmarks.memory import peak_memory

OURS, THEIRS, PLAIN = "this package", "transformers", "the official steps, plainly"
TASKS = ("semantic", "panoptic", "instance")


@dataclass(frozen=True)
class PostProcessCost:
    """Seconds, and bytes above what was there, by (task, way)."""

    timings: dict[tuple[str, str], Timing]
    memory: dict[tuple[str, str], int | None]


def predictions(
    size: tuple[int, int], num_labels: int, kept: int, queries: int = 100, device: str = "cpu"
) -> MaskFormerForInstanceSegmentationOutput:
    """Outputs for an image of `size` (height, width), a multiple of 32 each: `kept` queries have an area of their own.

    The others say "no object". Masks (1, N, H/4, W/4) are signed distances to the borders of the areas, as sharp as
    trained ones.
    """
    draw = np.random.default_rng(0)
    height, width = size[0] // 4, size[1] // 4
    rows, columns = (draw.integers(0, edge, kept)[:, None] for edge in (height, width))
    distance = ((np.arange(height) - rows) ** 2)[:, :, None] + ((np.arange(width) - columns) ** 2)[:, None]
    distance = np.sqrt(distance)  # (kept, H/4, W/4)
    nearest = np.sort(distance, axis=0)
    border = np.where(distance == nearest[0], nearest[1], nearest[0]) - distance  # (kept, H/4, W/4)
    masks = torch.randn(1, queries, height, width, generator=torch.Generator().manual_seed(0)) - 6
    masks[0, :kept] = torch.from_numpy(border).float().clamp(-8, 8)
    classes = torch.zeros(1, queries, num_labels + 1)
    classes[0, :kept].scatter_(1, torch.from_numpy(draw.integers(0, num_labels, (kept, 1))), 9.0)
    classes[0, kept:, -1] = 9.0
    return MaskFormerForInstanceSegmentationOutput(
        class_queries_logits=classes.to(device), masks_queries_logits=masks.to(device)
    )


def plain_semantic(outputs, canvas: tuple[int, int], image: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """The official semantic inference, every tensor whole: masks to the canvas, scores, the image's part, its size."""
    masks = F.interpolate(outputs.masks_queries_logits, size=canvas, mode="bilinear", align_corners=False)[0]
    classes = outputs.class_queries_logits[0].softmax(-1)[:, :-1]  # (N, K)
    scores = torch.einsum("nk,nhw->khw", classes, masks.sigmoid())  # (K, canvas)
    scores = scores[:, : image[0], : image[1]]
    scores = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]  # (K, H, W)
    return scores.argmax(0)


def answer_runs(
    task: str, canvas: tuple[int, int], size: tuple[int, int], num_labels: int, kept: int = 20, device: str = "cpu"
) -> dict[tuple[str, str], Callable]:
    """By (task, way), what answers `task` of TASKS for predictions on `canvas` at `size` (height, width each)."""
    outputs = predictions(canvas, num_labels, kept, device=device)
    keywords = {"target_sizes": [size]}
    if task != "semantic":
        keywords |= {"threshold": 0.5}
    if task == "panoptic":
        keywords |= {"label_ids_to_fuse": set(range(80, num_labels))}
    processors = {OURS: MaskFormerUniversalImageProcessor(), THEIRS: MaskFormerImageProcessor()}
    methods = {name: getattr(processor, f"post_process_{task}_segmentation") for name, processor in processors.items()}
    runs = {(task, name): partial(method, outputs, **keywords) for name, method in methods.items()}
    if task == "semantic":
        runs[task, PLAIN] = partial(plain_semantic, outputs, canvas, canvas, size)
    return runs


def measure_post_processing(
    runs: Sequence[dict[tuple[str, str], Callable]],
    rounds: int,
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> PostProcessCost:
    """Times the ways of each of `runs` in turns, one task after another, and then what memory they take.

    Not before: that changes what malloc does, and with it the times.
    """
    timings = {}
    for ways in runs:
        timings |= alternate(ways, rounds, device, progress)
    return PostProcessCost(timings, {way: peak_memory(run, device) for ways in runs for way, run in ways.items()})
