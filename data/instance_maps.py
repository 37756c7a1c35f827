"""A folder of photographs and maps of instances: `images/NAME.jpg`, `instances/NAME.png` and `labels.json`.

With one label every value but 0 is an instance of it, as nuclei and cells are often given. With several a value tells
label and instance, as in Cityscapes' files: 26003 is instance 3 of the label of value 26, and 26 alone is a region of
that label in which nobody told instances apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source, size_mismatch
from maskformer.data.files import read_json
from maskformer.data.label_set import LabelSet
from maskformer.data.official_layout import require_folder
from maskformer.data.panoptic_folder import read_segment_ids
from maskformer.data.semantic_folder import image_and_label_rows, label_set_of, read_image

FEATURES = datasets.Features({name: datasets.Value("string") for name in ("image_id", "image", "panoptic")})
DIVISOR = 1000  # a value is label value * DIVISOR + instance number
LAYOUT = "images/NAME.jpg, instances/NAME.png and labels.json are needed"


def load_instance_maps(folder: str | Path) -> Source:
    """The instance dataset in `folder`; rows hold paths, pixels are read when an example is.

    Maps are PNGs of 8 or 16 bits, or of ids in three channels, as COCO's: red + 256 green + 65536 blue. 0 is void, and
    no other value is: a map may well hold 255 instances. `labels.json` is as for a `semantic_folder`, but its labels
    are things unless it says otherwise. Of a label that is stuff there is one segment.

    Raises `ValueError`, naming the file, where something is missing, does not parse, two images have one name, or there
    is no image at all.
    """
    folder = Path(folder)
    labels = read_instance_labels(folder / "labels.json")
    for name in ("images", "instances"):
        require_folder(folder / name, LAYOUT)
    rows = (
        {"image_id": row["image_id"], "image": row["image"], "panoptic": row["label"]}
        for row in image_and_label_rows(folder / "images", folder / "instances")
    )
    split = split_one_label if len(labels) == 1 else functools.partial(split_values, labels, void=frozenset({0}))
    return Source(map_rows(rows, FEATURES), labels, functools.partial(decode, split))


def read_instance_labels(path: Path) -> LabelSet:
    """The label set in a `labels.json`, of things unless it says otherwise.

    Raises `ValueError` for labels that the values of a map cannot tell.
    """
    labels = label_set_of(read_json(path, LAYOUT), str(path), is_thing=True)
    if len(labels) == 1 and not labels.is_thing[0]:
        raise ValueError(f"{path}: the only label, {labels.names[0]!r}, is stuff; --source semantic_folder reads that")
    for name, value in zip(labels.names, labels.source_ids, strict=True):
        if len(labels) > 1 and not 0 < value < DIVISOR:
            raise ValueError(
                f"{path}: the label {name!r} has the value {value}; 1 to {DIVISOR - 1} is possible, as in"
                f' {{"1": "{labels.names[0]}", "2": "{labels.names[1]}"}}, since 0 is void and instances have'
                f" the values label value * {DIVISOR} + number"
            )
    return labels


def decode(split: Callable[[np.ndarray], tuple[np.ndarray, list[dict]]], row: dict) -> Example:
    """Reads the files of one row; `split(values)` gives segmentation and segments of a map of values (H, W)."""
    image = read_image(row["image"])
    try:
        values = read_segment_ids(row["panoptic"])
    except ValueError as error:
        raise BadSample(str(error)) from error
    if values.shape != image.shape[:2]:
        raise BadSample(size_mismatch(row["panoptic"], values.shape, row["image"], image.shape[:2]))
    try:
        segmentation, segments = split(values)
    except BadSample as error:
        raise BadSample(f"{row['panoptic']}: {error}") from None
    return Example(image=image, segmentation=segmentation, segments_info=segments, image_id=row["image_id"])


def split_one_label(values: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """Segments of a map (H, W) in which every value but 0 is an instance of the one label there is."""
    present = [value for value in distinct(values) if value != 0]
    ids = np.zeros(max(present, default=0) + 1, dtype=np.int32)  # segment id of each value, 0 for void
    ids[present] = range(1, len(present) + 1)
    return ids[values], [{"id": number, "label_id": 0, "iscrowd": 0} for number in range(1, len(present) + 1)]  # (H, W)


def split_values(labels: LabelSet, values: np.ndarray, void: frozenset[int]) -> tuple[np.ndarray, list[dict]]:
    """Segments of a map (H, W) of label values and instances: the map of ids 1 .. n, int32 (H, W), and what they are.

    Of a stuff label there is one segment, of a thing one an instance; pixels that have a thing's label without an
    instance are a crowd. `void` are label values that are known, but no labels.
    Raises `BadSample` where a value belongs neither to a label nor to `void`.
    """
    contiguous, present = labels.contiguous_ids(), distinct(values)
    ids = np.zeros(max(present, default=0) + 1, dtype=np.int32)  # segment id of each value, 0 for void
    segments, unknown, number_of = [], [], {}
    for value in present:
        label_value = value // DIVISOR if value >= DIVISOR else value
        label = contiguous.get(label_value)
        if label is None:
            unknown += [value] if label_value not in void else []
            continue
        is_thing = labels.is_thing[label]
        key = value if is_thing else label_value
        if key not in number_of:
            number_of[key] = len(segments) + 1
            crowd = int(is_thing and value < DIVISOR)
            segments.append({"id": number_of[key], "label_id": label, "iscrowd": crowd})
        ids[value] = number_of[key]
    if unknown:
        raise BadSample(
            f"the values {unknown[:5]} belong to no label; a value is that of a label,"
            f" {min(labels.source_ids)} to {max(labels.source_ids)}, or that * {DIVISOR} + number of the instance"
        )
    return ids[values], segments  # (H, W)


def distinct(values: np.ndarray) -> list[int]:
    """The values that occur in a map, ascending. Raises `BadSample` for those that three channels cannot hold."""
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high >= 2**24:
        raise BadSample(f"it holds values of {low} to {high}; 0 to {2**24 - 1} is possible")
    seen = np.zeros(high + 1, dtype=bool)  # much faster than sorting the pixels
    seen[values] = True
    return np.flatnonzero(seen).tolist()
