"""Small COCO 2017 datasets on disk, in the official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from folders import write_json

SIZE = (16, 24)  # height, width
# Ids of segments as official PNGs have them: any number of 24 bits.
ROAD, CAR, CROWD = 5_000_000, 70_000, 300
SEGMENTS = [
    {"id": CAR, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 24, 4], "area": 96},
    {"id": CROWD, "category_id": 1, "iscrowd": 1, "bbox": [0, 4, 24, 4], "area": 96},
    {"id": ROAD, "category_id": 149, "iscrowd": 0, "bbox": [0, 8, 24, 4], "area": 96},
]


def panoptic_ids() -> np.ndarray:
    """Stripes of four rows: car, a crowd of people, road, void; int64 (16, 24)."""
    return np.repeat([CAR, CROWD, ROAD, 0], 4)[:, None].repeat(SIZE[1], axis=1)  # (16, 24)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    """A random photograph of `size` (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_coco_panoptic(folder: Path, maps: str = "annotations/panoptic_val2017") -> Path:
    """Two images of COCO panoptic's validation split; the second is the first with its stripes turned over."""
    ids = panoptic_ids()
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for number in (139, 285)
        ],
        "annotations": [
            {"image_id": number, "file_name": f"{number:012d}.png", "segments_info": SEGMENTS}
            for number in (285, 139)  # not in the order of the images
        ],
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person", "isthing": 1},
            {"id": 3, "name": "car", "supercategory": "vehicle", "isthing": 1},
            {"id": 149, "name": "road", "supercategory": "ground", "isthing": 0},
        ],
    }
    (folder / maps).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    write_json(folder / "annotations" / "panoptic_val2017.json", content)
    for number, picture in ((139, ids), (285, ids[::-1])):
        write_image(folder / "val2017" / f"{number:012d}.jpg", number)
        png = np.stack((picture % 256, picture // 256 % 256, picture // 65536), axis=2)  # (H, W, 3)
        Image.fromarray(png.astype(np.uint8)).save(folder / maps / f"{number:012d}.png")
    return folder


def write_coco_instances(folder: Path, split: str = "val2017", annotations=(), images: int = 1) -> Path:
    """COCO instances with these `annotations` of the images 1, 2 ...; each gets an id unless it has one."""
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for number in range(1, images + 1)
        ],
        "annotations": [
            {"id": 900 + index, "image_id": 1, "category_id": 3, "iscrowd": 0, **annotation}
            for index, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    (folder / "annotations").mkdir(parents=True)
    write_json(folder / "annotations" / f"instances_{split}.json", content)
    for number in range(1, images + 1):
        write_image(folder / split / f"{number:012d}.jpg", number)
    return folder


def box(top: int, left: int, bottom: int, right: int) -> list[float]:
    """The polygon of the pixels of these rows and columns; the last ones are not in it."""
    return [left, top, right, top, right, bottom, left, bottom]


def box_mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """The pixels of `box`, bool (16, 24)."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def run_lengths(mask: np.ndarray) -> list[int]:
    """Runs of equal pixels down the columns, the first of them outside."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def assert_same_example(actual, expected) -> None:
    """Two examples are equal, in everything."""
    assert actual.keys() == expected.keys()
    for key in ("image", "segmentation"):
        assert actual[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(actual[key], expected[key])
    assert actual["segments_info"] == expected["segments_info"]
    assert actual["image_id"] == expected["image_id"]
