"""What tests of agreement with the official implementation share: its weights, its inputs, and how close is equal."""

from __future__ import annotations

import numpy as np
import torch

from maskformer.convert import from_official, to_official
from reference_inputs import blocky_image, blocky_labels, official_parameter

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
VOID = 255
FEATURES = (0, slice(3), 0, slice(3))  # the corner of features that is recorded


def fill_with_official_weights(model) -> dict[str, torch.Tensor]:
    """Loads the weights of the recorded runs into `model`, strictly; returns the official state dict."""
    official = to_official(model.state_dict(), model.config)
    for name, value in official.items():
        if not name.endswith(("relative_position_index", "empty_weight")):
            official[name] = torch.from_numpy(official_parameter(name, tuple(value.shape)))
    model.load_state_dict(from_official(official, model.config), strict=True)
    return official


def official_inputs(case: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The batch of a case on the official canvas: pixel values, pixel mask and labels (B, H, W)."""
    sizes, divisor = case["image_sizes"], case["size_divisor"]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    pixel_values = torch.zeros(len(sizes), 3, height, width)
    pixel_mask = torch.zeros(len(sizes), height, width, dtype=torch.int64)
    labels = torch.full((len(sizes), height, width), VOID)
    for index, (h, w) in enumerate(sizes):
        pixel_values[index, :, :h, :w] = (torch.from_numpy(blocky_image(index, h, w)).float() - MEAN) / STD
        pixel_mask[index, :h, :w] = 1
        labels[index, :h, :w] = torch.from_numpy(blocky_labels(index, h, w, case["num_labels"], VOID))
    return pixel_values, pixel_mask, labels


def official_gradients(model) -> dict[str, torch.Tensor]:
    """The gradients of `model` under their official names."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    ours = {
        name: torch.zeros_like(value) if value.grad is None else value.grad
        for name, value in tensors.items()
        if name in model.state_dict()
    }
    return to_official(ours, model.config)


def close(actual: torch.Tensor, expected: dict, corner: tuple) -> None:
    """The recorded facts of a tensor: within 2e-4 of its largest value, ten times its rounding."""
    tolerance = 2e-4 * expected["abs_max"]
    assert list(actual.shape) == expected["shape"]
    assert np.abs(actual[corner].detach().numpy() - np.array(expected["corner"])).max() < tolerance
    assert abs(actual.abs().max().item() - expected["abs_max"]) < tolerance
    assert abs(actual.mean().item() - expected["mean"]) < tolerance
    assert abs(actual.std().item() - expected["std"]) < tolerance


def close_scores(scores: torch.Tensor, expected: dict) -> None:
    """Semantic scores (K, H, W), and their labels to 0.2% of the pixels."""
    close(scores, expected, (slice(4), slice(5, 8), slice(5, 8)))
    counts = torch.bincount(scores.argmax(0).flatten(), minlength=len(scores))
    wanted = torch.zeros_like(counts)
    for label, count in expected["argmax_histogram"].items():
        wanted[int(label)] = count
    assert (counts - wanted).abs().max() <= 0.002 * counts.sum()
