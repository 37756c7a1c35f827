"""The closed rules by which the recorded values of the official code were made: weights, images and targets.

Numbers come from numpy's legacy `RandomState`, whose streams never change.
"""

from __future__ import annotations

import zlib

import numpy as np


def official_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the entry `name` of an official state dict: float32 of `shape`."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    normal = random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if name.endswith("running_mean"):
        return normal * 0.1
    if name.endswith("running_var"):
        return np.tanh(normal) * 0.25 + 1.0
    if "query_embed" in name:
        return normal
    if "relative_position_bias_table" in name:
        return normal * 0.5
    if name.endswith("in_proj_weight") or "class_embed.weight" in name:
        return normal * np.float32(4.0 / np.sqrt(shape[1]))
    if len(shape) > 1:
        return normal * np.float32(1.0 / np.sqrt(np.prod(shape[1:])))
    if name.endswith("weight"):
        return normal * 0.1 + (0.3 if "conv3.norm" in name else 1.0)
    return normal * 0.05


def blocky_image(index: int, height: int, width: int) -> np.ndarray:
    """Image number `index`: uint8 (3, height, width), blocks of 8 pixels."""
    rows, columns = -(-height // 8), -(-width // 8)
    blocks = np.random.RandomState(1000 + index).randint(0, 256, (3, rows, columns)).astype(np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def blocky_labels(index: int, height: int, width: int, num_labels: int, ignore_index: int) -> np.ndarray:
    """Semantic labels number `index`: int64 (height, width), 4 x 4 blocks whose top eighth is ignored."""
    blocks = np.random.RandomState(2000 + index).randint(0, num_labels, (4, 4)).astype(np.int64)
    labels = blocks.repeat(-(-height // 4), axis=0).repeat(-(-width // 4), axis=1)[:height, :width].copy()
    labels[: height // 8] = ignore_index
    return labels
