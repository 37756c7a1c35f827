"""Small repositories of parquet files or images, laid out and with columns as on the Hub."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from maskformer.data.hub import HubDataset

SIZE = (16, 24)  # of the images
SEGMENTS_INFO = datasets.List(
    {
        "id": datasets.Value("int64"),
        "category_id": datasets.Value("int64"),
        "iscrowd": datasets.Value("int64"),
        "bbox": datasets.List(datasets.Value("int64")),
        "area": datasets.Value("int64"),
    }
)


def encoded(pixels: np.ndarray, path: str | None = None, kind: str = "PNG", **options) -> dict:
    """An image as parquet files hold it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": path}


def photograph(index: int) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def blocks(*values: int) -> np.ndarray:
    """A map with a vertical stripe of each value, (H, W) of int64."""
    return np.array(values).repeat(SIZE[1] // len(values))[None].repeat(SIZE[0], axis=0)


def write_parquet(folder: Path, split: str, rows: list[dict], features: dict, files: int = 1, data: str = "data"):
    """Parquet files of a split, as `push_to_hub` names them, images as images."""
    (folder / data).mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in features}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for index in range(files):
        part = table.shard(files, index, contiguous=True)
        part.to_parquet(folder / data / f"{split}-{index:05d}-of-{files:05d}.parquet")


def write_semantic(
    folder: Path, maps: list[np.ndarray], split: str = "train", files: int = 1, data: str = "data", **columns
) -> Path:
    """Images and label maps in the columns `image` and `label`; `columns` are more of them, as lists."""
    rows = [
        {
            "image": encoded(photograph(index), f"{index}.png"),
            "label": encoded(values.astype(np.uint8)),
            **{name: cells[index] for name, cells in columns.items()},
        }
        for index, values in enumerate(maps)
    ]
    features = {"image": datasets.Image(), "label": datasets.Image()}
    for name, cells in columns.items():
        features[name] = datasets.Value("string" if isinstance(cells[0], str) else "int64")
    write_parquet(folder, split, rows, features, files, data)
    return folder


def panoptic_rows(count: int = 2) -> list[dict]:
    """Rows of nielsr/coco-panoptic-val2017: ids in three bytes, category ids of COCO, one crowd."""
    ids = blocks(0, 70000, 258, 9)
    png = np.stack((ids % 256, ids // 256 % 256, ids // 65536), axis=2).astype(np.uint8)  # (H, W, 3)
    segments = [
        {"id": segment, "category_id": category, "iscrowd": crowd, "bbox": [0, 0, 1, 1], "area": 1}
        for segment, category, crowd in ((70000, 1, 0), (258, 1, 1), (9, 200, 0))
    ]
    return [
        {"image": encoded(photograph(i), f"{i:012d}.jpg"), "label": encoded(png), "segments_info": segments}
        for i in range(count)
    ]


PANOPTIC = {"image": datasets.Image(), "label": datasets.Image(), "segments_info": SEGMENTS_INFO}


def named(folder, **settings) -> HubDataset:
    """The dataset in `folder`."""
    return HubDataset(str(folder), **settings)


NAMES = {"0": "road", "1": "car", "2": "sky"}
MAPS = [blocks(0, 1, 2), blocks(1, 255), blocks(2), blocks(0, 2, 255, 1)]
