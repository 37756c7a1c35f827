"""Answers to photographs, of which no truth is known: as values for JSON, as maps of ids, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image

from maskformer.image_processing.inference import last_predictions
from maskformer.image_processing.legend import Entry, with_legend
from maskformer.image_processing.post_processing import coco_rle
from maskformer.image_processing.visualization import class_color, draw_segments, model_colors, side_by_side

STYLES = {"both": {}, "fill": {"outlines": False}, "outline": {"alpha": 0.0}, "side_by_side": {}}


@dataclass(frozen=True)
class PhotographAnswer:
    """What a model says of a photograph (H, W)."""

    segments: list[dict[str, Any]]  # id, label, label_id, area in pixels; score where there is one
    segmentation: np.ndarray  # int (H, W), ids of segments, -1 in semantic answers and 0 in others where there is none
    rles: list[dict[str, Any]] | None  # a COCO RLE for each segment, if wanted; those of instances may overlap


def smallest(ids: np.ndarray) -> np.ndarray:
    """A map of ids in the smallest type that PNG has for it, uint8 or uint16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.uint16)


@torch.inference_mode()
def answer_photographs(
    model, image_processor, sizes, inputs, task: str, threshold, masks: bool
) -> list[PhotographAnswer]:
    """The answers to photographs of `sizes` [(H, W), ...], whose pixels are `inputs`.

    `threshold` is the least score of a segment, None for that of the image processor's protocol, or 0.5.
    Without `masks` there are no RLEs, which take time.
    """
    outputs = last_predictions(model, inputs)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if task == "semantic":
        maps = image_processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [_semantic(labels.cpu().numpy(), names, masks) for labels in maps]
    settings = {"threshold": 0.5}
    if task == "panoptic":
        settings |= image_processor.test_protocol or {}
    if threshold is not None:
        settings["threshold"] = threshold
    post_process = getattr(image_processor, f"post_process_{task}_segmentation")
    answers = post_process(outputs, target_sizes=sizes, **settings)
    if not masks or task == "panoptic":
        return [_segments(answer, names, masks) for answer in answers]
    whole = post_process(outputs, target_sizes=sizes, return_coco_annotation=True, **settings)
    return [_instances(*each, names) for each in zip(answers, whole, strict=True)]


def _semantic(labels: np.ndarray, names: Sequence[str], masks: bool) -> PhotographAnswer:
    """A semantic answer, labels (H, W): one segment a label."""
    counts = np.bincount(labels[labels >= 0].ravel(), minlength=len(names)).tolist()
    segments = [
        {"id": label, "label": names[label], "label_id": label, "area": area}
        for label, area in enumerate(counts)
        if area
    ]
    return PhotographAnswer(segments, labels, _rles(labels, segments) if masks else None)


def _rles(ids: np.ndarray, segments: list[dict]) -> list[dict]:
    """The masks of segments in a map of their ids (H, W)."""
    return [coco_rle(ids == segment["id"]) for segment in segments]


def _segments(answer: dict, names: Sequence[str], masks: bool) -> PhotographAnswer:
    """A panoptic answer, or an instance answer without masks."""
    ids = answer["segmentation"].cpu().numpy()
    areas = np.bincount(ids[ids > 0].ravel(), minlength=len(answer["segments_info"]) + 1).tolist()
    segments = [
        {"id": info["id"], "label": names[info["label_id"]], **info, "area": areas[info["id"]]}
        for info in answer["segments_info"]
    ]
    return PhotographAnswer(segments, ids, _rles(ids, segments) if masks else None)


def _instances(answer: dict, instances: dict, names: Sequence[str]) -> PhotographAnswer:
    """An instance answer; `instances` hold all masks, which may overlap."""
    shown = _segments(answer, names, masks=False)
    every = iter(zip(instances["segments_info"], instances["segmentation"], strict=True))
    # Both are by falling score; the map leaves out what others hide.
    rles = [next(rle for info, rle in every if _same(info, segment)) for segment in shown.segments]
    return replace(shown, rles=rles)


def _same(one: dict, other: dict) -> bool:
    """Whether two entries are of one instance."""
    return (one["label_id"], one["score"]) == (other["label_id"], other["score"])


def in_smaller_batches(answer: Callable[[list, dict], list], examples: list, inputs: dict[str, torch.Tensor]) -> list:
    """`answer(examples, inputs)`; where memory does not suffice for all, both halves, and so on down to one.

    The error of a single example is raised.
    """
    try:
        return answer(examples, inputs)
    except Exception as error:  # allocators have no class of their own for it
        if len(examples) == 1 or not should_reduce_batch_size(error):
            raise
    clear_device_cache(garbage_collection=True)
    half = len(examples) // 2
    parts = [
        (examples[part], {key: value[part] for key, value in inputs.items()})
        for part in (slice(half), slice(half, None))
    ]
    return [each for part in parts for each in in_smaller_batches(answer, *part)]


def draw_answer(image: np.ndarray, answer: PhotographAnswer, config, style: str, legend: bool) -> Image.Image:
    """The answer over its photograph, uint8 (H, W, 3), in one of `STYLES`; `legend` lists classes to the right."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    colors = model_colors(config)
    shown = {
        "segmentation": answer.segmentation + 1,  # the id 0 is void to the drawing, and a label to a semantic answer
        "segments_info": [{"id": segment["id"] + 1, "label_id": segment["label_id"]} for segment in answer.segments],
    }
    picture = draw_segments(image, shown, names, colors, labels=max(image.shape[:2]) >= 64, **STYLES[style])
    if style == "side_by_side":
        picture = side_by_side([image, picture], ["image", "answer"])
    if not legend:
        return picture
    return with_legend(picture, _entries(answer, colors), total=answer.segmentation.size)


def _entries(answer: PhotographAnswer, colors: Sequence[Sequence[int]] | None) -> list[Entry]:
    """One entry a class of the answer."""
    classes: dict[int, list[dict]] = {}
    for segment in answer.segments:
        classes.setdefault(segment["label_id"], []).append(segment)
    return [
        Entry(of[0]["label"], class_color(label, colors), len(of), sum(segment["area"] for segment in of))
        for label, of in classes.items()
    ]
