"""A folder of photographs and label maps: `images/NAME.jpg`, `labels/NAME.png` and `labels.json` with the names."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source, size_mismatch
from maskformer.data.files import read_json
from maskformer.data.label_set import LabelSet, distinct_color
from maskformer.image_processing.image_loading import load_image, open_image

FEATURES = datasets.Features({name: datasets.Value("string") for name in ("image_id", "image", "label")})
HINT = "Did you mean reduce_labels, or another ignore_index?"


def load_semantic_folder(folder: str | Path, ignore_index: int | None = 255, reduce_labels: bool = False) -> Source:
    """The semantic dataset in `folder`; rows hold paths, pixels are read when an example is.

    `labels.json` is a list of names (value 0 first), a dict of value to name, or a list of COCO categories, whose
    `isthing` and `color` are used. Pixels of value `ignore_index` are void. With `reduce_labels` 0 is void too and
    every other value is one too large, as in ADE20K's files.

    Raises `ValueError`, naming the file, where something is missing, does not parse, or there is no image at all.
    """
    folder = Path(folder)
    labels = read_labels(folder / "labels.json")
    table = value_table(labels, ignore_index, reduce_labels)
    rows = image_and_label_rows(folder / "images", folder / "labels")
    return Source(map_rows(rows, FEATURES), labels, functools.partial(decode, labels, table, hint=HINT))


def image_and_label_rows(images: Path, maps: Path) -> Iterator[dict]:
    """One row an image of the folder `images`, with the PNG of the same name in the folder `maps`.

    Raises `ValueError` where there is no image, or two have one name.
    """
    pngs = {path.stem: path for path in sorted(maps.glob("*")) if path.suffix.lower() == ".png"}
    names: dict[str, str] = {}
    for path in sorted(images.glob("*")):
        if path.name[0] == "." or path.is_dir():
            continue
        if path.stem in names:
            raise ValueError(f"{images}: {names[path.stem]} and {path.name} have one name, which is their image id")
        names[path.stem] = path.name
        label = pngs.get(path.stem, maps / f"{path.stem}.png")
        yield {"image_id": path.stem, "image": str(path), "label": str(label)}
    if not names:
        raise ValueError(f"{images}: the dataset is empty; there is no image in this folder")


def read_labels(path: Path) -> LabelSet:
    """The label set in a `labels.json`."""
    # Nothing tells instances apart here, so every label is stuff unless the file says otherwise.
    return label_set_of(read_json(path, 'write the label names into it, as ["road", "car"]'), str(path), is_thing=False)


def label_set_of(content: Any, where: str, is_thing: bool) -> LabelSet:
    """The label set in a list of names, a dict of value to name or the other way, or a list of COCO categories.

    Labels are things or stuff as `is_thing` says, unless the content does. Raises `ValueError`, naming `where`, for
    anything else.
    """
    if isinstance(content, dict) and content and all(type(value) is int for value in content.values()):
        content = {value: name for name, value in content.items()}  # label2id instead of id2label
    if isinstance(content, dict):
        wrong = [value for value in content if not str(value).isdecimal()]
        if wrong:
            raise ValueError(f"{where}: {wrong[0]!r} is no pixel value; a dict of value to name is needed")
        content = [{"id": int(value), "name": name} for value, name in content.items()]
    elif isinstance(content, list) and content and isinstance(content[0], str):
        content = [{"id": value, "name": name} for value, name in enumerate(content)]
    if not isinstance(content, list):
        raise ValueError(f"{where}: a list of names, a dict of value to name, or a list of categories is needed")
    wrong = [index for index, category in enumerate(content) if not isinstance(category, dict)]
    if wrong:
        raise ValueError(f"{where}: entry {wrong[0]} is {content[wrong[0]]!r}, neither a name nor a category")
    content = [
        {"isthing": int(is_thing), "color": distinct_color(index), **category} for index, category in enumerate(content)
    ]
    return LabelSet.from_categories(content, where=where)


def value_table(labels: LabelSet, ignore_index: int | None, reduce_labels: bool) -> np.ndarray:
    """Segment id of each pixel value: label id + 1, 0 for void, -1 for values that mean nothing; int32 (65537,).

    Raises `ValueError` for values that no label PNG holds.
    """
    table = np.full(65537, -1, dtype=np.int32)
    if ignore_index is not None and not 0 <= ignore_index <= 65535:
        raise ValueError(f"ignore_index is {ignore_index}; label PNGs hold values of 0 to 65535")
    for index, value in enumerate(labels.source_ids):
        if not 0 <= value + int(reduce_labels) <= 65535:
            raise ValueError(f"label {labels.names[index]!r} has the value {value}; label PNGs hold 0 to 65535")
        table[value + int(reduce_labels)] = index + 1
    if reduce_labels:
        table[0] = 0
    if ignore_index is not None:
        table[ignore_index] = 0
    return table


def decode(labels: LabelSet, table: np.ndarray, row: dict, hint: str = "") -> Example:
    """Reads the files of one row; `hint` says what may be meant where values are unknown."""
    image, values = read_image(row["image"]), read_label_map(row["label"])
    if values.shape != image.shape[:2]:
        raise BadSample(size_mismatch(row["label"], values.shape, row["image"], image.shape[:2]))
    return semantic_example(image, label_segments(labels, table, values, row["label"], hint), row["image_id"])


def label_segments(labels: LabelSet, table: np.ndarray, values: np.ndarray, path: str, hint: str = "") -> np.ndarray:
    """Segment ids of a label map: integer (H, W) to int32 (H, W), by a `value_table`.

    Raises `BadSample`, naming the file `path`, where a value means nothing.
    """
    segmentation = np.take(table, values, mode="clip")  # (H, W)
    if segmentation.min(initial=0) < 0:
        wrong = np.unique(values[segmentation < 0])
        known, void = np.flatnonzero(table > 0), np.flatnonzero(table == 0)
        raise BadSample(
            f"{path}: the values {wrong[:5].tolist()} are no labels; the {len(labels)} labels have {known[0]} to"
            f" {known[-1]}, and void is {', '.join(map(str, void[:5])) or 'none'}" + (f". {hint}" if hint else "")
        )
    return segmentation


def semantic_example(image: np.ndarray, segmentation: np.ndarray, image_id: str) -> Example:
    """An example with one segment a label, whose id is label id + 1; `segmentation` is int32 (H, W), 0 is void."""
    present = np.flatnonzero(np.bincount(segmentation.ravel())).tolist()
    segments = [{"id": segment, "label_id": segment - 1, "iscrowd": 0} for segment in present if segment > 0]
    return Example(image=image, segmentation=segmentation, segments_info=segments, image_id=image_id)


def read_image(path: str) -> np.ndarray:
    """The image in the file `path`, uint8 (H, W, 3), RGB, upright; raises `BadSample` where it is not readable."""
    try:
        return load_image(path)
    except ValueError as error:
        raise BadSample(str(error)) from error


def read_label_map(path: str) -> np.ndarray:
    """Values of a label PNG, integer (H, W): palette indices, 8 or 16 bits."""
    values = read_values(path)
    if values.ndim != 2:
        raise BadSample(f"{path}: a label map has one channel of label ids, not {values.shape[2]}; are these colours?")
    return values.astype(np.int64)


def read_color_map(path: str) -> np.ndarray:
    """Pixels of a label PNG whose numbers are spread over red, green and blue, uint8 (H, W, 3)."""
    values = read_values(path)
    if values.shape[2:] != (3,) or values.dtype != np.uint8:
        raise BadSample(f"{path}: not a label map in red, green and blue of 8 bits, but {values.dtype} {values.shape}")
    return values


def read_values(path: str) -> np.ndarray:
    """The numbers in an image file as they are stored, (H, W) or (H, W, C)."""
    try:
        with open_image(path) as picture:
            return np.array(picture)
    except FileNotFoundError:
        raise BadSample(f"{path}: there is no such label map") from None
    except Exception as error:
        raise BadSample(f"{path}: not a readable label map ({error})") from error
