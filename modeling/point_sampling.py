"""Masks compared at sampled points instead of everywhere (PointRend, arXiv 1912.08193; Mask2Former, arXiv 2112.01527).

A point is a pixel of the canvas, drawn with replacement, and a prediction is read there as the loss of full resolution
reads it. So the focal loss at uniformly drawn points is that of full resolution in expectation, and targets, which stay
bool, are looked up. What is drawn depends on `torch.manual_seed` alone.

Shapes: M predicted masks of h x w, T target masks of H x W, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PointSampling:
    """How many points, and which: `oversample_ratio` times as many are drawn, of which the most uncertain become the
    share `importance_sample_ratio` of the points; the others are drawn anew."""

    num_points: int
    oversample_ratio: float
    importance_sample_ratio: float


def random_pixels(count: int, num_points: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """For each of `count` masks, `num_points` pixels of a canvas of `size` (H, W), counted row by row: (count, P)."""
    return torch.randint(size[0] * size[1], (count, num_points), device=device)


def read_predictions(mask_logits: torch.Tensor, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`mask_logits` (G, m, h, w) at pixels of the canvas, (G, P) shared by the m masks of a group: (G, m, P)."""
    height, width = size
    x, y = (pixels % width).to(mask_logits.dtype), (pixels // width).to(mask_logits.dtype)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)  # (G, P, 2), centres in [-1, 1]
    read = F.grid_sample(mask_logits, grid[:, None], padding_mode="border", align_corners=False)  # (G, m, 1, P)
    return read[:, :, 0]


def read_targets(targets: torch.Tensor, indices: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Bool `targets` (T, H, W), of which `indices` (m,) are meant, at their pixels (m, P): (m, P)."""
    return targets.flatten(1)[indices[:, None], pixels]


def training_pixels(mask_logits: torch.Tensor, size: tuple[int, int], sampling: PointSampling) -> torch.Tensor:
    """The pixels (m, P) where each of `mask_logits` (m, h, w) is trained, more of them where it is undecided."""
    count, device = len(mask_logits), mask_logits.device
    num_uncertain = int(sampling.importance_sample_ratio * sampling.num_points)
    candidates = random_pixels(count, int(sampling.oversample_ratio * sampling.num_points), size, device)
    logits = read_predictions(mask_logits[:, None], candidates, size)[:, 0]  # (m, candidates)
    undecided = logits.abs().topk(num_uncertain, dim=1, largest=False, sorted=False).indices  # (m, num_uncertain)
    others = random_pixels(count, sampling.num_points - num_uncertain, size, device)
    return torch.cat([candidates.gather(1, undecided), others], dim=1)  # (m, P)
