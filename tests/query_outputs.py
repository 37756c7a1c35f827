"""Outputs of a model, made by hand or from the reference's closed rule, for tests of post-processing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import fixture
from maskformer.image_processing.image_prediction import ImagePrediction

CASES = fixture("postprocess")["cases"]
BIG = 20.0  # a logit whose sigmoid or softmax is 0 or 1 to 1e-8


def query_logits(
    seed: int, num_queries: int, num_labels: int, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits (N, K+1) and smooth mask logits (N, *size) from numpy's frozen generator."""
    random = np.random.RandomState(seed)
    classes = torch.from_numpy(3 * random.standard_normal((num_queries, num_labels + 1))).float()
    classes[:, -1] += 7
    coarse = torch.from_numpy(random.standard_normal((num_queries, 5, 6))).float() * 12 - 6
    return classes, bilinear(coarse, size)


def bilinear(x: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(x[None], size=tuple(size), mode="bilinear", align_corners=False)[0]  # (C, *size)


def pixel_mask(canvas, *image_sizes) -> torch.Tensor:
    mask = torch.zeros(len(image_sizes), *canvas, dtype=torch.int64)
    for one, (height, width) in zip(mask, image_sizes, strict=True):
        one[:height, :width] = 1
    return mask


def outputs_of(classes, masks, mask=None):
    """A batch of one image, or of several where the tensors have a batch axis."""
    if classes.ndim == 2:
        classes, masks = classes[None], masks[None]
    return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, pixel_mask=mask)


def reference_case(case):
    classes, masks = query_logits(case["seed"], case["num_queries"], case["num_labels"], case["mask_size"])
    return outputs_of(classes, masks, pixel_mask(case["canvas_size"], case["image_size"]))


def binary_outputs(labels, masks, num_labels=4, confidence=BIG):
    """Queries that are sure of `labels` and of the binary `masks` (N, H, W), on a canvas of the masks' own size.

    `confidence` is the margin of each class logit; a number or one a query.
    """
    masks = torch.as_tensor(np.asarray(masks))
    classes = torch.zeros(len(labels), num_labels + 1)
    classes[range(len(labels)), labels] = torch.as_tensor(confidence, dtype=torch.float32)
    logits = torch.where(masks.bool(), BIG, -BIG)
    return outputs_of(classes, logits, pixel_mask(masks.shape[-2:], masks.shape[-2:]))


def confidence_for(probability: float, num_labels: int = 4) -> float:
    """The class logit margin at which softmax over K + 1 gives `probability`."""
    return float(np.log(probability * num_labels / (1 - probability)))


def rectangle(size, top, bottom, left, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def plain_scores(p: ImagePrediction, first: bool) -> torch.Tensor:
    """Semantic scores by whole tensors, step by step."""

    def combine(masks):
        if p.class_logits is None:
            return masks
        return torch.einsum("nk,nhw->khw", p.class_logits.softmax(-1)[:, :-1], masks.sigmoid())

    height, width = p.image_size
    on_canvas = bilinear(p.mask_logits, p.canvas_size)
    if first:
        return combine(bilinear(on_canvas[:, :height, :width], p.output_size))
    return bilinear(combine(on_canvas)[:, :height, :width], p.output_size)


def enlarged(p: ImagePrediction) -> torch.Tensor:
    """All masks as probabilities at the output's size."""
    on_canvas = bilinear(p.mask_logits, p.canvas_size)[:, : p.image_size[0], : p.image_size[1]]
    return bilinear(on_canvas, p.output_size).sigmoid()  # (N, H, W)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any tensor made within has had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result
