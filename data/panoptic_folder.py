"""A folder in COCO panoptic format: `images/`, `panoptic/` (PNGs of segment ids) and `panoptic.json`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.coco_json import images_by_id, is_among, read_coco_json, require_fields
from maskformer.data.example import BadSample, Example, Source, compact_ids, size_mismatch
from maskformer.data.files import inside
from maskformer.data.label_set import LabelSet, read_flag
from maskformer.image_processing.image_loading import load_image, open_image

SEGMENT = {"id": datasets.Value("int64"), "category_id": datasets.Value("int64"), "iscrowd": datasets.Value("int8")}
FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Value("string"),
        "panoptic": datasets.Value("string"),
        "segments_info": datasets.List(SEGMENT),
    }
)


def load_panoptic_folder(folder: str | Path) -> Source:
    """The panoptic dataset in `folder`; rows hold paths, pixels are read when an example is.

    Raises `ValueError`, naming file and entry, where `panoptic.json` is missing, does not parse, lacks a field, names a
    file outside of the folder, or holds no image.
    """
    folder = Path(folder)
    path = folder / "panoptic.json"
    content = read_coco_json(path, "a panoptic folder holds images/, panoptic/ and it")
    labels = LabelSet.from_categories(content["categories"], where=f"{path}: categories")
    return panoptic_source(path, content, labels, folder / "images", folder / "panoptic")


def panoptic_source(path: Path, content: dict, labels: LabelSet, images: Path, maps: Path) -> Source:
    """The dataset of the annotation file `path`, with its parsed `content` and the folders of its images and PNGs.

    Raises `ValueError` as `load_panoptic_folder` does.
    """
    if not content["annotations"]:
        raise ValueError(f"{path}: the dataset is empty; it lists no annotations")
    rows = map_rows(annotation_rows(path, content, labels, images, maps), FEATURES)
    return Source(rows, labels, functools.partial(decode, labels))


def annotation_rows(path: Path, content: dict, labels: LabelSet, images: Path, maps: Path) -> Iterator[dict]:
    """One row an annotation of a parsed annotation file, in its order."""
    seen = set()
    by_id = images_by_id(path, content)
    known = set(labels.source_ids)
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotation {index}"
        require_fields(annotation, ("image_id", "file_name", "segments_info"), where)
        if not is_among(by_id, annotation["image_id"]):
            raise ValueError(f"{where}: image_id {annotation['image_id']!r} is not among the images")
        if not isinstance(annotation["file_name"], str) or not annotation["file_name"]:
            raise ValueError(f"{where}: file_name is {annotation['file_name']!r}; the name of a PNG is needed")
        if annotation["image_id"] in seen:
            raise ValueError(f"{where}: image_id {annotation['image_id']!r} has an annotation already")
        seen.add(annotation["image_id"])
        yield {
            "image_id": str(annotation["image_id"]),
            "image": inside(images, by_id[annotation["image_id"]]["file_name"], where, "file_name of its image"),
            "panoptic": inside(maps, annotation["file_name"], where, "file_name"),
            "segments_info": checked_segments(annotation["segments_info"], known, where),
        }


def checked_segments(segments: object, known: set[int], where: str) -> list[dict]:
    """The `segments_info` of an annotation. Raises `ValueError` where it is none; `known` are the category ids."""
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise ValueError(f"{where}: segments_info must be a list of mappings, not {segments!r}")
    seen = set()
    for segment in segments:
        is_id = type(segment.get("id")) is int and 0 <= segment["id"] < 2**31
        if not is_id or not is_among(known, segment.get("category_id")):
            raise ValueError(f"{where}: segment {segment} needs an integer id and a category_id of the categories")
        if segment["id"] in seen:
            raise ValueError(f"{where}: segments_info has the id {segment['id']} twice")
        seen.add(segment["id"])
    return [
        {"id": s["id"], "category_id": s["category_id"], "iscrowd": int(read_flag(s.get("iscrowd"), "iscrowd", where))}
        for s in segments
    ]


def decode(labels: LabelSet, row: dict) -> Example:
    """Reads the files of one row."""
    try:
        image = load_image(row["image"])
        segmentation = read_segment_ids(row["panoptic"])
    except ValueError as error:
        raise BadSample(str(error)) from error
    if segmentation.shape != image.shape[:2]:
        raise BadSample(size_mismatch(row["panoptic"], segmentation.shape, row["image"], image.shape[:2]))
    contiguous = labels.contiguous_ids()
    segments = [
        {"id": s["id"], "label_id": contiguous[s["category_id"]], "iscrowd": s["iscrowd"]} for s in row["segments_info"]
    ]
    try:
        segmentation, segments = compact_ids(segmentation, segments)
    except BadSample as error:
        raise BadSample(f"{row['panoptic']}: {error}") from None
    return Example(image=image, segmentation=segmentation, segments_info=segments, image_id=row["image_id"])


def read_segment_ids(path: str) -> np.ndarray:
    """Segment ids of a panoptic PNG, int32 (H, W): red + 256 green + 65536 blue, or the value of a single channel."""
    try:
        with open_image(path) as png:
            pixels = np.array(png if png.mode in ("L", "P", "I;16", "I") else png.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such panoptic PNG") from None
    except Exception as error:
        raise ValueError(f"{path}: not a readable panoptic PNG ({error})") from error
    pixels = pixels.astype(np.int32)
    return pixels if pixels.ndim == 2 else pixels @ np.array([1, 256, 65536], dtype=np.int32)  # (H, W)
