"""COCO's two ways of writing a mask: polygons, and run lengths that go down the columns (RLE)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

SMALLEST = 6  # numbers of a polygon: three points


def polygons_mask(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> np.ndarray:
    """The pixels in any of the `polygons`, each x0, y0, x1, y1 ... in pixels; bool `shape` (H, W), as COCO fills them.

    Raises `ValueError` for polygons that are none, or lie far outside of the image.
    """
    height, width = shape
    for index, polygon in enumerate(polygons):
        if len(polygon) < SMALLEST or len(polygon) % 2:
            raise ValueError(
                f"polygon {index} has {len(polygon)} numbers; a polygon is x and y of at least three points"
            )
        # Comparing is false for NaN. What lies far outside would take memory as large as its outline is long.
        x, y = np.array(polygon).reshape(-1, 2).T  # (2, points)
        if not ((abs(x) <= 2 * width).all() and (abs(y) <= 2 * height).all()):
            raise ValueError(
                f"polygon {index} reaches from ({x.min()}, {y.min()}) to ({x.max()}, {y.max()}), outside of the image"
                f" of {width} x {height} pixels"
            )
    if max(width, height) > 1 and max(max(polygon) for polygon in polygons) <= 1:
        raise ValueError("no coordinate is above 1; they must be pixels, not fractions of the image")
    runs = coco_mask.merge(coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width))
    return run_lengths_mask(read_run_lengths(runs["counts"].decode()), runs["size"], shape)


def run_lengths_mask(counts: Sequence[int], size: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """The mask of RLE `counts`: runs of pixels outside and inside in turn, down the columns; bool `shape` (H, W).

    `size` is what the RLE says of (H, W). Raises `ValueError` where that is another, or is not what the runs fill.
    """
    if tuple(size) != shape:
        raise ValueError(f"its RLE has the size {list(size)}, but the image has {list(shape)}; both are height, width")
    runs, pixels = np.array(counts, dtype=np.int64), shape[0] * shape[1]
    # The largest run first, since a sum of large ones may overflow.
    if (runs < 0).any() or runs.max(initial=0) > pixels or runs.sum() != pixels:
        raise ValueError(f"its RLE does not decode: the runs must fill the {pixels} pixels of {list(shape)}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(shape[1], shape[0]).T  # (H, W)


def read_run_lengths(text: str) -> list[int]:
    """The counts of a compressed RLE, as COCO writes them: a run, or its difference from the last but one.

    A number is spread over characters from "0" on, lowest first, with five bits each and a sixth that says that it goes
    on; the last one's fifth bit is the sign. Raises `ValueError` for text that is none. (pycocotools reads such text
    too, but gives unrelated memory as a mask.)
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError(f"its RLE does not decode: {character!r} cannot stand there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its RLE does not decode: it ends within a number")
    return counts
