"""The metrics of a dataset as counts that add up over images, processes and interruptions."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from maskformer.data.example import Example, semantic_map, without_overlap
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import Answer
from maskformer.metrics import MaskAveragePrecision, MeanIoU, PanopticQuality, SemanticPanopticQuality
from maskformer.metrics.mask_average_precision.mask_average_precision import _Matches

VOID = 65535  # of semantic maps: no label set is that large
IOU = ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "overall_accuracy")
QUALITY = tuple(f"{key}{kind}" for key in ("pq", "sq", "rq") for kind in ("", "_things", "_stuff"))
PRECISION = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


class Scores:
    """Mean IoU, panoptic qualities and average precision of the images added so far.

    `images` holds the id and the score of every image by its index: panoptic quality where there is one, else mean IoU;
    NaN where the truth is void.
    """

    def __init__(self, labels: LabelSet, kinds: Collection[str]):
        self.labels, self.kinds = labels, frozenset(kinds)
        self.metrics = {
            "iou": MeanIoU(num_labels=len(labels), ignore_index=VOID),
            "semantic": SemanticPanopticQuality(num_labels=len(labels), ignore_index=VOID),
        }
        if "panoptic" in kinds:
            self.metrics["panoptic"] = PanopticQuality(categories=labels.categories)
        # Metrics only ever hold one image: what they count goes here.
        self.counts = {name: held_counts(metric) for name, metric in self.metrics.items()}
        self.precision = MaskAveragePrecision(categories=labels.categories) if "instance" in kinds else None
        self.matches: dict[int, dict] = {}  # of instances, by the image's index
        self.images: dict[int, tuple[str, float]] = {}

    def add(self, example: Example, answer: Answer) -> dict:
        """Counts an image, and returns the `state` of it alone.

        Raises `ValueError`, naming the image, where answer and truth differ in size.
        """
        truth = semantic_map(example, VOID)  # (H, W)
        pairs = {"iou": (answer.semantic, truth), "semantic": (answer.semantic, truth)}
        if "panoptic" in self.metrics:
            pairs["panoptic"] = answer.panoptic, without_overlap(example)
        results, counts, matches = {}, {}, {}
        try:
            for name, (prediction, reference) in pairs.items():
                self.metrics[name].add(prediction=prediction, reference=reference)
                counts[name] = held_counts(self.metrics[name])
                results[name] = self.metrics[name].compute()
            if self.precision is not None:
                self.precision.add(prediction=answer.instances, reference=example)
                (matches[example["index"]],) = taken_images(self.precision)
        except ValueError as error:
            raise ValueError(f"image {example['image_id']!r}: {error}") from error
        score = results["panoptic"]["pq"] if "panoptic" in results else results["iou"]["mean_iou"]
        state = as_state(counts, matches, {example["index"]: (example["image_id"], score)})
        self.add_state(state)
        return state

    def add_counts(self, counts: dict) -> None:
        """Adds the counts of other images."""
        for name, arrays in counts.items():
            for total, array in zip(self.counts[name], arrays, strict=True):
                total += array

    def state(self) -> dict:
        """All counts in plain containers and tensors."""
        return as_state(self.counts, self.matches, self.images)

    def add_state(self, state: dict) -> None:
        """Adds what another process, or an evaluation that was interrupted, counted."""
        self.add_counts({name: [array.numpy() for array in arrays] for name, arrays in state["counts"].items()})
        for index, image in state["matches"].items():
            self.matches[index] = {label: _Matches(*(a.numpy() for a in match)) for label, match in image.items()}
        self.images |= {index: tuple(image) for index, image in state["images"].items()}

    def compute(self, name: str) -> dict:
        """The result of the metric `iou`, `semantic`, `panoptic` or `instance`."""
        if name == "instance":
            # In the order of the images, whichever process had them: of equal scores, COCO ranks earlier images first.
            self.precision.reduce(lambda _: [[self.matches[index] for index in sorted(self.matches)]])
            return self.precision.compute()
        held = iter(self.counts[name])
        self.metrics[name].reduce(lambda _: next(held))
        return self.metrics[name].compute()

    @property
    def confusion(self) -> np.ndarray:
        """Pixels by true and predicted label, int64 (K, K + 1); the last column is no label at all."""
        return self.counts["iou"][0]

    def running(self) -> dict[str, str]:
        """What the progress bar shows, in percent."""
        shown = {"PQ": self.compute("panoptic")["pq"]} if "panoptic" in self.metrics else {}
        shown["mIoU"] = self.compute("iou")["mean_iou"]
        return {name: f"{100 * value:.1f}" for name, value in shown.items()}

    def summary(self) -> dict:
        """All metrics as fractions, and in `per_label` a row for each label."""
        iou, semantic = self.compute("iou"), self.compute("semantic")
        summary = {"images": len(self.images)}
        rows: list[dict] = [{} for _ in range(len(self.labels))]
        if "panoptic" in self.metrics:
            quality = self.compute("panoptic")
            summary |= {key: float(quality[key]) for key in QUALITY}
            for label, row in enumerate(rows):
                row |= quality["per_class"][label]
        summary |= {key: float(iou[key]) for key in IOU}
        summary |= {f"semantic_{key}": float(semantic[key]) for key in ("pq", "sq", "rq")}
        for label, row in enumerate(rows):
            row |= {"iou": float(iou["per_category_iou"][label]), "semantic_pq": semantic_quality(semantic, label)}
        if self.precision is not None:
            precision = self.compute("instance")
            summary |= {key: float(precision[key]) for key in PRECISION}
            for label, values in precision["per_class"].items():
                rows[label] |= {key: values[key] for key in ("ap", "instances")}
        return summary | {"per_label": dict(zip(self.labels.names, rows, strict=True))}


def semantic_quality(result: dict, label: int) -> float:
    """The quality of one label, NaN where neither truth nor answers have it."""
    row = result["per_class"][label]
    return float(row["pq"]) if row["tp"] + row["fp"] + row["fn"] else float("nan")


def as_state(counts: dict, matches: dict, images: dict) -> dict:
    """What `Scores` hold, in plain containers and tensors."""
    return {
        "counts": {name: [torch.from_numpy(array) for array in arrays] for name, arrays in counts.items()},
        "matches": {
            index: {label: [torch.from_numpy(array) for array in match] for label, match in image.items()}
            for index, image in matches.items()
        },
        "images": dict(images),
    }


def held_counts(metric) -> list[np.ndarray]:
    """The arrays that `metric` would sum over processes."""
    found: list[np.ndarray] = []

    def keep(array: np.ndarray) -> np.ndarray:
        found.append(array.copy())
        return array

    metric.reduce(keep)
    return found


def taken_images(metric: MaskAveragePrecision) -> list[dict]:
    """The matches that `metric` would gather over processes; it has none after that."""
    found: list[dict] = []

    def keep(images: list[dict]) -> list[list[dict]]:
        found.extend(images)
        return []

    metric.reduce(keep)
    return found


def in_one_line(metrics: dict) -> str:
    """The metrics that people quote, in percent."""
    parts = []
    if "pq" in metrics:
        parts.append("PQ {:.1f} (things {:.1f}, stuff {:.1f})".format(*percent(metrics, "pq", "pq_things", "pq_stuff")))
    parts.append("mIoU {:.1f}".format(*percent(metrics, "mean_iou")))
    if "ap" in metrics:
        parts.append("AP {:.1f}".format(*percent(metrics, "ap")))
    return ", ".join(parts)


def percent(metrics: dict, *names: str) -> list[float]:
    """The metrics `names` in percent."""
    return [100 * metrics[name] for name in names]
