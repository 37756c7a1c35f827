"""Generated scenes with exact panoptic truth: touching things of four shapes on stuff of four textures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import datasets
import numpy as np

from .label_set import LabelSet
from .shapes_textures import (
    SHADOW_WIDTH,
    STUFF_NAMES,
    THING_FULLNESS,
    THING_NAMES,
    develop,
    paint_stuff,
    paint_thing,
    smooth_field,
    thing_color,
    thing_distance,
    thing_shading,
)

_COLORS = {
    "grass": (104, 159, 56),
    "water": (66, 135, 200),
    "brick": (176, 84, 62),
    "gravel": (140, 136, 128),
    "ball": (250, 190, 50),
    "box": (232, 112, 30),
    "star": (225, 60, 150),
    "ring": (110, 60, 190),
}
_NAMES = STUFF_NAMES + THING_NAMES
SHAPES_LABELS = LabelSet(
    names=_NAMES,
    colors=tuple(_COLORS[name] for name in _NAMES),
    is_thing=tuple(name in THING_NAMES for name in _NAMES),
    source_ids=tuple(range(len(_NAMES))),
)

SMALLEST_SCENE = 32  # pixels a side
SPLITS = ("train", "validation")
NUM_THINGS = (3, 12)  # mostly 3 to 7
# Lengths and areas are those at 128 pixels a side and grow with the scene.
DIAMETERS = (14.0, 56.0)
MIN_VISIBLE_PIXELS = 24
MIN_VISIBLE_FRACTION = 0.6


def load_shapes(split: str, num_scenes: int, size: int = 128, seed: int = 0) -> datasets.Dataset:
    """The first `num_scenes` scenes of a split; the table holds indices only, a row is rendered when it is read.

    Raises `ValueError` if `split` is neither "train" nor "validation", or a number is out of range.
    """
    _check(split, size, seed)
    if num_scenes < 1:
        raise ValueError(f"num_scenes is {num_scenes}; at least 1 is needed")
    table = datasets.Dataset.from_dict({"index": range(num_scenes)})
    return table.with_transform(_RenderRows(split, size, seed))


def render_scene(split: str, index: int, size: int = 128, seed: int = 0) -> dict:
    """Scene number `index` of a split, the same on every call: a decoded example.

    `image` uint8 (size, size, 3) RGB; `segmentation` int32 (size, size), segment ids 1, 2, ... and no void;
    `segments_info`, stuff first, with `id`, `label_id` (of `SHAPES_LABELS`) and `iscrowd` 0; `image_id`.
    Every scene of every split has a random stream of its own. Raises `ValueError` as `load_shapes` does.
    """
    _check(split, size, seed)
    if index < 0:
        raise ValueError(f"index is {index}; scenes are counted from 0")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))
    scene = _Scene(rng, size)
    scene.add_things(min(NUM_THINGS[0] + int(rng.poisson(1.7)), NUM_THINGS[1]))
    return {
        "image": develop(rng, scene.image, scene.light),
        "segmentation": scene.segmentation,
        "segments_info": [
            {"id": number, "label_id": label_id, "iscrowd": 0} for number, label_id in enumerate(scene.label_ids, 1)
        ],
        "image_id": f"{split}_{index:06d}",
    }


@dataclass(frozen=True)
class _RenderRows:
    """The transform of a table of indices; a class, so that it can be sent to the workers of a data loader."""

    split: str
    size: int
    seed: int

    def __call__(self, rows: dict) -> dict:
        examples = [render_scene(self.split, index, self.size, self.seed) for index in rows["index"]]
        return {key: [example[key] for example in examples] for key in examples[0]}


@dataclass(frozen=True)
class _Thing:
    """A thing and its place, in pixels of the scene."""

    name: str
    x: float
    y: float
    radius: float
    angle: float
    aspect: float


class _Scene:
    """A scene in the making: the planar image, the segment ids, and the label of segment `i` in `label_ids[i - 1]`."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.rng, self.size, self.scale = rng, size, size / 128
        bearing = rng.uniform(0, 2 * math.pi)
        self.light = (math.cos(bearing), math.sin(bearing))
        regions, self.label_ids = _divide(rng, size)
        self.image = paint_stuff(rng, regions, self.label_ids)  # (3, size, size)
        self.segmentation = regions + np.int32(1)
        self.areas = np.bincount(self.segmentation.ravel())  # of each segment, by id, before others covered it
        self.visible = self.areas.copy()

    def add_things(self, count: int) -> None:
        """Adds `count` things, in groups of one to three of one class and of similar size that touch each other."""
        rng = self.rng
        placed = 0
        while placed < count:
            name = THING_NAMES[rng.integers(len(THING_NAMES))]
            diameter = rng.uniform(*DIAMETERS)
            group: list[_Thing] = []
            for _ in range(min(1 + rng.binomial(2, 0.55), count - placed)):
                thing = self._add_thing(name, diameter, group)
                if thing is not None:
                    group.append(thing)
            placed += len(group)

    def _add_thing(self, name: str, diameter: float, group: list[_Thing]) -> _Thing | None:
        """Adds a thing that touches one of `group`, or lies anywhere if there is none; None if no room was found."""
        rng = self.rng
        for _ in range(12):
            clipped = min(max(diameter * rng.uniform(0.8, 1.25), DIAMETERS[0]), DIAMETERS[1])
            radius, bearing = 0.5 * self.scale * clipped, rng.uniform(0, 2 * math.pi)
            margin = 0.6 * radius
            if group:
                neighbour = group[rng.integers(len(group))]
                distance = (radius + neighbour.radius) * THING_FULLNESS[name] * rng.uniform(0.8, 1)
                x, y = neighbour.x + distance * math.cos(bearing), neighbour.y + distance * math.sin(bearing)
            else:
                x, y = rng.uniform(margin, self.size - margin), rng.uniform(margin, self.size - margin)
            thing = _Thing(name, x, y, radius, angle=rng.uniform(0, 2 * math.pi), aspect=rng.uniform(0.7, 1))
            if margin <= min(x, y) and max(x, y) <= self.size - margin and self._draw(thing):
                return thing
            diameter = max(0.95 * diameter, DIAMETERS[0])
        return None

    def _draw(self, thing: _Thing) -> bool:
        """Draws `thing` over the scene, unless too little of it or of a segment under it would stay visible."""
        window, u, v = self._frame(thing)
        distance = thing_distance(thing.name, u, v, thing.radius, thing.aspect)
        inside = distance < 0
        segmentation = self.segmentation[window]
        covered = np.bincount(segmentation[inside], minlength=len(self.areas))
        area, least = covered.sum(), MIN_VISIBLE_PIXELS * self.scale**2
        left = self.visible - covered
        if area < least or ((covered > 0) & (left < np.maximum(least, MIN_VISIBLE_FRACTION * self.areas))).any():
            return False
        self.visible, self.areas = np.array([*left, area]), np.array([*self.areas, area])
        self.label_ids.append(_NAMES.index(thing.name))
        segmentation[inside] = len(self.label_ids)
        patch, color = self.image[(slice(None), *window)], thing_color(self.rng, thing.name)
        shading = thing_shading(thing.name, u, v, thing.radius, _turn(*self.light, thing.angle))
        paint_thing(patch, distance, shading, color, self.scale)
        return True

    def _frame(self, thing: _Thing) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The window of the image that holds `thing` and its shadow, and its pixels (u, v) in the thing's own frame."""
        reach = thing.radius + 2 * SHADOW_WIDTH * self.scale
        rows, columns = (
            slice(max(int(centre - reach), 0), min(int(centre + reach) + 1, self.size)) for centre in (thing.y, thing.x)
        )
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + (0.5 - thing.y)
        dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + (0.5 - thing.x)
        return (rows, columns), *_turn(dx, dy, thing.angle)


def _turn(x: float | np.ndarray, y: float | np.ndarray, angle: float) -> tuple:
    """The point (x, y) as seen from a frame that is turned by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _divide(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[int]]:
    """Divides the scene among two to four stuff classes along wavy lines.

    Returns int32 (size, size) and the list of label ids that it indexes; each has at least a tenth of the scene.
    """
    while True:
        label_ids = sorted(rng.permutation(len(STUFF_NAMES))[: rng.integers(2, 4, endpoint=True)].tolist())
        highest = np.full((size, size), -np.inf, dtype=np.float32)
        regions = np.zeros((size, size), dtype=np.int32)
        for number in range(len(label_ids)):
            field = smooth_field(rng, size, 4, 4)
            regions[field > highest] = number
            np.maximum(field, highest, out=highest)
        if np.bincount(regions.ravel(), minlength=len(label_ids)).min() >= 0.1 * size**2:
            return regions, label_ids


def _check(split: str, size: int, seed: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"the generated scenes have the splits {' and '.join(map(repr, SPLITS))}, not {split!r}")
    if size < SMALLEST_SCENE:
        raise ValueError(f"size is {size}; a scene needs at least {SMALLEST_SCENE} pixels a side")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must not be negative")
