"""Cityscapes as downloaded: `leftImg8bit/` with the photographs and `gtFine/` with the fine annotations, by city.

Its 34 ids are those of the official label list, of which 19 are evaluated; all others are void. `labelIds` maps hold
ids. `instanceIds` maps hold id * 1000 + number where instances were told apart, and the id alone for stuff and for
groups of things, which are crowds.
"""

from __future__ import annotations

import functools
from pathlib import Path

import datasets

from maskformer.data import instance_maps, semantic_folder
from maskformer.data.arrow import map_rows
from maskformer.data.example import Source
from maskformer.data.label_set import load_label_set
from maskformer.data.official_layout import dataset_root, require_folder

OFFICIAL_NAMES = {"train": "train", "validation": "val"}
IMAGE_SUFFIX = "_leftImg8bit.png"
# 0 to 33 are all ids; a licence plate is -1, which is 255 in 8 bits.
KNOWN_IDS = frozenset({*range(34), 255})


def load_cityscapes(folder: str | Path, split: str) -> Source:
    """Semantic segmentation: the `train` or `validation` split of the Cityscapes that `folder` is or contains.

    Raises `ValueError` where a folder is missing or holds no image, or where two images share a name.
    """
    labels = load_label_set("cityscapes-19")
    table = semantic_folder.value_table(labels, ignore_index=None, reduce_labels=False)
    table[sorted(KNOWN_IDS - set(labels.source_ids))] = 0
    rows = map_names(folder, split, "label", "labelIds")
    return Source(rows, labels, functools.partial(semantic_folder.decode, labels, table))


def load_cityscapes_panoptic(folder: str | Path, split: str) -> Source:
    """Panoptic segmentation: as `load_cityscapes`, with a segment for each instance and crowds for groups."""
    labels = load_label_set("cityscapes-19")
    divide = functools.partial(instance_maps.split_values, labels, void=KNOWN_IDS - set(labels.source_ids))
    rows = map_names(folder, split, "panoptic", "instanceIds")
    return Source(rows, labels, functools.partial(instance_maps.decode, divide))


def map_names(folder: str | Path, split: str, column: str, kind: str) -> datasets.Dataset:
    """Rows of `image_id`, as `aachen_000000_000019`, `image`, and the path of the map of this `kind` in `column`."""
    folder = dataset_root(folder, "cityscapes")
    images, maps = (folder / name / OFFICIAL_NAMES[split] for name in ("leftImg8bit", "gtFine"))
    for path in (images, maps):
        require_folder(
            path,
            f"leftImg8bit/{path.name}/CITY/*{IMAGE_SUFFIX} of leftImg8bit_trainvaltest.zip and"
            f" gtFine/{path.name}/CITY/*_gtFine_{kind}.png of gtFine_trainvaltest.zip are needed",
        )
    pictures = sorted(path for path in images.glob(f"*/*{IMAGE_SUFFIX}") if path.name[0] != ".")
    if not pictures:
        raise ValueError(f"{images}: the dataset is empty; there is no CITY/*{IMAGE_SUFFIX} in this folder")

    def rows():
        cities = {}
        for path in pictures:
            name, city = path.name.removesuffix(IMAGE_SUFFIX), path.parent.name
            if name in cities:
                raise ValueError(f"{path}: the folder of {cities[name]} has an image of this name too")
            cities[name] = city
            yield {"image_id": name, "image": str(path), column: str(maps / city / f"{name}_gtFine_{kind}.png")}

    return map_rows(rows(), datasets.Features({key: datasets.Value("string") for key in ("image_id", "image", column)}))
