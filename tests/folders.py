"""Small datasets on disk, in the layouts that the sources read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from maskformer.data.shapes import SHAPES_LABELS, render_scene


def write_panoptic_folder(folder: Path, count: int = 4, split: str = "train", size: int = 128) -> Path:
    """Generated scenes in COCO panoptic format; category ids are label ids + 10, segment ids are above 256."""
    (folder / "images").mkdir(parents=True)
    (folder / "panoptic").mkdir()
    content = {"images": [], "annotations": [], "categories": []}
    for category in SHAPES_LABELS.categories:
        content["categories"].append({**category, "id": category["id"] + 10})
    for index in range(count):
        scene = render_scene(split, index, size)
        ids = np.where(scene["segmentation"] > 0, scene["segmentation"] * 300, 0)
        png = np.stack((ids % 256, ids // 256 % 256, ids // 65536), axis=2).astype(np.uint8)  # (H, W, 3)
        Image.fromarray(scene["image"]).save(folder / "images" / f"{index}.png")
        Image.fromarray(png).save(folder / "panoptic" / f"{index}.png")
        content["images"].append({"id": index, "file_name": f"{index}.png", "height": size, "width": size})
        content["annotations"].append(
            {
                "image_id": index,
                "file_name": f"{index}.png",
                "segments_info": [
                    {"id": info["id"] * 300, "category_id": info["label_id"] + 10, "iscrowd": 0}
                    for info in scene["segments_info"]
                ],
            }
        )
    write_json(folder / "panoptic.json", content)
    return folder


def write_semantic_folder(folder: Path, count: int = 3) -> Path:
    """Random images of three labels, with void pixels of 255."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        image = random.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        labels = random.choice([0, 1, 2, 255], (5, 7)).astype(np.uint8).repeat(8, 0).repeat(8, 1)  # (40, 56)
        Image.fromarray(image).save(folder / "images" / f"{index}.jpg")
        Image.fromarray(labels).save(folder / "labels" / f"{index}.png")
    write_json(folder / "labels.json", ["road", "car", "sky"])
    return folder


def write_json(path: Path, content) -> None:
    """Writes `content` as JSON."""
    path.write_text(json.dumps(content))


def edit_json(path: Path, edit) -> None:
    """Applies the function `edit` to the content of a JSON file."""
    content = json.loads(path.read_text())
    edit(content)
    write_json(path, content)
