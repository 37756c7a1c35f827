"""Colour and light of 8-bit RGB images: SSD's jitter (arXiv 1512.02325, section 2.2), and stray light."""

from __future__ import annotations

import numpy as np
from PIL import Image

BRIGHTNESS = 32
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180  # as a share of the colour circle
STRAY_LIGHT = 64  # what the brightest patch adds at its centre


def jitter_color(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) with random brightness, contrast, saturation and hue, each with probability a half.

    Contrast comes either before saturation and hue or after them.
    """
    if random.random() < 0.5:
        image = scale_and_shift(image, 1.0, random.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast = random.uniform(*CONTRAST) if random.random() < 0.5 else 1.0
    contrast_first = random.random() < 0.5
    if contrast_first:
        image = scale_and_shift(image, contrast, 0.0)
    saturation = random.uniform(*SATURATION) if random.random() < 0.5 else 1.0
    hue = random.uniform(-HUE, HUE) if random.random() < 0.5 else 0.0
    if saturation != 1.0 or hue != 0.0:
        image = shift_hue_and_saturation(image, saturation, hue)
    return image if contrast_first else scale_and_shift(image, contrast, 0.0)


def scale_and_shift(image: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """`image * scale + shift`, clipped to 8 bits."""
    if scale == 1.0 and shift == 0.0:
        return image
    values = (np.arange(256) * scale + shift).clip(0, 255).astype(np.uint8)
    return values[image]


def shift_hue_and_saturation(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """`image` with its saturation scaled and its hue turned by `hue` of the circle."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] = hsv[..., 0] + np.uint8(round(hue * 256) % 256)  # wraps around, as hues do
    hsv[..., 1] = scale_and_shift(hsv[..., 1], saturation, 0.0)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))


def add_stray_light(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) with, half of the time, a patch of light added: a white Gaussian, in it or beside it.

    Its centre lies up to half a side outside, its standard deviation is 1/4 to 1 of the longest side, and it adds up to
    64 at its centre. For images with a dark ground, as of fluorescence microscopes, where what lies out of focus glows.
    """
    if random.random() < 0.5:
        return image
    height, width = image.shape[:2]
    row, column = random.uniform(-0.5, 1.5) * height, random.uniform(-0.5, 1.5) * width
    deviation = random.uniform(0.25, 1.0) * max(height, width)
    rows = np.exp(-((np.arange(height) - row) ** 2) / (2 * deviation**2))
    columns = np.exp(-((np.arange(width) - column) ** 2) / (2 * deviation**2))
    light = random.uniform(0, STRAY_LIGHT) * np.outer(rows, columns)  # (H, W)
    return (image + light[..., None]).round().clip(0, 255).astype(np.uint8)
