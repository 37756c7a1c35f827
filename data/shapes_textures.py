"""How generated scenes look: patterns of the stuff, outlines and shading of the things, light and noise.

Lengths are in pixels of the scene unless a comment says otherwise; colours are planar, (3, H, W), RGB about 0 to 1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

STUFF_NAMES = ("grass", "water", "brick", "gravel")
# At this share of their radius two things of a class touch, about, whichever way they are turned.
THING_FULLNESS = {"ball": 1.0, "box": 0.8, "star": 0.75, "ring": 1.0}
THING_NAMES = tuple(THING_FULLNESS)

# Mean colours of the stuff. One class varies between scenes about as much as the classes differ (`paint_stuff`), so
# that the pattern tells the class and the colour only hints at it.
STUFF_COLORS = np.array([(0.40, 0.48, 0.31), (0.38, 0.46, 0.52), (0.54, 0.41, 0.36), (0.48, 0.45, 0.40)])
STAR_INNER_RADIUS = 0.55  # of the outer one
STAR_TIPS = tuple(2 * math.pi * tip / 5 for tip in range(5))  # angles
RING_INNER_RADIUS = 0.42  # of the outer one
OUTLINE_WIDTH = 1.6  # at 128 pixels a side, as is SHADOW_WIDTH
SHADOW_WIDTH = 3.0


@lru_cache(maxsize=64)
def _knots(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `length` pixels the knot to its left, of `count` evenly spaced ones, and how far on it is, 0 to 1."""
    position = np.linspace(0, count - 1, length, dtype=np.float32)
    left = np.minimum(position.astype(np.intp), count - 2)
    fraction = position - left.astype(np.float32)
    return left, fraction * fraction * (3 - 2 * fraction)


