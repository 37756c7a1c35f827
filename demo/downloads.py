"""Answers as files."""

from __future__ import annotations

import io
import json
import zipfile

from PIL import Image

from maskformer.demo.answers import Answer
from maskformer.evaluation.photographs import smallest
from maskformer.image_processing.post_processing import coco_rle


def answer_archive(answer: Answer, task: str, overlay: Image.Image) -> bytes:
    """A ZIP of an answer.

    `segments.png` holds the map of segment ids, 0 for void, in 8 bits or, beyond 255 segments, in 16; `segments.json`
    every segment with id, label, score (none in semantic answers), area in pixels and COCO RLE; `overlay.png` the
    picture.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("segments.png", _png(Image.fromarray(smallest(answer.segmentation))))
        files.writestr("segments.json", json.dumps(answer_json(answer, task), indent=1))
        files.writestr("overlay.png", _png(overlay))
    return archive.getvalue()


def answer_json(answer: Answer, task: str) -> dict:
    """The task, the size, and the segments with their masks as COCO RLE."""
    height, width = answer.segmentation.shape
    segments = [segment | {"rle": coco_rle(answer.segmentation == segment["id"])} for segment in answer.segments]
    return {"task": task, "height": height, "width": width, "segments": segments}


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
