"""Prepared data: parquet shards with everything an example needs, `SPLIT-00000-of-00004.parquet` beside two JSON files.

`labels.json` holds the categories as COCO writes them; `manifest.json` says what each shard is: rows, bytes, SHA-256.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.splits import SplitDict, SplitInfo
from PIL import Image

from maskformer.data.example import BadSample, Example, Source
from maskformer.data.files import inside, read_json
from maskformer.data.label_set import LabelSet
from maskformer.image_processing.image_loading import open_image, to_rgb

MANIFEST, LABELS = "manifest.json", "labels.json"
FORMAT = "maskformer-prepared-1"  # the `format` of a manifest
RECORD = ("file", "rows", "bytes", "sha256", "skipped")  # what it says of a shard
SEGMENT = {"id": datasets.Value("int32"), "label_id": datasets.Value("int32"), "iscrowd": datasets.Value("int8")}
FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(),
        "segmentation": datasets.List(datasets.Image()),  # one PNG a map
        "overlapping": datasets.Value("bool"),  # the maps are (P, H, W), also where P is 1
        "segments_info": datasets.List(SEGMENT),
    }
)
# The same columns, read as bytes: `decode_prepared` opens the images.
ENCODED = datasets.Features(
    FEATURES | {"image": datasets.Image(decode=False), "segmentation": datasets.List(datasets.Image(decode=False))}
)


def encode_example(source: Source, index: int) -> dict:
    """Example `index` of `source` as a row of a shard.

    The image is the file that the source's row names, byte for byte, where that gives the example's pixels, and a PNG
    of the pixels otherwise. Raises `BadSample` where the example cannot be used.
    """
    row = source.rows[index]
    example = source.decode(row)
    maps = example["segmentation"]
    if maps.max(initial=0) > 65535:
        raise BadSample(f"{example['image_id']}: the segment id {maps.max()} does not fit into a 16-bit PNG")
    return {
        "image_id": example["image_id"],
        "image": {"bytes": image_bytes(row.get("image"), example["image"]), "path": None},
        "segmentation": [
            {"bytes": png_bytes(ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.uint16)), "path": None}
            for ids in (maps if maps.ndim == 3 else maps[None])  # each (H, W)
        ],
        "overlapping": maps.ndim == 3,
        "segments_info": [
            {"id": info["id"], "label_id": info["label_id"], "iscrowd": int(info.get("iscrowd", 0))}
            for info in example["segments_info"]
        ],
    }


def image_bytes(original: Any, pixels: np.ndarray) -> bytes:
    """A file of the image `pixels`: the `original` (a path, or a dict with `bytes`) if it decodes to them, or a PNG."""
    if isinstance(original, dict):  # an image of `datasets`
        original = original.get("bytes") or original.get("path")
    content = Path(original).read_bytes() if isinstance(original, (str, os.PathLike)) else original
    if isinstance(content, bytes):
        try:
            if np.array_equal(decode_image(content), pixels):
                return content
        except Exception:  # the source knows how to read it, the common decoder does not: the pixels are what counts
            pass
    return png_bytes(pixels)


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W, 3), or of uint8 or uint16 (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def decode_image(content: bytes) -> np.ndarray:
    """The image in a file's bytes, as `load_image` reads files: uint8 (H, W, 3), RGB, upright."""
    with open_image(io.BytesIO(content)) as image:
        return to_rgb(image)


def decode_prepared(row: dict) -> Example:
    """The example in a row of a shard; raises `BadSample`, naming the image, where its bytes are damaged."""
    try:
        image = decode_image(row["image"]["bytes"])
        maps = []
        for png in row["segmentation"]:
            with open_image(io.BytesIO(png["bytes"])) as ids:
                maps.append(np.array(ids).astype(np.int32))  # (H, W)
        stack = np.array(maps, dtype=np.int32).reshape(-1, *image.shape[:2])  # (P, H, W), also where P is 0
    except Exception as error:  # the decoders of damaged files raise a dozen different kinds
        raise BadSample(f"image {row['image_id']!r} of the prepared data: damaged ({error})") from error
    return Example(
        image=image,
        segmentation=stack if row["overlapping"] else stack[0],
        segments_info=[dict(info) for info in row["segments_info"]],
        image_id=row["image_id"],
    )