def smooth_field(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """A smooth random field (size, size): standard normal values on a coarse grid (rows, columns), interpolated."""
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    left, fraction = _knots(size, columns)
    wide = coarse[:, left] + fraction * np.diff(coarse)[:, left]  # (rows, size)
    top, fraction = _knots(size, rows)
    steps = np.diff(wide, axis=0)
    return wide[top] + fraction[:, None] * steps[top]  # (size, size)


def stuff_pattern(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """The pattern (size, size), about -1 to 1, of a stuff class; it scales with the size of the scene."""
    if name == "grass":  # upright streaks
        return np.clip(0.8 * smooth_field(rng, size, 12, 44), -1.3, 1.3)
    if name == "gravel":  # round blobs of two tones
        return np.clip(2 * smooth_field(rng, size, 24, 24), -0.9, 0.9)
    along = np.arange(size, dtype=np.float32) * (128 / size)
    if name == "water":  # level waves
        bend = rng.uniform(1.5, 3) * np.sin(along * (2 * math.pi / rng.uniform(24, 40)))
        return np.sin((along[:, None] + bend) * (2 * math.pi / rng.uniform(8, 11)))
    height, width = rng.uniform(8, 10), rng.uniform(15, 19)  # brick: courses with pale joints
    x, y = along + rng.uniform(0, 99), along + rng.uniform(0, 99)
    upright = np.stack([x, x + 0.5 * width]) % width < 2  # (2, size), of even and of odd courses
    joint = upright[(y / height).astype(int) % 2] | (y % height < 2)[:, None]  # (size, size)
    return np.where(joint, np.float32(1.3), np.float32(-0.5))


def paint_stuff(rng: np.random.Generator, regions: np.ndarray, label_ids: list[int]) -> np.ndarray:
    """The background (3, H, W); `regions` (H, W) indexes `label_ids`."""
    pattern = np.zeros(regions.shape, dtype=np.float32)
    colors = []
    for region, label_id in enumerate(label_ids):
        contrast = rng.uniform(0.16, 0.26)
        layer = 1 + contrast * stuff_pattern(rng, STUFF_NAMES[label_id], len(regions))
        np.copyto(pattern, layer, where=regions == region)
        colors.append(STUFF_COLORS[label_id] + rng.uniform(-0.1, 0.1) + rng.normal(0, 0.04, 3))
    return np.stack([np.take(channel, regions) * pattern for channel in np.float32(colors).T])  # (3, H, W)


def thing_distance(name: str, u: np.ndarray, v: np.ndarray, radius: float, aspect: float) -> np.ndarray:
    """Distance (negative inside) to the outline of a thing, at the points (u, v) of its own frame.

    `radius` is the largest distance of the outline from the centre; `aspect` is that of a box.
    """
    if name == "box":
        half = radius / math.hypot(1, aspect)
        return np.maximum(np.abs(u) - half, np.abs(v) - half * aspect)
    squared = u * u + v * v
    if name == "ball":
        return np.sqrt(squared) - radius
    if name == "ring":
        width = radius * (1 - RING_INNER_RADIUS) / 2
        return np.abs(np.sqrt(squared) - (radius - width)) - width
    along = np.max([math.cos(tip) * u + math.sin(tip) * v for tip in STAR_TIPS], axis=0)  # towards the nearest tip
    across = np.sqrt(np.maximum(squared - along * along, 0))
    edge = (STAR_INNER_RADIUS * math.cos(math.pi / 5) - 1, STAR_INNER_RADIUS * math.sin(math.pi / 5))
    return ((along - radius) * edge[1] - across * edge[0]) * (1 / math.hypot(*edge))


def thing_shading(name: str, u: np.ndarray, v: np.ndarray, radius: float, light: tuple[float, float]) -> np.ndarray:
    """Brightness factor of a thing's own texture at the points (u, v) of its frame, in which `light` is seen."""
    if name == "ball":  # a highlight towards the light
        squared = (u - 0.4 * radius * light[0]) ** 2 + (v - 0.4 * radius * light[1]) ** 2
        return np.maximum(1.35 - (0.5 / radius**2) * squared, 0.6)
    if name == "ring":  # a round tube
        middle, width = radius * (1 + RING_INNER_RADIUS) / 2, radius * (1 - RING_INNER_RADIUS) / 2
        return 1.25 - (0.5 / width**2) * (np.sqrt(u * u + v * v) - middle) ** 2
    if name == "box":  # planks
        return np.where(u * (3.5 / radius) % 2 < 1, np.float32(1.12), np.float32(0.82))
    side = np.prod([math.cos(tip) * v - math.sin(tip) * u for tip in STAR_TIPS], axis=0)
    return np.where(side < 0, np.float32(1.2), np.float32(0.8))  # star: facets


def paint_thing(patch: np.ndarray, distance: np.ndarray, shading: np.ndarray, color: np.ndarray, scale: float) -> None:
    """Paints a thing over `patch` (3, h, w) in place: a soft shadow around it, its body, a dark outline."""
    shadow = 0.35 * _saturate(1 - distance * (1 / (SHADOW_WIDTH * scale)))
    alpha = _saturate(0.5 - distance)  # the edge is one pixel soft
    body = alpha * shading * (1 - 0.65 * _saturate(0.5 + OUTLINE_WIDTH * scale + distance))
    patch *= (1 - shadow) * (1 - alpha)
    patch += color[:, None, None] * body  # (3, h, w)


def _saturate(values: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(values, 0), 1)  # faster than np.clip on small patches


def thing_color(rng: np.random.Generator, name: str) -> np.ndarray:
    """A random colour (3,); a class has nearly half of the circle of hues, so that most hues belong to two classes."""
    hue = 2 * math.pi * (THING_NAMES.index(name) / len(THING_NAMES) + rng.uniform(-0.22, 0.22))
    saturation, value = rng.uniform(0.35, 0.9), rng.uniform(0.65, 1)
    channels = [value * (1 - saturation * (0.5 - 0.5 * math.cos(hue - 2 * math.pi * third / 3))) for third in range(3)]
    return np.array(channels, dtype=np.float32)


def develop(rng: np.random.Generator, scene: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    """The photograph, uint8 (H, W, 3), of `scene`: light falling off along `light`, vignette, gain, cast, noise."""
    axis = np.linspace(-1, 1, scene.shape[1], dtype=np.float32)
    slope, vignette, gain = rng.uniform(0.05, 0.3), rng.uniform(0, 0.12), 255 * rng.uniform(0.9, 1.25)
    x, y = slope * light[0] * axis - vignette * axis**2, slope * light[1] * axis - vignette * axis**2
    falloff = gain * (1 + x[None, :] + y[:, None])
    image = scene * falloff
    image *= rng.uniform(0.92, 1.08, (3, 1, 1)).astype(np.float32)
    image += rng.uniform(10, 30) * (rng.random(scene.shape, dtype=np.float32) - 0.5)
    return np.stack(np.clip(image, 0, 255, out=image).astype(np.uint8), axis=-1)  # (H, W, 3)
