"""ADE20K-Full: the 847 labels that the paper takes from all classes of ADE20K, release 2021_17_01."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.official_layout import SPLIT_FOLDERS, dataset_root, paired_rows, require_folder
from maskformer.data.semantic_folder import FEATURES, decode, read_color_map, semantic_example
from maskformer.image_processing.image_loading import open_image

ROOT = "ADE20K_2021_17_01"
LAYOUT = (
    f"expected is {ROOT}/images/ADE/ with training/ and validation/, or {ROOT}/images_detectron2/ and"
    f" {ROOT}/annotations_detectron2/ with them, which MaskFormer's official preparation writes"
)
SHORT_SIDE = 512
VOID_16_BIT = 65535


def load_ade20k_full(folder: str | Path, split: str) -> Source:
    """ADE20K-Full; `folder` is `ADE20K_2021_17_01` or holds it.

    Where the files of MaskFormer's official preparation are there, they are read: `images_detectron2/` and 16-bit
    TIFFs of labels, void 65535. Otherwise the photographs of `images/ADE/` are, each with its `_seg.png`, and made
    smaller as that preparation does, to a short side of 512. Classes that are not among the 847 are void.

    Raises `ValueError` where folders are missing, there is no photograph, or two have the same name.
    """
    root, part = dataset_root(folder, ROOT), SPLIT_FOLDERS[split]
    labels = load_label_set("ade20k-full-847")
    if (root / "images_detectron2" / part).is_dir():
        rows = paired_rows(root / "images_detectron2" / part, root / "annotations_detectron2" / part, LAYOUT, ".tif")
        read = functools.partial(decode, labels, prepared_table(labels))
    else:
        rows = original_rows(require_folder(root / "images" / "ADE" / part, LAYOUT))
        read = functools.partial(decode_original, class_table(labels))
    return Source(map_rows(rows, FEATURES), labels, read)


def prepared_table(labels: LabelSet) -> np.ndarray:
    """Segment id of each value in the official 16-bit files: label id + 1, 0 for void, -1 for none; int32 (65537,)."""
    table = np.full(65537, -1, dtype=np.int32)
    table[: len(labels)] = np.arange(1, len(labels) + 1)
    table[VOID_16_BIT] = 0
    return table


def class_table(labels: LabelSet) -> np.ndarray:
    """Segment id of each class number in a `_seg.png`: label id + 1, or 0 for what is no label; int32 (6656,)."""
    table = np.zeros(26 * 256, dtype=np.int32)  # red // 10 is at most 25
    table[list(labels.source_ids)] = np.arange(1, len(labels) + 1)
    return table


def original_rows(folder: Path) -> Iterator[dict]:
    """Rows of NAME.jpg with NAME_seg.png, anywhere below `folder`, in the order of their paths.

    Raises `ValueError` where there is no photograph, or two have the same name.
    """
    seen: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        stems = sorted(name.removesuffix(".jpg") for name in files if name.endswith(".jpg") and name[0] != ".")
        # Beside NAME.jpg the folder NAME/ holds masks of its objects, a hundred files and no photograph.
        folders[:] = sorted(set(folders).difference(stems))
        for stem in stems:
            path = os.path.join(parent, stem)
            if stem in seen:
                raise ValueError(f"{path}.jpg: {seen[stem]} has a photograph of this name already")
            seen[stem] = parent
            yield {"image_id": stem, "image": f"{path}.jpg", "label": f"{path}_seg.png"}
    if not seen:
        raise ValueError(f"{folder}: the dataset is empty; there is no *.jpg in the folders below")


def decode_original(table: np.ndarray, row: dict) -> Example:
    """Reads a photograph and its `_seg.png`, and makes them smaller."""
    image, colors = read_as_stored(row["image"]), read_color_map(row["label"])
    if colors.shape != image.shape:
        raise BadSample(f"{row['label']}: {colors.shape[:2]} pixels, but its image has {image.shape[:2]}")
    classes = colors[..., 0].astype(np.int32) // 10 * 256 + colors[..., 1]  # (H, W)
    image, classes = shrink(image, classes)
    return semantic_example(image, table[classes], row["image_id"])


def read_as_stored(path: str) -> np.ndarray:
    """A photograph as uint8 (H, W, 3), RGB, not turned by its EXIF orientation: the official preparation ignores it."""
    try:
        with open_image(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise BadSample(f"{path}: there is no such image file") from None
    except Exception as error:  # the decoders of damaged files raise a dozen different kinds
        raise BadSample(f"{path}: not a readable image ({error})") from error


def shrink(image: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and a map (H, W) with a short side of 512, or as they are where theirs is not longer.

    The image is interpolated bilinearly, without smoothing; the map takes the pixel at or before each position.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= SHORT_SIDE:
        return image, classes
    size = [SHORT_SIDE if side == short else round(side / short * SHORT_SIDE) for side in (height, width)]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()  # (1, 3, H, W)
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)  # (1, 3, h, w)
    rows, columns = (nearest_before(old, new) for old, new in zip((height, width), size, strict=True))
    return pixels[0].permute(1, 2, 0).round().byte().numpy(), classes[rows[:, None], columns]  # (h, w, 3), (h, w)


def nearest_before(old: int, new: int) -> np.ndarray:
    """The position among `old` pixels, rounded down, of each of `new` ones that take their place; int (new,)."""
    # By way of the scale and in doubles, as OpenCV: position 64 of 744 to 512 is 92, though 64 * 744 / 512 is 93.
    return np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(int), old - 1)
