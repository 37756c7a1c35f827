"""Predictions in the formats of others: COCO panoptic, COCO results, and the label maps that test servers take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from maskformer.data.example import Example
from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.evaluation.answers import Answer
from maskformer.training.checkpoint import remove, replace_folder

LONGEST_NAME = 200  # bytes of a file's name; file systems take 255, endings and temporary names included


class PredictionFolder:
    """Answers on disk, written into a working folder until all are there. In the dataset's own ids:

    - `semantic/ID.png`: the value of every pixel, 8-bit or, where a value exceeds 255, 16-bit;
    - `panoptic/ID.png` and `panoptic.json`: COCO's panoptic format; the id of a segment is R + 256 G + 65536 B;
    - `instances.json`: COCO's results format, with compressed RLE masks.

    ADE20K's values count from 1, as its server has it; `reduce_labels` says the same of one's own data. Raises
    `ValueError` for ids that 16 bits do not hold.
    """

    def __init__(self, working: Path, labels: LabelSet, reduce_labels: bool = False):
        self.working, self.folder, self.parts = working, working / "predictions", working / "parts"
        self.labels = labels
        first = int(reduce_labels or labels.names == load_label_set("ade20k-150").names)
        values = np.array(labels.source_ids) + first
        for name, source, value in zip(labels.names, labels.source_ids, values.tolist(), strict=True):
            if not 0 <= value < 65536:
                raise ValueError(f"the label {name!r} has the id {source}: label maps hold 0 to 65535, not {value}")
        self.values = values.astype(np.uint8 if values.max() < 256 else np.uint16)  # (K,)

    def write(self, example: Example, answer: Answer) -> None:
        """Writes the answers to one image; the JSON files follow at the end, in `finish`."""
        name = file_name(example)
        self._write_png(self.folder / "semantic" / f"{name}.png", self.values[answer.semantic.cpu().numpy()])
        part = {"image_id": coco_id(example["image_id"])}
        if answer.panoptic is not None:
            ids = answer.panoptic["segmentation"].cpu().numpy()  # (H, W)
            self._write_png(self.folder / "panoptic" / f"{name}.png", ids_as_colors(ids))
            infos = [self._segment(ids, info) for info in answer.panoptic["segments_info"]]
            part["panoptic"] = {"file_name": f"{name}.png", "segments_info": infos}
        if answer.instances is not None:
            pairs = zip(answer.instances["segmentation"], answer.instances["segments_info"], strict=True)
            part["instances"] = [
                {"category_id": self.labels.source_ids[info["label_id"]], "segmentation": rle, "score": info["score"]}
                for rle, info in pairs
            ]
        if len(part) > 1:
            write_json(self.parts / f"{example['index']:08d}.json", part)

    def holds(self, index: int, image_id: str) -> bool:
        """Whether the answers to an image lie in the working folder."""
        return (self.folder / "semantic" / f"{file_name({'index': index, 'image_id': image_id})}.png").is_file()

    def finish(self, folder: Path) -> None:
        """Makes the JSON files of all that `write` left, whichever process did; the answers then replace `folder`."""
        paths = sorted(self.parts.glob("[0-9]*.json"))
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        panoptic = [{"image_id": part["image_id"], **part["panoptic"]} for part in parts if "panoptic" in part]
        if panoptic:
            categories = [
                {**category, "id": source}
                for category, source in zip(self.labels.categories, self.labels.source_ids, strict=True)
            ]
            images = [{"id": annotation["image_id"]} for annotation in panoptic]
            content = {"images": images, "annotations": panoptic, "categories": categories}
            write_json(self.folder / "panoptic.json", content)
        if any("instances" in part for part in parts):
            found = [{"image_id": part["image_id"], **each} for part in parts for each in part["instances"]]
            write_json(self.folder / "instances.json", found)
        with replace_folder(folder) as new:
            new.rmdir()
            self.folder.rename(new)
        remove(self.working)  # of which the parts are left

    def _segment(self, ids: np.ndarray, info: dict) -> dict:
        """An entry of COCO's `segments_info`; `ids` (H, W) are those of all segments."""
        rle = coco_mask.encode(np.asfortranarray(ids == info["id"]).astype(np.uint8, order="F"))
        return {
            "id": info["id"],
            "category_id": self.labels.source_ids[info["label_id"]],
            "area": int(coco_mask.area(rle)),
            "bbox": [int(edge) for edge in coco_mask.toBbox(rle)],
            "iscrowd": 0,
        }

    @staticmethod
    def _write_png(path: Path, pixels: np.ndarray) -> None:
        with replace_file(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")


def ids_as_colors(ids: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) as the colours uint8 (H, W, 3) that COCO writes them in."""
    return np.stack((ids % 256, ids // 256 % 256, ids // 65536), axis=2).astype(np.uint8)


def coco_id(image_id: str) -> int | str:
    """An image id as COCO's own files have it: a number, unless it is none."""
    return int(image_id) if image_id.isdecimal() and str(int(image_id)) == image_id else image_id


def file_name(example: Example) -> str:
    """The image id where it is a plain name, or else what is left of it, and the image's number."""
    plain = re.sub(r"[^\w.-]", "_", example["image_id"])
    if plain == example["image_id"] and plain[:1] not in ("", ".") and len(plain.encode()) <= LONGEST_NAME:
        return plain
    return f"{plain.lstrip('.')[: LONGEST_NAME // 4]}_{example['index']}"


def write_json(path: Path, content) -> None:
    """Writes `content` without spaces, all or nothing."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
