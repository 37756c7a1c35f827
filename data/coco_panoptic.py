"""COCO panoptic 2017, as its makers distribute it; the paper's panoptic dataset."""

from __future__ import annotations

from pathlib import Path

from maskformer.data.coco_json import check_categories, coco_2017, read_coco_json
from maskformer.data.example import Source
from maskformer.data.label_set import load_label_set
from maskformer.data.official_layout import require_folder
from maskformer.data.panoptic_folder import panoptic_source

LAYOUT = (
    "COCO panoptic is {train,val}2017/*.jpg, annotations/panoptic_{train,val}2017.json and the unpacked"
    " annotations/panoptic_{train,val}2017.zip, there or beside the images"
)


def load_coco_panoptic(folder: str | Path, split: str) -> Source:
    """The `train` or `validation` split of COCO panoptic, in `folder` or in `folder`/coco.

    Its crowds keep their `iscrowd`. Raises `ValueError`, naming file and entry, where a folder or annotation file
    is missing, or where the latter does not parse, has other categories, or contradicts itself.
    """
    path, images = coco_2017(folder, split, "panoptic", LAYOUT)
    # Where the official archive unpacks them, and where the official MaskFormer expects them.
    places = [path.with_suffix(""), images.parent / path.stem]
    maps = next((place for place in places if place.is_dir()), places[0])
    content = read_coco_json(path, LAYOUT)
    require_folder(maps, LAYOUT)
    labels = load_label_set("coco-panoptic-133")
    check_categories(path, content, labels)
    return panoptic_source(path, content, labels, images, maps)
