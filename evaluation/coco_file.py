"""Answers to photographs as a dataset in COCO's format, which annotation tools and `pycocotools.coco.COCO` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from maskformer.evaluation.photographs import PhotographAnswer


class CocoFile:
    """What `write` makes a file of: images and annotations numbered from 1, labels by their ids as categories."""

    def __init__(self, id2label: dict[int, str]):
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories = [{"id": label, "name": name} for label, name in sorted(id2label.items())]

    def add(self, file_name: str | Path, answer: PhotographAnswer) -> None:
        """The answer to one photograph; scores are kept, as `score`, where there are any."""
        height, width = answer.segmentation.shape
        self.images.append({"id": len(self.images) + 1, "file_name": str(file_name), "height": height, "width": width})
        for segment, rle in zip(answer.segments, answer.rles, strict=True):
            annotation = {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": segment["label_id"],
                "segmentation": rle,
                "area": int(coco_mask.area(rle)),
                "bbox": coco_mask.toBbox(rle).tolist(),
                "iscrowd": 0,
            }
            score = {"score": segment["score"]} if "score" in segment else {}
            self.annotations.append(annotation | score)

    def content(self) -> dict[str, list]:
        """As it is written."""
        return {"images": self.images, "annotations": self.annotations, "categories": self.categories}
