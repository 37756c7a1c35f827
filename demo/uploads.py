"""Images from strangers: what is accepted, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskformer.image_processing.image_loading import to_rgb

# PIL knows more formats, some of which start other programs (EPS) or are seldom tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
FORMAT_NAMES = "JPEG, PNG, WebP, BMP, TIFF or GIF"
MOST_PIXELS = 50_000_000  # of a file; phones take up to 50
LONGEST_EDGE = 1600  # pixels of an image as it is answered and shown


def read_image(path: str | Path) -> np.ndarray:
    """The image in a file, upright, as uint8 (H, W, 3) RGB; larger ones are shrunk to `LONGEST_EDGE`.

    Raises `ValueError` without the path, which is the server's, where the file holds no image, a damaged one, another
    format or too many pixels. Their number is checked before any is decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise _Refused(
                    f"the image has {width} x {height} pixels, more than {MOST_PIXELS / 1e6:g} million; "
                    "use a smaller one"
                )
            image.load()
            pixels = _as_rgb(image)
    except UnidentifiedImageError:
        raise ValueError(f"the file is no image that can be read here; give it as {FORMAT_NAMES}") from None
    except Image.DecompressionBombError:
        raise ValueError(f"the image has more than {MOST_PIXELS / 1e6:g} million pixels; use a smaller one") from None
    except _Refused as error:
        raise ValueError(str(error)) from error.__cause__
    except Exception as error:  # the decoders of damaged files raise a dozen different kinds
        reason = str(error).replace(str(path), "file")
        raise ValueError(f"the image is damaged ({reason}); save it again, or use another") from error
    return _shrunk(pixels)


class _Refused(Exception):
    """What is wrong with an image that is whole."""


def _as_rgb(image: Image.Image) -> np.ndarray:
    try:
        return to_rgb(image)
    except ValueError as error:
        raise _Refused(str(error)) from error


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) whose longer edge is at most `LONGEST_EDGE`."""
    factor = LONGEST_EDGE / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (max(1, round(edge * factor)) for edge in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3))
