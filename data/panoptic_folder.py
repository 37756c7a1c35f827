"""A folder in COCO panoptic format: `images/`, `panoptic/` (PNGs of segment ids) and `panoptic.json`."""

from __future__ import annotations

import functools
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source, compact_ids, size_mismatch
from maskformer.data.files import inside, read_json
from maskformer.data.label_set import LabelSet
from maskformer.image_processing.image_loading import load_image

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
    content = read_json(path, "a panoptic folder holds images/, panoptic/ and it")
    for field in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise ValueError(f"{path}: the list {field!r} is missing")
    labels = LabelSet.from_categories(content["categories"], where=f"{path}: categories")
    if not content["annotations"]:
        raise ValueError(f"{path}: the dataset is empty; it lists no annotations")
    rows = map_rows(annotation_rows(folder, path, content, labels), FEATURES)
    return Source(rows, labels, functools.partial(decode, labels))


def annotation_rows(folder: Path, path: Path, content: dict, labels: LabelSet):
    """One row an annotation of a parsed `panoptic.json`."""
    for index, image in enumerate(content["images"]):
        if not isinstance(image, dict):
            raise ValueError(f"{path}: image {index} is {image!r}, not a mapping")
    seen = set()
    images = {image.get("id"): image.get("file_name") for image in content["images"]}
    known = set(labels.source_ids)
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotation {index}"
        if not isinstance(annotation, dict):
            raise ValueError(f"{where} is {annotation!r}, not a mapping")
        missing = [field for field in ("image_id", "file_name", "segments_info") if field not in annotation]
        if missing:
            raise ValueError(f"{where} has no {missing[0]!r}")
        if not images.get(annotation["image_id"]):
            raise ValueError(f"{where}: image_id {annotation['image_id']!r} is not among the images")
        segments = annotation["segments_info"]
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise ValueError(f"{where}: segments_info must be a list of mappings, not {segments!r}")
        if annotation["image_id"] in seen:
            raise ValueError(f"{where}: image_id {annotation['image_id']!r} has an annotation already")
        seen.add(annotation["image_id"])
        ids = [segment.get("id") for segment in segments]
        twice = [segment for segment in ids if ids.count(segment) > 1]
        if twice:
            raise ValueError(f"{where}: segments_info has the id {twice[0]!r} twice")
        for segment in segments:
            if segment.get("category_id") not in known or not isinstance(segment.get("id"), int):
                raise ValueError(f"{where}: segment {segment} needs an integer id and a category_id of the categories")
        yield {
            "image_id": str(annotation["image_id"]),
            "image": inside(folder / "images", images[annotation["image_id"]], where),
            "panoptic": inside(folder / "panoptic", annotation["file_name"], where),
            "segments_info": [
                {"id": s["id"], "category_id": s["category_id"], "iscrowd": int(s.get("iscrowd", 0))}
                for s in annotation["segments_info"]
            ],
        }


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
        with Image.open(path) as png:
            pixels = np.array(png if png.mode in ("L", "P", "I;16", "I") else png.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such panoptic PNG") from None
    except Exception as error:
        raise ValueError(f"{path}: not a readable panoptic PNG ({error})") from error
    pixels = pixels.astype(np.int32)
    return pixels if pixels.ndim == 2 else pixels @ np.array([1, 256, 65536], dtype=np.int32)  # (H, W)
