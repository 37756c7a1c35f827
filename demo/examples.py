"""The images that a visitor can try: generated scenes, or those of a folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from maskformer.data.shapes import render_scene
from maskformer.demo.uploads import read_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
MOST = 8
SCENE_SIZE = 256  # pixels a side: the network sees half of it, as it did in training, and the picture is finer


def generated_examples(folder: Path, count: int = 4) -> list[Path]:
    """Writes the first scenes of the `shapes` validation split into `folder`, and returns their paths."""
    paths = [folder / f"scene_{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(render_scene("validation", index, SCENE_SIZE)["image"]).save(path)
    return paths


def folder_examples(source: Path, folder: Path) -> list[Path]:
    """Writes the first images of `source`, upright and not too large, into `folder`, and returns their paths.

    Copies, since the server shows files of its own folder only. Raises `ValueError` for a folder that is missing or
    holds no image, and for an image that cannot be read.
    """
    if not source.is_dir():
        raise ValueError(f"{source}: there is no such folder of examples")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)[:MOST]
    if not found:
        raise ValueError(f"{source} holds no image ({', '.join(sorted(SUFFIXES))})")
    paths = []
    for number, path in enumerate(found):
        try:
            image = read_image(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        paths.append(folder / f"{number}_{path.stem}.png")
        Image.fromarray(image).save(paths[-1])
    return paths
