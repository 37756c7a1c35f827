"""Instances in COCO's format: COCO 2017 as its makers distribute it, and anyone's own export of an annotation tool."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.coco_json import (
    check_categories,
    coco_2017,
    images_by_id,
    is_among,
    read_coco_json,
    require_fields,
)
from maskformer.data.coco_masks import SMALLEST, polygons_mask, read_run_lengths, run_lengths_mask
from maskformer.data.example import BadSample, Example, Source, size_mismatch
from maskformer.data.files import inside
from maskformer.data.label_set import LabelSet, load_label_set, read_flag
from maskformer.data.planes import pack
from maskformer.data.semantic_folder import read_image

LAYOUT = "COCO is {train,val}2017/*.jpg and annotations/instances_{train,val}2017.json"
OWN_LAYOUT = (
    "needed is a folder with one annotation file, as _annotations.coco.json or annotations/instances_default.json, and"
    " the images in images/ or beside the file, or the path of that file"
)
INSTANCE = {
    "id": datasets.Value("string"),
    "category_id": datasets.Value("int64"),
    "iscrowd": datasets.Value("int8"),
    # Its mask, in one of three ways: polygons, run lengths, or run lengths as text.
    "polygons": datasets.List(datasets.List(datasets.Value("float64"))),
    "counts": datasets.List(datasets.Value("int64")),
    "text": datasets.Value("string"),
    "size": datasets.List(datasets.Value("int64")),  # of the run lengths: height, width
}
FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Value("string"),
        "size": datasets.List(datasets.Value("int64")),  # height, width, or nothing where the file does not say
        "annotations": datasets.List(INSTANCE),
    }
)


def load_coco_instance(folder: str | Path, split: str) -> Source:
    """The `train` or `validation` split of COCO instances 2017, in `folder` or in `folder`/coco.

    As in detectron2, polygons of less than three points are left out, and so are training images without an object
    that is no crowd. Raises `ValueError`, naming file and entry, as `load_coco_instances` does.
    """
    path, images = coco_2017(folder, split, "instances", LAYOUT)
    content = read_coco_json(path, LAYOUT)
    labels = load_label_set("coco-instance-80")
    check_categories(path, content, labels)
    rows = map(without_short_polygons, image_rows(path, content, labels, images))
    if split == "train":
        rows = filter(has_object, rows)
    return instance_source(path, rows, labels)


def load_coco_instances(path: str | Path) -> Source:
    """The instances in a folder with one annotation file in COCO's format, or in the file `path`.

    Images lie beside the file (or beside its folder, where that is `annotations/`), or in `images/` there; beside
    `annotations/instances_NAME.json` also in `NAME/` of either. All categories are labels, and things, whatever their
    ids are. Images without an object are examples too.
    Raises `ValueError`, naming file and entry, where a file is missing, does not parse or lies outside of the folder,
    where an id occurs twice or refers to nothing, and where a category has no name. Masks are looked at when an example
    is read.
    """
    path = annotation_file(Path(path))
    content = read_coco_json(path, OWN_LAYOUT)
    categories = [{**c, "isthing": 1} if isinstance(c, dict) else c for c in content["categories"]]
    labels = LabelSet.from_categories(categories, where=f"{path}: categories")
    for image in content["images"]:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str):
            image["file_name"] = image["file_name"].replace("\\", "/")  # written on Windows
    return instance_source(path, image_rows(path, content, labels, image_folder(path, content)), labels)


def instance_source(path: Path, rows: Iterator[dict], labels: LabelSet) -> Source:
    """The dataset of these `rows`, which come from the file `path`. Raises `ValueError` where there is none."""
    rows = map_rows(rows, FEATURES)
    if not len(rows):
        raise ValueError(f"{path}: the dataset is empty; it lists no images, or none with an object to learn")
    return Source(rows, labels, functools.partial(decode, str(path), labels))


def annotation_file(path: Path) -> Path:
    """The annotation file that `path` is or holds; raises `ValueError` unless there is exactly one."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such folder or file; {OWN_LAYOUT}")
    found = json_files(path) or json_files(path / "annotations")
    if len(found) > 1:  # such as names of labels, beside it
        found = [file for file in found if holds_coco(file)] or found
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no *.json"
        raise ValueError(f"{path}: holds {names}; {OWN_LAYOUT}")
    return found[0]


def json_files(folder: Path) -> list[Path]:
    """The JSON files in `folder`, in their order."""
    return sorted(file for file in folder.glob("*.json") if file.name[0] != ".")


def holds_coco(path: Path) -> bool:
    """Whether a JSON file holds COCO's lists."""
    try:
        read_coco_json(path, OWN_LAYOUT)
    except ValueError:
        return False
    return True


def image_folder(path: Path, content: dict) -> Path:
    """The folder of the images of the annotation file `path`; raises `ValueError` where there is not one of them."""
    root, subset = path.parent, ""
    if root.name == "annotations":  # then each subset may have a folder of its own, as COCO has them
        root, subset = root.parent, path.stem.removeprefix("instances_")
    names = [image["file_name"] for image in images_by_id(path, content).values()]
    places = list(dict.fromkeys([root / "images" / subset, root / "images", root / subset, root]))
    for place in places:
        if any(is_file(place / name) for name in names):  # the first one, unless files are missing
            return place
    if not names:
        raise ValueError(f"{path}: the dataset is empty; it lists no images")
    raise ValueError(f"{path}: none of its images, such as {names[0]!r}, is in {' or '.join(map(str, places))}")


