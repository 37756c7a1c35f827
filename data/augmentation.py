"""Training augmentation on 8-bit images and maps of segment ids, as the official mappers order it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from maskformer.data.color import jitter_color
from maskformer.data.example import Example
from maskformer.image_processing.preprocessing import output_size, resize_labels, resize_with_pil

PADDING = 128  # grey, of images that are smaller than the crop


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training example, in this order; every choice is uniform.

    `shortest_edges`: the shortest edge gets one of these lengths (none: as it is), the longest at most `longest_edge`.
    `crop_size`: (height, width) of a random crop; smaller images are padded to it, right and bottom.
    `single_category_max_area`: crops are tried again, up to 10 times, while one label covers more than this share.
    `color_jitter`: SSD's. `horizontal_flip`, `vertical_flip`, `rotate`: with probability a half, or by a multiple of 90
    degrees (of 180, where the crop is no square).
    """

    shortest_edges: list[int] = field(default_factory=list)
    longest_edge: int | None = 4096
    crop_size: list[int] | None = None
    single_category_max_area: float = 1.0
    color_jitter: bool = False
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotate: bool = False

    def __call__(self, example: Example, random: np.random.Generator) -> Example:
        """An augmented copy of `example`; `segments_info` may name segments that have left it."""
        image, segmentation = example["image"], example["segmentation"]
        if self.shortest_edges:
            shortest = int(random.choice(self.shortest_edges))
            size = output_size(*image.shape[:2], {"shortest_edge": shortest, "longest_edge": self.longest_edge})
            image = resize_with_pil(image, size, Image.Resampling.BILINEAR)
            segmentation = resize_labels(segmentation, size)
        if self.crop_size:
            top, left = self.choose_crop(segmentation, example["segments_info"], random)
            rows, columns = slice(top, top + self.crop_size[0]), slice(left, left + self.crop_size[1])
            image, segmentation = image[rows, columns], segmentation[rows, columns]
        if self.color_jitter:
            image = jitter_color(image, random)
        if self.horizontal_flip and random.random() < 0.5:
            image, segmentation = image[:, ::-1], segmentation[:, ::-1]
        if self.vertical_flip and random.random() < 0.5:
            image, segmentation = image[::-1], segmentation[::-1]
        if self.rotate:
            turns = int(random.integers(4))
            if self.crop_size and self.crop_size[0] != self.crop_size[1]:
                turns = turns // 2 * 2  # a quarter turn would leave the crop's shape
            image, segmentation = np.rot90(image, turns), np.rot90(segmentation, turns)
        if self.crop_size:
            padding = [(0, wanted - given) for wanted, given in zip(self.crop_size, segmentation.shape, strict=True)]
            image = np.pad(image, [*padding, (0, 0)], constant_values=PADDING)
            segmentation = np.pad(segmentation, padding)
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
        height, width = (min(wanted, given) for wanted, given in zip(self.crop_size, segmentation.shape, strict=True))
        for _ in range(10):
            top = int(random.integers(segmentation.shape[0] - height + 1))
            left = int(random.integers(segmentation.shape[1] - width + 1))
            crop = segmentation[top : top + height, left : left + width]
            limit = self.single_category_max_area
            if limit >= 1.0 or largest_share(crop, segments_info) < limit:
                break
        return top, left


def largest_share(segmentation: np.ndarray, segments_info: list[dict]) -> float:
    """Share of the labelled pixels that the commonest label covers; 1 where there is at most one label."""
    areas: dict[int, int] = {}
    counts = np.bincount(segmentation.ravel())
    for info in segments_info:
        if info["id"] < len(counts) and counts[info["id"]]:
            areas[info["label_id"]] = areas.get(info["label_id"], 0) + int(counts[info["id"]])
    return max(areas.values()) / sum(areas.values()) if len(areas) > 1 else 1.0
