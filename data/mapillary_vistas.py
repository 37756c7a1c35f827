"""Mapillary Vistas with the 65 labels of its version 1.2, as Mapillary distributes it."""

from __future__ import annotations

import functools
from pathlib import Path

from maskformer.data.arrow import map_rows
from maskformer.data.example import Source
from maskformer.data.label_set import load_label_set
from maskformer.data.official_layout import SPLIT_FOLDERS, dataset_root, paired_rows
from maskformer.data.semantic_folder import FEATURES, decode, value_table

ROOT = "mapillary_vistas"
LAYOUT = (
    "expected are training/ and validation/, each with images/ and labels/, or with images/ and v1.2/labels/ as in the"
    " download of version 2"
)
UNLABELED = 65
HINT = "the labels of version 2 are others: use those of v1.2"


def load_mapillary_vistas(folder: str | Path, split: str) -> Source:
    """Mapillary Vistas; `folder` is the unpacked archive, or holds it as `mapillary_vistas`.

    Label PNGs have a palette, and their indices are the labels, 65 void.
    Raises `ValueError` where a folder is missing or empty.
    """
    part = dataset_root(folder, ROOT) / SPLIT_FOLDERS[split]
    labels = load_label_set("mapillary-vistas-65")
    maps = part / "labels"
    if not maps.is_dir() and (part / "v1.2").is_dir():
        maps = part / "v1.2" / "labels"
    rows = map_rows(paired_rows(part / "images", maps, LAYOUT), FEATURES)
    table = value_table(labels, UNLABELED, reduce_labels=False)
    return Source(rows, labels, functools.partial(decode, labels, table, hint=HINT))
