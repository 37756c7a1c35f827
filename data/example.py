"""The one form in which every dataset reaches the rest: an image, a map of segment ids, and what each segment is.

Semantic data take the same form, one segment a class, since the paper's point is that the two tasks are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import datasets
import numpy as np

from maskformer.data.label_set import LabelSet
from maskformer.image_processing.image_loading import open_image


class Example(TypedDict):
    """A decoded example."""

    image: np.ndarray  # uint8 (H, W, 3), RGB
    # int32 (H, W), segment ids, 0 is void; or (P, H, W) where segments overlap: P maps, each id in one of them only
    segmentation: np.ndarray
    segments_info: list[dict]  # {"id", "label_id" (contiguous), "iscrowd"}
    image_id: str


class BadSample(ValueError):
    """An example that cannot be used; the message names its file and what is wrong with it."""


class LostShard(BadSample):
    """A shard that cannot be read any more; it is never left out, as its examples would miss in every epoch."""


@dataclass(frozen=True)
class Source:
    """A dataset: Arrow rows, the function that decodes one, and the labels they use.

    `decode` raises `BadSample` where a row's files are missing, damaged or contradictory.
    """

    rows: datasets.Dataset
    labels: LabelSet
    decode: Callable[[dict], Example]

    def __len__(self) -> int:
        if isinstance(self.rows, datasets.IterableDataset) and self.rows.info.splits:
            return sum(split.num_examples for split in self.rows.info.splits.values())
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.decode(self.rows[index])


def size_mismatch(path: str, size: tuple[int, int], image_path: str, image_size: tuple[int, int]) -> str:
    """What is wrong with a map of `size` (H, W) in `path`, whose image has another."""
    message = f"{path}: {size} pixels, but its image has {image_size}"
    with open_image(image_path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations that swap height and width
    if turned and size == image_size[::-1]:
        message += "; images are turned upright as their EXIF orientation says, and the map must be upright too"
    return message


def segments_to_masks(example: Example) -> dict[int, int]:
    """Segment id to label id of the segments that are to be learnt: crowds are not."""
    return {info["id"]: info["label_id"] for info in example["segments_info"] if not info.get("iscrowd")}


def on_top(segmentation: np.ndarray) -> np.ndarray:
    """One map (H, W) of maps (P, H, W) whose segments overlap, later maps on top; a map (H, W) as it is."""
    if segmentation.ndim == 2:
        return segmentation
    flat = np.zeros(segmentation.shape[1:], dtype=segmentation.dtype)
    for layer in segmentation:
        flat = np.where(layer > 0, layer, flat)  # (H, W)
    return flat


def without_overlap(example: Example) -> Example:
    """`example` with one map (H, W): a pixel belongs to the segment on top; segments that are hidden are left out."""
    if example["segmentation"].ndim == 2:
        return example
    flat = on_top(example["segmentation"])
    visible = set(np.unique(flat).tolist())
    segments_info = [info for info in example["segments_info"] if info["id"] in visible]
    return {**example, "segmentation": flat, "segments_info": segments_info}


def semantic_map(example: Example, void: int = 255) -> np.ndarray:
    """The label id of each pixel, int32 (H, W); `void` where there is no segment.

    Where segments overlap, the label is that of the one on top.
    """
    segmentation = on_top(example["segmentation"])
    ids = [info["id"] for info in example["segments_info"]]
    table = np.full(max([0, int(segmentation.max(initial=0)), *ids]) + 1, void, dtype=np.int32)
    for info in example["segments_info"]:
        table[info["id"]] = info["label_id"]
    return table[segmentation]


def compact_ids(segmentation: np.ndarray, segments_info: list[dict]) -> tuple[np.ndarray, list[dict]]:
    """Segments renumbered 1, 2, 3 ... in the order of their ids; those without a pixel are left out.

    `segmentation` is any integer (H, W). Raises `BadSample` if it holds an id but 0 that `segments_info` lacks.
    """
    counts = np.bincount(segmentation.ravel()) if segmentation.max(initial=0) < 2**20 else None
    present = np.flatnonzero(counts) if counts is not None else np.unique(segmentation)
    present = present[present != 0]
    by_id = {info["id"]: info for info in segments_info}
    unknown = [int(segment) for segment in present if int(segment) not in by_id]
    if unknown:
        raise BadSample(f"the segment ids {unknown[:5]} are in the map, but not in segments_info")
    infos = [{**by_id[int(segment)], "id": new} for new, segment in enumerate(present, 1)]
    # Position among the ids that are present, counted from 1; void stays 0.
    compact = np.where(segmentation == 0, 0, np.searchsorted(present, segmentation) + 1)
    return compact.astype(np.int32), infos  # (H, W)
