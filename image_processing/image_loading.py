"""Any image, from a file or in memory, as RGB."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps


def formats() -> tuple[str, ...]:
    """The formats of PIL and its plugins but EPS, which it has Ghostscript run as a program."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def open_image(file: str | os.PathLike | IO[bytes]) -> Image.Image:
    """PIL's image of `file`, of which the header alone is read yet."""
    return Image.open(file, formats=formats())


def load_image(path: str | os.PathLike) -> np.ndarray:
    """The image in the file `path`, as uint8 (H, W, 3) RGB, upright (see `to_rgb`).

    Raises `ValueError` naming the file if it is missing, no image, or damaged.
    """
    try:
        with open_image(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such image file") from None
    except Exception as error:  # the decoders of damaged files raise a dozen different kinds
        raise ValueError(f"{path}: not a readable image ({error})") from error


def to_rgb(image: Image.Image | np.ndarray | torch.Tensor, channels_first: bool | None = None) -> np.ndarray:
    """`image` as RGB (H, W, 3): uint8, or float32 for arrays and tensors of floats, whose values stay as they are.

    PIL images are turned upright as their EXIF orientation says; palettes are looked up and alpha is dropped, as
    PIL's `convert("RGB")` does. 16-bit images are scaled to 8 bits (65535 becomes 255), one-bit images to 0 and 255.
    Integers wider than 8 bits count as 16-bit if they are uint16 or exceed 255.
    Arrays and tensors are (H, W), or have 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA) channels. Where both ends of
    the shape could be the channels, arrays are taken as (H, W, C) and tensors as (C, H, W); `channels_first` decides
    otherwise. Raises `TypeError` for anything else than an image and `ValueError` for a shape or values that are none.
    """
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image)
    if isinstance(image, torch.Tensor):
        image = image.float() if image.is_floating_point() else image
        array, tensor_like = image.numpy(force=True), True
    elif isinstance(image, np.ndarray):
        array, tensor_like = image, False
    else:
        raise TypeError(f"an image must be a PIL image, an array or a tensor, not {type(image).__name__}")
    array = _to_8_bit(_channels_last(array, channels_first, tensor_like))  # (H, W, C)
    return array[..., :3] if array.shape[-1] >= 3 else array[..., :1].repeat(3, axis=-1)  # (H, W, 3)


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode as uint8 (H, W, 3)."""
    if 0 in image.size:
        raise ValueError(f"an image must have a pixel, not the size {image.width}x{image.height} (width x height)")
    image = _upright(image)
    if image.mode.startswith("I"):  # I;16 and its byte orders, and I, as which 16-bit files were long opened
        return _to_8_bit(np.asarray(image))[..., None].repeat(3, axis=-1)  # (H, W, 3)
    if image.mode == "F":
        values = np.asarray(image)
        if 0 < values.max() <= 1:
            raise ValueError("its floats lie in 0 to 1 and would become black; save them as 0 to 255")
        gray = values.clip(0, 255).round().astype(np.uint8)
        return gray[..., None].repeat(3, axis=-1)  # (H, W, 3)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns when it has to skip this step
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """`image` with its EXIF orientation applied; damaged EXIF data count as none."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # whatever a damaged block makes the parser raise, the pixels are fine
        orientation = 1
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _channels_last(array: np.ndarray, channels_first: bool | None, tensor_like: bool) -> np.ndarray:
    """An image array of any layout as (H, W, C)."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an image must have shape (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    if array.ndim == 2:
        return array[..., None]  # (H, W, 1)
    if channels_first is None:
        first, last = array.shape[0] <= 4, array.shape[-1] <= 4
        channels_first = first and (tensor_like or not last)
    array = array.transpose(1, 2, 0) if channels_first else array  # (H, W, C)
    if array.shape[-1] > 4:
        raise ValueError(
            f"an image must have 1 to 4 channels, not {array.shape[-1]} (shape {array.shape} as (H, W, C))"
        )
    return array


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    """Integers and booleans as uint8, floats as float32."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iu":
        raise ValueError(f"an image must hold integers, floats or booleans, not {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ValueError(f"an image of integers must lie in 0 to 255 or 0 to 65535, not in {low} to {high}")
    is_16_bit = high > 255 or array.dtype.itemsize == 2 and array.dtype.kind == "u"
    return ((array.astype(np.int64) + 128) // 257 if is_16_bit else array).astype(np.uint8)
