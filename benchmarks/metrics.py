"""What a metric costs for an image, beside the least that counting its pixels takes, and whether memory stays flat."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from maskformer.benchmarks.alternating import alternate
from maskformer.benchmarks.metric_peers import peer_updates
from maskformer.metrics import MeanIoU, PanopticQuality, SemanticPanopticQuality

PLAIN = "numpy.bincount"
WARM_UP = 20  # images after which a metric has all the memory that it is going to need


@dataclass(frozen=True)
class MetricCost:
    """Median seconds that an image takes, by name, with those of one plain `numpy.bincount` over the same pixels, and
    by how many bytes the memory of Python and NumPy has grown over `images` more."""

    seconds: dict[str, float]
    growth: dict[str, int]
    images: int

    def ratio(self, name: str) -> float:
        """What an image costs, in counts of its pixels."""
        return self.seconds[name] / self.seconds[PLAIN]


def measure_metrics(
    images: int = 5000,
    rounds: int = 51,
    size: tuple[int, int] = (480, 640),
    num_labels: int = 133,
    num_segments: int = 20,
    peers: Path | None = None,
) -> MetricCost:
    """Times each metric's update with one image of `size` (height, width), one after another in every round.

    Segments are areas around random points; the prediction is the truth moved by some pixels. The plain count is of the
    cells of a confusion matrix, computed beforehand. `peers` is where other metrics' code lies (see `peer_updates`).
    """
    true, labels = random_segments(size, num_segments, num_labels)
    predicted = np.roll(true, (3, 5), axis=(0, 1))
    updates = metric_updates(predicted, true, labels, num_labels)
    cells = (labels[true - 1] * num_labels + labels[predicted - 1]).reshape(-1)  # (H * W,)
    timed = {PLAIN: lambda: np.bincount(cells, minlength=num_labels**2), **updates}
    with tempfile.TemporaryDirectory() as folder:
        if peers is not None:
            timed |= peer_updates(peers, Path(folder), predicted, true, labels)
        timings = alternate(timed, rounds)
    with tqdm(total=len(updates) * images, desc="measuring memory", unit="image", leave=False) as bar:
        growth = {name: memory_growth(update, images, bar.update) for name, update in updates.items()}
    return MetricCost({name: timing.median for name, timing in timings.items()}, growth, images)


def random_segments(size: tuple[int, int], num_segments: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """A map of ids 1, 2, 3 ..., int64 (H, W), and the label of each (num_segments,)."""
    draw = np.random.default_rng(0)
    rows, columns = (draw.integers(0, edge, num_segments)[:, None] for edge in size)
    down = (np.arange(size[0]) - rows) ** 2  # (num_segments, H)
    right = (np.arange(size[1]) - columns) ** 2  # (num_segments, W)
    nearest = (down[:, :, None] + right[:, None]).argmin(axis=0)  # (H, W)
    return nearest + 1, draw.integers(0, num_labels, num_segments)


def metric_updates(
    predicted: np.ndarray, true: np.ndarray, labels: np.ndarray, num_labels: int
) -> dict[str, Callable[[], None]]:
    """By name, what adds the image to a metric: maps of segment ids (H, W), and the label of each segment."""
    infos = [{"id": i, "label_id": int(label)} for i, label in enumerate(labels, start=1)]
    panoptic = [
        {"segmentation": side, "segments_info": [info for info in infos if info["id"] in side]}
        for side in (predicted, true)
    ]
    semantic = [labels[side - 1] for side in (predicted, true)]
    mean_iou, semantic_quality = MeanIoU(num_labels=num_labels), SemanticPanopticQuality(num_labels=num_labels)
    quality = PanopticQuality(categories=[{"id": label} for label in range(num_labels)])
    return {
        "mean_iou": lambda: mean_iou.add(prediction=semantic[0], reference=semantic[1]),
        "panoptic_quality": lambda: quality.add(prediction=panoptic[0], reference=panoptic[1]),
        "semantic_panoptic_quality": lambda: semantic_quality.add(prediction=semantic[0], reference=semantic[1]),
    }


def memory_growth(update: Callable[[], None], images: int, report: Callable[[], None]) -> int:
    """By how many bytes the memory of Python and NumPy grows over `images` updates, after some to warm up."""
    tracemalloc.start()
    try:
        for image in range(WARM_UP + images):
            if image == WARM_UP:
                before, _ = tracemalloc.get_traced_memory()
            update()
            if image >= WARM_UP:
                report()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