def is_file(path: Path) -> bool:
    """Whether there is such a file; not where the name is longer than a file system allows."""
    try:
        return path.is_file()
    except OSError:
        return False


def image_rows(path: Path, content: dict, labels: LabelSet, images: Path) -> Iterator[dict]:
    """One row an image of a parsed annotation file, in its order."""
    by_id = images_by_id(path, content)
    annotations: dict[int | str, list[dict]] = {}
    seen, categories = set(), set(labels.source_ids)
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotation {index}"
        require_fields(annotation, ("id", "image_id", "category_id", "segmentation"), where)
        for field, known, what in (("image_id", by_id, "images"), ("category_id", categories, "categories")):
            if not is_among(known, annotation[field]):
                raise ValueError(f"{where}: {field} {annotation[field]!r} is not among the {what}")
        if not isinstance(annotation["id"], (int, str)) or annotation["id"] in seen:
            raise ValueError(f"{where}: the id {annotation['id']!r} is that of an earlier one, or none")
        seen.add(annotation["id"])
        check_segmentation(annotation["segmentation"], where)
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    for index, image in enumerate(by_id.values()):
        size = [image.get("height"), image.get("width")]
        if is_numbers(size, int) and max(size) >= 2**31:
            raise ValueError(f"{path}: image {index}: a size of {size} pixels is none")
        yield {
            "image_id": str(image["id"]),
            "image": inside(images, image["file_name"], f"{path}: image {index}", "file_name"),
            "size": size if is_numbers(size, int) and all(size) else [],
            "annotations": [
                annotation_row(annotation, f"{path}: annotation id {annotation['id']}")
                for annotation in annotations.get(image["id"], ())
            ],
        }


def check_segmentation(segmentation: object, where: str) -> None:
    """Raises `ValueError` unless `segmentation` has the form of one; whether it is a mask is seen when it is drawn."""
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if isinstance(counts, str) or is_numbers(counts, int):
            if is_numbers(size, int) and len(size) == 2:
                return
        raise ValueError(f"{where}: an RLE needs 'counts', a text or a list of whole numbers, and 'size', two of them")
    if not isinstance(segmentation, list) or not all(is_numbers(polygon, (int, float)) for polygon in segmentation):
        raise ValueError(f"{where}: its segmentation is neither a list of polygons, each a list of numbers, nor an RLE")


def is_numbers(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether `value` is a list of numbers of this `kind`, none of them beyond what 64 bits hold."""
    return isinstance(value, list) and all(
        isinstance(number, kind) and not isinstance(number, bool) and (isinstance(number, float) or abs(number) < 2**53)
        for number in value
    )


def annotation_row(annotation: dict, where: str) -> dict:
    """An annotation as `INSTANCE`; raises `ValueError`, naming `where`, for a crowd that is neither 0 nor 1."""
    segmentation = annotation["segmentation"]
    runs = segmentation if isinstance(segmentation, dict) else {"counts": [], "size": []}
    compressed = isinstance(runs["counts"], str)
    return {
        "id": str(annotation["id"]),
        "category_id": annotation["category_id"],
        "iscrowd": int(read_flag(annotation.get("iscrowd"), "iscrowd", where)),
        "polygons": segmentation if isinstance(segmentation, list) else [],
        "counts": [] if compressed else runs["counts"],
        "text": runs["counts"] if compressed else "",
        "size": runs["size"],
    }


def without_short_polygons(row: dict) -> dict:
    """`row` without polygons that are none, and without annotations that have no others."""
    kept = []
    for annotation in row["annotations"]:
        polygons = [p for p in annotation["polygons"] if len(p) >= SMALLEST and len(p) % 2 == 0]
        if polygons or annotation["size"]:
            kept.append({**annotation, "polygons": polygons})
    return {**row, "annotations": kept}


def has_object(row: dict) -> bool:
    """Whether there is anything in `row` to learn."""
    return any(not annotation["iscrowd"] for annotation in row["annotations"])


def decode(path: str, labels: LabelSet, row: dict) -> Example:
    """Reads the image of one row, and draws its masks; `path` is the annotation file."""
    image = read_image(row["image"])
    shape = image.shape[:2]
    if row["size"] and tuple(row["size"]) != shape:
        where = f"{path}: image {row['image_id']} ({row['image']})"
        raise BadSample(size_mismatch(where, tuple(row["size"]), row["image"], shape))
    contiguous = labels.contiguous_ids()
    masks: list[tuple[int, np.ndarray]] = []
    segments_info = []
    for annotation in row["annotations"]:
        try:
            mask = instance_mask(annotation, shape)
        except ValueError as error:
            raise BadSample(f"{path}: annotation id {annotation['id']} of {row['image']}: {error}") from error
        if mask.any():
            number = len(masks) + 1
            masks.append((number, mask))
            label_id = contiguous[annotation["category_id"]]
            segments_info.append({"id": number, "label_id": label_id, "iscrowd": annotation["iscrowd"]})
    segmentation = pack(masks, shape)
    return Example(image=image, segmentation=segmentation, segments_info=segments_info, image_id=row["image_id"])


def instance_mask(annotation: dict, shape: tuple[int, int]) -> np.ndarray:
    """The mask of an `INSTANCE`, bool `shape` (H, W). Raises `ValueError` where it has none."""
    if annotation["size"]:
        counts = annotation["counts"] or read_run_lengths(annotation["text"])
        return run_lengths_mask(counts, annotation["size"], shape)
    if not annotation["polygons"]:
        raise ValueError("its segmentation is empty; masks are needed, boxes are not enough")
    return polygons_mask(annotation["polygons"], shape)
