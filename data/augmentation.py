"""Training augmentation on 8-bit images and maps of segment ids, as the official mappers order it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from maskformer.data.color import add_stray_light, jitter_color
from maskformer.data.example import Example
from maskformer.image_processing.preprocessing import output_size, resize_labels, resize_with_pil

PADDING = 128  # grey, of images that are smaller than the crop
DETR_EDGES = (400, 500, 600)  # lengths of the shortest edge before DETR's crop


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training example, in this order; every choice is uniform.

    `detr_crop`: (shortest, longest) side of DETR's crop (arXiv 2005.12872, section 4): half of the images are resized,
    their shortest edge to 400, 500 or 600, and cut to a random height and width between these.
    `shortest_edges`: the shortest edge gets one of these lengths (none: as it is), the longest at most `longest_edge`.
    `crop_size`: (height, width) of a random crop; smaller images are padded to it, right and bottom.
    `single_category_max_area`: crops are tried again, up to 10 times, while one label covers more than this share.
    `color_jitter`: SSD's. `stray_light`: half of the images get a patch of light.
    `horizontal_flip`, `vertical_flip`, `rotate`: with probability a half, or by a multiple of 90 degrees (of 180, where
    the crop is no square).

    Segmentations are (H, W) or, where segments overlap, (P, H, W).
    """

    detr_crop: list[int] | None = None
    shortest_edges: list[int] = field(default_factory=list)
    longest_edge: int | None = 4096
    crop_size: list[int] | None = None
    single_category_max_area: float = 1.0
    color_jitter: bool = False
    stray_light: bool = False
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotate: bool = False

    def __call__(self, example: Example, random: np.random.Generator) -> Example:
        """An augmented copy of `example`; `segments_info` may name segments that have left it."""
        image, segmentation = example["image"], example["segmentation"]
        if self.detr_crop and random.random() < 0.5:
            image, segmentation = resize(image, segmentation, DETR_EDGES, None, random)
            image, segmentation = crop_between(image, segmentation, *self.detr_crop, random)
        if self.shortest_edges:
            image, segmentation = resize(image, segmentation, self.shortest_edges, self.longest_edge, random)
        if self.crop_size:
            top, left = self.choose_crop(segmentation, example["segments_info"], random)
            rows, columns = slice(top, top + self.crop_size[0]), slice(left, left + self.crop_size[1])
            image, segmentation = image[rows, columns], segmentation[..., rows, columns]
        if self.color_jitter:
            image = jitter_color(image, random)
        if self.stray_light:
            image = add_stray_light(image, random)
        if self.horizontal_flip and random.random() < 0.5:
            image, segmentation = image[:, ::-1], segmentation[..., ::-1]
        if self.vertical_flip and random.random() < 0.5:
            image, segmentation = image[::-1], segmentation[..., ::-1, :]
        if self.rotate:
            turns = int(random.integers(4))
            if self.crop_size and self.crop_size[0] != self.crop_size[1]:
                turns = turns // 2 * 2  # a quarter turn would leave the crop's shape
            image, segmentation = np.rot90(image, turns), np.rot90(segmentation, turns, axes=(-2, -1))
        if self.crop_size:
            padding = [(0, wanted - given) for wanted, given in zip(self.crop_size, image.shape[:2], strict=True)]
            image = np.pad(image, [*padding, (0, 0)], constant_values=PADDING)
            segmentation = np.pad(segmentation, [(0, 0)] * (segmentation.ndim - 2) + padding)
        return {
            **example,
            # Copies: a flipped edge of one pixel counts as contiguous, but PyTorch refuses its negative stride.
            "image": np.array(image, order="C"),
            "segmentation": np.array(segmentation, order="C"),
        }

    def choose_crop(
        self, segmentation: np.ndarray, segments_info: list[dict], random: np.random.Generator
    ) -> tuple[int, int]:
        """Top and left of the crop."""
        size = segmentation.shape[-2:]
        height, width = (min(wanted, given) for wanted, given in zip(self.crop_size, size, strict=True))
        for _ in range(10):
            top = int(random.integers(size[0] - height + 1))
            left = int(random.integers(size[1] - width + 1))
            crop = segmentation[..., top : top + height, left : left + width]
            limit = self.single_category_max_area
            if limit >= 1.0 or largest_share(crop, segments_info) < limit:
                break
        return top, left


def resize(
    image: np.ndarray, segmentation: np.ndarray, shortest_edges: Sequence[int], longest_edge: int | None, random
) -> tuple[np.ndarray, np.ndarray]:
    """Both with their shortest edge at one of `shortest_edges`, and the longest at most at `longest_edge`."""
    shortest = int(random.choice(shortest_edges))
    size = output_size(*image.shape[:2], {"shortest_edge": shortest, "longest_edge": longest_edge})
    return resize_with_pil(image, size, Image.Resampling.BILINEAR), resize_labels(segmentation, size)


def crop_between(
    image: np.ndarray, segmentation: np.ndarray, smallest: int, largest: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random crop of both, each of whose sides has a random length of `smallest` to `largest` where there is room."""
    window = []
    for side in image.shape[:2]:
        length = int(random.integers(min(side, smallest), min(side, largest) + 1))
        first = int(random.integers(side - length + 1))
        window.append(slice(first, first + length))
    return image[tuple(window)], segmentation[(..., *window)]


def largest_share(segmentation: np.ndarray, segments_info: list[dict]) -> float:
    """Share of the labelled pixels that the commonest label covers; 1 where there is at most one label."""
    areas: dict[int, int] = {}
    counts = np.bincount(segmentation.ravel())
    for info in segments_info:
        if info["id"] < len(counts) and counts[info["id"]]:
            areas[info["label_id"]] = areas.get(info["label_id"], 0) + int(counts[info["id"]])
    return max(areas.values()) / sum(areas.values()) if len(areas) > 1 else 1.0
