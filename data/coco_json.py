"""What COCO's annotation files have in common: three lists, of images, annotations and categories."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from maskformer.data.files import read_json
from maskformer.data.label_set import LabelSet
from maskformer.data.official_layout import dataset_root, require_folder

SPLITS = {"train": "train2017", "validation": "val2017"}


def read_coco_json(path: Path, needs: str) -> dict:
    """The content of an annotation file; `needs` says what for.

    Raises `ValueError`, naming the file, where it is missing, does not parse, or lacks one of the lists.
    """
    content = read_json(path, needs)
    for field in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise ValueError(f"{path}: the list {field!r} is missing")
    return content


def images_by_id(path: Path, content: dict) -> dict[int | str, dict]:
    """The images of an annotation file by their ids.

    Raises `ValueError`, naming the entry, for images without an id or a file name, and for ids that occur twice.
    """
    images: dict[int | str, dict] = {}
    seen = set()  # 1 and "1" would be one image id
    for index, image in enumerate(content["images"]):
        where = f"{path}: image {index}"
        require_fields(image, ("id", "file_name"), where)
        if not isinstance(image["id"], (int, str)) or not isinstance(image["file_name"], str) or not image["file_name"]:
            raise ValueError(f"{where}: 'id' must be a number or a name, and 'file_name' a name: {image!r}")
        if str(image["id"]) in seen:
            raise ValueError(f"{where}: an earlier image has the id {image['id']!r} already")
        seen.add(str(image["id"]))
        images[image["id"]] = image
    return images


def require_fields(entry: object, fields: tuple[str, ...], where: str) -> None:
    """Raises `ValueError`, naming `where`, unless `entry` is a mapping with these `fields`."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}, not a mapping")
    missing = [field for field in fields if field not in entry]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}")


def is_among(known: Container, value: object) -> bool:
    """Whether `value`, which may be anything that JSON holds, is an id that is `known`."""
    return isinstance(value, (int, str)) and value in known


def coco_2017(folder: str | Path, split: str, kind: str, layout: str) -> tuple[Path, Path]:
    """The annotation file of this `kind` and the folder of the images of COCO 2017, which `folder` is or contains.

    Raises `ValueError` where there is no folder of images, with the `layout` that is expected.
    """
    folder, name = dataset_root(folder, "coco"), SPLITS[split]
    return folder / "annotations" / f"{kind}_{name}.json", require_folder(folder / name, layout)


def check_categories(path: Path, content: dict, labels: LabelSet) -> None:
    """Raises `ValueError`, naming the entry, unless all categories of an annotation file are among the `labels`."""
    names = dict(zip(labels.source_ids, labels.names, strict=True))
    for index, category in enumerate(content["categories"]):
        where = f"{path}: categories: entry {index}"
        require_fields(category, ("id", "name"), where)
        if names.get(category["id"]) != category["name"]:
            raise ValueError(
                f"{where}: the id {category['id']!r} is {category['name']!r}, but in COCO 2017 it is"
                f" {names.get(category['id'], 'no label')!r}; data with labels of their own are read by another source,"
                " see docs/datasets.md"
            )
