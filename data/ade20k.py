"""ADE20K with 150 labels, as the SceneParsing challenge distributes it: semantic, and panoptic with its instances."""

from __future__ import annotations

import functools
from pathlib import Path

import datasets
import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source, compact_ids, size_mismatch
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.official_layout import SPLIT_FOLDERS, dataset_root, paired_rows, require_folder
from maskformer.data.semantic_folder import (
    FEATURES,
    decode,
    label_segments,
    read_color_map,
    read_image,
    read_label_map,
    value_table,
)

ROOT = "ADEChallengeData2016"
LAYOUT = f"expected are {ROOT}/images/ and {ROOT}/annotations/, each with training/ and validation/"
PANOPTIC_LAYOUT = f"{LAYOUT}, and {ROOT}/annotations_instance/ with the same, which is a download of its own"
PANOPTIC_FEATURES = datasets.Features(FEATURES | {"instances": datasets.Value("string")})


def load_ade20k(folder: str | Path, split: str) -> Source:
    """ADE20K for semantic segmentation; `folder` is `ADEChallengeData2016` or holds it.

    In `annotations/` 0 is void, and value v is label v - 1. Raises `ValueError` where a folder is missing or empty.
    """
    root, part = dataset_root(folder, ROOT), SPLIT_FOLDERS[split]
    labels = load_label_set("ade20k-150")
    rows = paired_rows(root / "images" / part, root / "annotations" / part, LAYOUT)
    return Source(map_rows(rows, FEATURES), labels, functools.partial(decode, labels, ade20k_table(labels)))


def load_ade20k_panoptic(folder: str | Path, split: str) -> Source:
    """ADE20K for panoptic segmentation; `folder` is `ADEChallengeData2016` or holds it.

    Segments are those of the official preparation: the stuff of `annotations/`, and over it each instance of
    `annotations_instance/`, whose PNGs hold in red which of the 100 things a pixel belongs to, counted from 1, and in
    green the instance, 0 for none. Pixels of a thing without an instance are void.
    Raises `ValueError` where a folder is missing or empty.
    """
    root, part = dataset_root(folder, ROOT), SPLIT_FOLDERS[split]
    labels = load_label_set("ade20k-150")
    instances = require_folder(root / "annotations_instance" / part, PANOPTIC_LAYOUT)
    rows = (
        {**row, "instances": str(instances / f"{row['image_id']}.png")}
        for row in paired_rows(root / "images" / part, root / "annotations" / part, PANOPTIC_LAYOUT)
    )
    read = functools.partial(decode_panoptic, labels, ade20k_table(labels))
    return Source(map_rows(rows, PANOPTIC_FEATURES), labels, read)


def ade20k_table(labels: LabelSet) -> np.ndarray:
    """Segment id of each value in `annotations/`; 255, which is void elsewhere, means nothing there."""
    return value_table(labels, ignore_index=None, reduce_labels=True)


def decode_panoptic(labels: LabelSet, table: np.ndarray, row: dict) -> Example:
    """Reads the files of one row."""
    image, instances = read_image(row["image"]), read_color_map(row["instances"])
    values = read_label_map(row["label"])
    for path, pixels in ((row["label"], values), (row["instances"], instances)):
        if pixels.shape[:2] != image.shape[:2]:
            raise BadSample(size_mismatch(path, pixels.shape[:2], row["image"], image.shape[:2]))
    of_segment = np.array([False, *labels.is_thing])  # whether segment id label + 1 is a thing's; 0 is void
    segmentation = label_segments(labels, table, values, row["label"])  # (H, W)
    segmentation = np.where(of_segment[segmentation], 0, segmentation)
    infos = [{"id": label + 1, "label_id": label, "iscrowd": 0} for label in labels.stuff_ids]

    numbers = instances[..., 1].astype(np.int32)  # (H, W)
    segmentation = np.where(numbers > 0, len(labels) + numbers, segmentation)
    for number, label in instance_labels(labels, instances, row["instances"]).items():
        infos.append({"id": len(labels) + number, "label_id": label, "iscrowd": 0})
    segmentation, infos = compact_ids(segmentation, infos)
    return Example(image=image, segmentation=segmentation, segments_info=infos, image_id=row["image_id"])


def instance_labels(labels: LabelSet, instances: np.ndarray, path: str) -> dict[int, int]:
    """Label id of each instance number in an instance PNG, uint8 (H, W, 3).

    Raises `BadSample`, naming `path`, for a class that is not one of the things and an instance of two classes.
    """
    things = [label for label, is_thing in enumerate(labels.is_thing) if is_thing]
    codes = instances[..., 1].astype(np.int64) * 256 + instances[..., 0]  # (H, W)
    found: dict[int, int] = {}
    for code in np.flatnonzero(np.bincount(codes.ravel())).tolist():
        number, red = divmod(code, 256)
        if number == 0:
            continue
        if not 1 <= red <= len(things):
            raise BadSample(f"{path}: instance {number} has the class {red} in red; classes are 1 to {len(things)}")
        if number in found:
            first = things.index(found[number]) + 1
            raise BadSample(f"{path}: instance {number} has the classes {first} and {red} in red; it must have one")
        found[number] = things[red - 1]
    return found