def load_prepared(folder: str | Path, split: str, streaming: bool = False) -> Source:
    """The `split` of the prepared data in `folder`, without decoding an image.

    Its rows are a memory-mapped dataset or, with `streaming`, an `IterableDataset` with one shard a file, whose
    `info.splits[split].shard_lengths` tells their rows. Such a source has neither a length nor examples by index.

    Raises `ValueError`, naming the file, where the manifest is missing or lacks the split, or where a shard is missing
    or is not as long as the manifest says. `preparation.verify` compares the contents too.
    """
    folder = Path(folder)
    shards = check_shards(folder, split)
    if not sum(shard["rows"] for shard in shards):
        raise ValueError(f"{folder / MANIFEST}: the {split} split is empty")
    rows = datasets.load_dataset(
        "parquet",
        data_files={split: [str(folder / shard["file"]) for shard in shards]},
        split=split,
        streaming=streaming,
        features=ENCODED,
    )
    if streaming:
        lengths = [shard["rows"] for shard in shards]
        rows.info.splits = SplitDict({split: SplitInfo(split, num_examples=sum(lengths), shard_lengths=lengths)})
    return Source(rows, read_categories(folder), decode_prepared)


def read_manifest(folder: Path) -> dict:
    """The manifest of prepared data.

    Raises `ValueError` where it is missing, which is so until all shards are written, is not one of this format, or
    lacks a field.
    """
    path = folder / MANIFEST
    manifest = read_json(path, "scripts/prepare_dataset.py writes it, as the last file")
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("splits"), dict)
    ):
        raise ValueError(f"{path}: not a manifest of prepared data; its 'format' is not {FORMAT!r}")
    for split, content in manifest["splits"].items():
        if not isinstance(content, dict) or not isinstance(content.get("shards"), list):
            raise ValueError(f"{path}: the split {split!r} has no list 'shards'")
        for index, shard in enumerate(content["shards"]):
            missing = [name for name in RECORD if not isinstance(shard, dict) or name not in shard]
            if missing:
                raise ValueError(f"{path}: shard {index} of {split} has no {missing[0]!r}")
            for name, kind in (("file", str), ("rows", int), ("bytes", int), ("sha256", str), ("skipped", list)):
                if not isinstance(shard[name], kind):
                    raise ValueError(
                        f"{path}: shard {index} of {split}: {name} is {shard[name]!r}; the file is damaged"
                    )
    return manifest


def read_categories(folder: Path) -> LabelSet:
    """The label set in `labels.json`."""
    path = folder / LABELS
    content = read_json(path, "it holds the categories of prepared data")
    if not isinstance(content, list):
        raise ValueError(f"{path}: a list of categories is needed")
    return LabelSet.from_categories(content, where=str(path))


def categories_with_source_ids(labels: LabelSet) -> list[dict]:
    """COCO categories of a label set, in its order and under the ids that the dataset's own files use."""
    return [
        {**category, "id": source_id, "color": list(category["color"])}
        for category, source_id in zip(labels.categories, labels.source_ids, strict=True)
    ]


def check_shards(folder: Path, split: str) -> list[dict]:
    """The manifest's entries of a split's shards, each with `file`, `rows`, `bytes`, `sha256` and `skipped`.

    Raises `ValueError` for a split that is not there, and for a shard that is missing or of another size.
    """
    path = folder / MANIFEST
    splits = read_manifest(folder)["splits"]
    if split not in splits:
        raise ValueError(f"{path}: there is no split {split!r}; there is {', '.join(sorted(splits)) or 'none'}")
    for index, shard in enumerate(splits[split]["shards"]):
        file = Path(inside(folder, shard["file"], f"{path}: shard {index} of {split}", "file"))
        if not file.is_file():
            raise ValueError(
                f"{file}: the shard is missing; run scripts/prepare_dataset.py again, which writes it anew"
            )
        if file.stat().st_size != shard["bytes"]:
            raise ValueError(
                f"{file}: {file.stat().st_size} bytes, but the manifest says {shard['bytes']}; delete the file and run"
                " scripts/prepare_dataset.py again, which writes it anew"
            )
    return splits[split]["shards"]
