"""Planes: segments that may overlap, as few maps of segment ids."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def pack(masks: Iterable[tuple[int, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Maps of the segment ids of `masks`, pairs of an id (1 or more, each once) and a bool (H, W); `shape` is (H, W).

    int32 (H, W) where no two masks overlap, and otherwise (P, H, W): each id stands whole in exactly one of the P
    planes, the first in which its pixels were free when its turn came. Masks without a pixel are left out.
    """
    planes: list[np.ndarray] = []
    for segment, mask in masks:
        rows = np.flatnonzero(mask.any(axis=1))
        if not len(rows):
            continue
        columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
        # Masks are small beside their image: only their bounding box is looked at, in every plane.
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = mask[box]
        plane = next((plane for plane in planes if not (plane[box].astype(bool) & part).any()), None)
        if plane is None:
            plane = np.zeros(shape, dtype=np.int32)
            planes.append(plane)
        plane[box][part] = segment
    if len(planes) > 1:
        return np.stack(planes)  # (P, H, W)
    return planes[0] if planes else np.zeros(shape, dtype=np.int32)  # (H, W)
