"""Where the files of a benchmark lie, as its makers distribute them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from maskformer.data.nearest import nearest_path

SPLIT_FOLDERS = {"train": "training", "validation": "validation"}  # as ADE20K and Mapillary Vistas name them


def dataset_root(folder: str | Path, name: str) -> Path:
    """The dataset's own folder `name`: in `folder`, or `folder` itself."""
    folder = Path(folder)
    return folder / name if (folder / name).is_dir() else folder


def require_folder(folder: Path, layout: str) -> Path:
    """`folder`; raises `ValueError` where it is missing, with the `layout` that is expected."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; {layout}{nearest_path(folder)}")
    return folder


def file_stems(folder: Path, suffix: str, layout: str) -> list[str]:
    """The names, in their order and without `suffix`, of the files in `folder` that end in it.

    Raises `ValueError` where the folder is missing, with the `layout` that is expected, or holds no such file.
    """
    with os.scandir(require_folder(folder, layout)) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(suffix) and entry.name[0] != "."]
    if not names:
        raise ValueError(f"{folder}: the dataset is empty; there is no *{suffix} in this folder")
    return [name.removesuffix(suffix) for name in sorted(names)]


def paired_rows(images: Path, labels: Path, layout: str, suffix: str = ".png") -> Iterator[dict]:
    """Rows of `images`/NAME.jpg with `labels`/NAME`suffix`, as the semantic sources have them.

    Raises `ValueError` where one of the folders is missing, with the `layout` that is expected, or there is no image.
    """
    stems = file_stems(images, ".jpg", layout)
    require_folder(labels, layout)
    for stem in stems:
        yield {"image_id": stem, "image": str(images / f"{stem}.jpg"), "label": str(labels / f"{stem}{suffix}")}
