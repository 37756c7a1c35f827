"""Small trees with the file names and encodings of ADE20K and Mapillary Vistas."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from maskformer.data.example import Source
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared

SIZE = (16, 24)


def save(pixels: np.ndarray, path: Path) -> None:
    """Writes an image file of `pixels`, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photograph(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise, uint8 (H, W, 3)."""
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


def blocks(values: list[list[int]], dtype: type = np.uint8) -> np.ndarray:
    """A map of 8 x 8 blocks: `values` of 2 x 3 become (16, 24)."""
    return np.kron(np.array(values), np.ones((8, 8), int)).astype(dtype)  # (16, 24)


def colors(red: np.ndarray, green: np.ndarray) -> np.ndarray:
    """Two maps (H, W) as the red and green of an RGB image; blue holds something that no reader may look at."""
    return np.stack((red, green, np.full_like(red, 77)), axis=2).astype(np.uint8)  # (H, W, 3)


# Red counts the things from 1: 1 is bed (label 7), 2 is window (label 8), 4 is person (label 12), 100 is flag (149).
INSTANCE_RED = [[0, 1, 1], [4, 4, 100]]
INSTANCE_GREEN = [[0, 3, 1], [9, 2, 255]]


def write_ade20k(folder: Path, count: int = 2) -> Path:
    """`ADEChallengeData2016` in `folder`, with instances; the training split has `count` images, the other one less.

    Images differ in which blocks of `annotations/` are void, from block 0 on.
    """
    root = folder / "ADEChallengeData2016"
    for part, name, images in (("training", "train", count), ("validation", "val", count - 1)):
        for index in range(images):
            stem = f"ADE_{name}_{index + 1:08d}"
            values = np.array([1, 8, 8, 13, 3, 150])
            values[:index] = 0
            save(photograph(index), root / "images" / part / f"{stem}.jpg")
            save(blocks(values.reshape(2, 3)), root / "annotations" / part / f"{stem}.png")
            instances = colors(blocks(INSTANCE_RED), blocks(INSTANCE_GREEN))
            save(instances, root / "annotations_instance" / part / f"{stem}.png")
    return folder


def class_colors(numbers: np.ndarray) -> np.ndarray:
    """Class numbers (H, W) as ADE20K's `_seg.png` holds them: red is ten times the upper byte, green the lower."""
    return colors(numbers // 256 * 10, numbers % 256)


def write_ade20k_full(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """`ADE20K_2021_17_01` in `folder`: a photograph and `_seg.png` for each "SPLIT/TOPIC/SCENE/NAME" of class numbers.

    Beside each lies the folder of its objects' masks, as in the download.
    """
    for index, (name, numbers) in enumerate(maps.items()):
        path = folder / "ADE20K_2021_17_01" / "images" / "ADE" / name
        save(photograph(index, numbers.shape), path.with_name(f"{path.name}.jpg"))
        save(class_colors(numbers), path.with_name(f"{path.name}_seg.png"))
        save(class_colors(numbers), path.with_name(f"{path.name}_parts_1.png"))
        save(photograph(index), path / "instance_000_objects.jpg")
        path.with_name(f"{path.name}.json").write_text("{}")
    return folder


def write_ade20k_full_prepared(folder: Path) -> Path:
    """`ADE20K_2021_17_01` in `folder`, as the official preparation leaves it: 16-bit TIFFs, 65535 void."""
    root = folder / "ADE20K_2021_17_01"
    for part, name in (("training", "train"), ("validation", "val")):
        save(photograph(0), root / "images_detectron2" / part / f"ADE_{name}_00000001.jpg")
        values = blocks([[0, 1, 255], [256, 846, 65535]], np.uint16)
        save(values, root / "annotations_detectron2" / part / f"ADE_{name}_00000001.tif")
    return folder


def write_mapillary_vistas(folder: Path, labels: str = "labels") -> Path:
    """The archive of Mapillary Vistas in `folder`, its label maps in `labels` of each split."""
    for part in ("training", "validation"):
        for index, stem in enumerate(("-1JEyeOYVPUTdAhP5u9uJw", "b2 _x")):
            save(photograph(index), folder / part / "images" / f"{stem}.jpg")
            picture = Image.fromarray(blocks([[0, 1, 30], [55, 64, 65]]), "P")
            picture.putpalette(list(range(256)) * 3)
            path = folder / part / labels / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return folder


def assert_prepared_the_same(source: Source, split: str, folder: Path) -> None:
    """Prepares `source` in `folder`, and compares what is read of that with what the source gives, after a journey."""
    source = pickle.loads(pickle.dumps(source))
    prepare([Job.of(split, source, {"source": "test"}, 1, False)], folder)
    result = load_prepared(folder, split)
    assert result.labels == source.labels and len(result) == len(source)
    for index in range(len(source)):
        np.testing.assert_equal(result[index], source[index])
        assert result[index]["segmentation"].dtype == source[index]["segmentation"].dtype == np.int32
