"""Parts of training that transformers has too, each with the same input: matching, and the image processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from transformers import MaskFormerImageProcessor
from transformers.models.maskformer.modeling_maskformer import MaskFormerHungarianMatcher

from maskformer import MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil
from maskformer.benchmarks.metrics import random_segments
from maskformer.modeling.matcher import match

OURS, THEIRS = "this package", "transformers"
WEIGHTS = (1.0, 20.0, 1.0)  # of class, focal and dice cost


def matching_runs(
    device: str = "cpu", layers: int = 6, images: int = 4, queries: int = 100, masks: int = 60, size: int = 512
) -> dict[str, Callable]:
    """Matching of all layers' queries to rectangles in images of `size` pixels; nothing but the matching is timed."""
    torch.manual_seed(0)
    classes = torch.randn(layers, images, queries, 134, device=device)
    logits = torch.randn(layers, images, queries, size // 4, size // 4, device=device)
    wanted = torch.zeros(images, masks, size, size, dtype=torch.bool)
    for image in wanted:
        for mask, (top, left) in zip(image, torch.randint(size // 2, (masks, 2)).tolist(), strict=True):
            mask[top : top + size // 3, left : left + size // 3] = True
    wanted = list(wanted.to(device))
    labels = list(torch.randint(133, (images, masks), device=device))
    theirs = MaskFormerHungarianMatcher(*WEIGHTS)
    as_floats = [mask.float() for mask in wanted]

    def layer_by_layer():
        return [theirs(logits[layer], classes[layer], as_floats, labels) for layer in range(layers)]

    return {OURS: partial(match, classes, logits, labels, wanted, WEIGHTS), THEIRS: layer_by_layer}


def image_processor_runs(size: tuple[int, int] = (512, 683), segments: int = 20) -> dict[str, Callable]:
    """An image of 640 x 853 pixels and its map of segments to `size` and training labels."""
    height, width = 640, 853
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    segmentation, labels = random_segments((height, width), segments, 133)  # (H, W), ids from 1
    labels = dict(enumerate(labels.tolist(), start=1))
    edges = {"shortest_edge": size[0], "longest_edge": 2048}
    ours, ours_pil = MaskFormerUniversalImageProcessor(size=edges), MaskFormerUniversalImageProcessorPil(size=edges)
    theirs = MaskFormerImageProcessor(size=edges, ignore_index=255)

    def run(processor):
        maps = {"segmentation_maps": segmentation.astype(np.int32), "instance_id_to_semantic_id": labels}
        return processor(images=image, **maps, return_tensors="pt")

    return {OURS: partial(run, ours), f"{OURS}, PIL": partial(run, ours_pil), THEIRS: partial(run, theirs)}


PARTS = {
    "matching": ("6 layers x 4 images x 100 queries x 60 masks", matching_runs),
    "image processor": ("one image with its training labels", lambda device: image_processor_runs()),
}
