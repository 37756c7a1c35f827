"""Images of any mode and memory order, and what they are in RGB."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from PIL import Image

MODES = ("L", "RGB", "RGBA", "LA", "P", "P transparent", "1", "I;16", "I;16B", "I", "F")
edges = st.one_of(st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 5, 40, 90]))
sizes = st.tuples(edges, edges)


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)  # (H, W, 3)


def pil_image(draw, size: tuple[int, int], mode: str) -> tuple[Image.Image, np.ndarray]:
    """An image of a mode of PIL, and what it is in RGB."""
    values = draw.integers(0, 256, (*size, 4)).astype(np.uint8)
    if mode.startswith("P"):
        palette = draw.integers(0, 256, (256, 3)).astype(np.uint8)
        image = Image.fromarray(values[..., 0], "L").copy()
        image.putpalette(palette.tobytes())
        if "transparent" in mode:
            image.info["transparency"] = bytes(draw.integers(0, 256, 256).astype(np.uint8))
        return image, palette[values[..., 0]]
    if mode == "1":
        return Image.fromarray(values[..., 0] > 99), gray(np.where(values[..., 0] > 99, 255, 0))
    if mode.startswith("I") or mode == "F":
        wide = draw.integers(0, 65536, size)
        wide.flat[0] = 65535
        types = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
        image = Image.frombytes(mode, size[::-1], wide.astype(types[mode]).tobytes())
        return image, gray(wide.clip(0, 255) if mode == "F" else np.round(wide / 257))
    channels = len(mode)
    pixels = values[..., :channels] if channels > 1 else values[..., 0]
    return Image.fromarray(pixels, mode), values[..., :3] if channels >= 3 else gray(values[..., 0])


def any_strides(draw, array: np.ndarray) -> np.ndarray:
    """The same values in memory of another order: backwards, every second place, read-only."""
    kind = draw.integers(4)
    if kind == 0:
        array = np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    elif kind == 1:
        array = np.repeat(array, 2, axis=1)[:, ::2]
    elif kind == 2:
        array = np.asfortranarray(array)
    else:
        array.flags.writeable = False
    return array
