"""From what the network said to segments, for any task and thresholds: no forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskformer.demo.network import Network, Prediction


@dataclass(frozen=True)
class Thresholds:
    """What the sliders say, 0 to 1; see the image processor's methods. Semantic answers have none."""

    threshold: float = 0.5
    mask_threshold: float = 0.5
    overlap_mask_area_threshold: float = 0.8

    @classmethod
    def of(cls, image_processor) -> Thresholds:
        """Those that the model is tested with, where its processor says so."""
        protocol = image_processor.test_protocol or {}
        return cls(**{name: protocol[name] for name in cls.__dataclass_fields__ if name in protocol})


@dataclass(frozen=True)
class Answer:
    """The segments of an image.

    `segmentation` is an int32 (H, W) map of segment ids, 0 for void. An entry of `segments` has `id`, `label_id`,
    `label`, `area` (pixels of the map) and, unless the task is semantic, `score`.
    """

    segmentation: np.ndarray
    segments: list[dict]

    def without(self, label_ids: frozenset[int]) -> Answer:
        """The answer with the segments of some labels as void."""
        kept = [segment for segment in self.segments if segment["label_id"] not in label_ids]
        shown = np.isin(self.segmentation, [segment["id"] for segment in kept])
        return Answer(np.where(shown, self.segmentation, 0), kept)


@torch.inference_mode()
def answer(network: Network, prediction: Prediction, task: str, thresholds: Thresholds) -> Answer:
    """The answer for `task`, one of the network's tasks. Raises `ValueError` if the network said NaN."""
    processor, sizes = network.image_processor, [prediction.size]
    if task == "semantic":
        (labels,) = processor.post_process_semantic_segmentation(prediction, target_sizes=sizes)  # (H, W)
        segmentation = (labels + 1).int()
        infos = [{"id": label + 1, "label_id": label} for label in labels.unique().tolist()]
    else:
        settings = vars(thresholds)
        if task == "panoptic":
            settings = (processor.test_protocol or {}) | settings  # DETR's method stays
        post_process = getattr(processor, f"post_process_{task}_segmentation")
        (result,) = post_process(prediction, target_sizes=sizes, **settings)
        segmentation, infos = result["segmentation"], result["segments_info"]
    areas = torch.bincount(segmentation.flatten()).tolist()
    names = network.label_names
    segments = [
        {"id": info["id"], "label_id": info["label_id"], "label": names[info["label_id"]]}
        | ({"score": info["score"]} if "score" in info else {})
        | {"area": areas[info["id"]]}
        for info in infos
    ]
    return Answer(segmentation.numpy(), segments)
