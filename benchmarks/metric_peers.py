"""panopticapi and evaluate's `mean_iou` on the same image, from a folder where their code lies."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import evaluate
import numpy as np
from PIL import Image

MEAN_IOU, PANOPTIC, READING = "evaluate's mean_iou", "panopticapi", "panopticapi's reading of two PNGs alone"


def peer_updates(
    peers: Path, folder: Path, predicted: np.ndarray, true: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], object]]:
    """By name, what evaluates one image with those peers that `peers` has: `panopticapi/` and `metrics/mean_iou/`.

    `predicted` and `true` are maps of segment ids from 1 (H, W), `labels` those of the segments; `folder` is for the
    PNGs that panopticapi reads. Raises `ValueError` where `peers` has neither.
    """
    found = {}
    num_labels = int(labels.max()) + 1
    if (peers / "metrics" / "mean_iou").is_dir():
        metric = evaluate.load(str(peers / "metrics" / "mean_iou"))
        maps = {"predictions": [labels[predicted - 1]], "references": [labels[true - 1]]}
        found[MEAN_IOU] = lambda: metric.compute(**maps, num_labels=num_labels, ignore_index=255)
    if (peers / "panopticapi").is_dir():
        found |= panoptic_updates(peers, folder, predicted, true, labels)
    if not found:
        raise ValueError(f"{peers} has neither panopticapi/ nor metrics/mean_iou/ (of huggingface/evaluate)")
    return found


def panoptic_updates(peers: Path, folder: Path, predicted: np.ndarray, true: np.ndarray, labels: np.ndarray) -> dict:
    """panopticapi's evaluation of one image, which reads two PNGs, and that reading alone."""
    sys.path.insert(0, str(peers))
    try:
        peer = importlib.import_module("panopticapi.evaluation")
    finally:
        sys.path.remove(str(peers))
    sides = []
    for name, ids in (("true", true), ("predicted", predicted)):
        file = folder / f"{name}.png"
        Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)).save(file)  # (H, W, 3)
        segments = [
            {"id": i, "category_id": int(labels[i - 1]), "iscrowd": 0, "area": int(area)}
            for i, area in zip(*np.unique(ids, return_counts=True), strict=True)
        ]
        sides.append({"image_id": 1, "file_name": file.name, "segments_info": segments})
    categories = {int(label): {"id": int(label)} for label in labels}

    def evaluated():
        with contextlib.redirect_stdout(io.StringIO()):  # it says how far it is
            return peer.pq_compute_single_core(0, [tuple(sides)], folder, folder, categories)

    def read():
        for side in sides:
            peer.rgb2id(np.array(Image.open(folder / side["file_name"]), dtype=np.uint32))

    return {PANOPTIC: evaluated, READING: read}
