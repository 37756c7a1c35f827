"""Panoptic quality of label maps, each class one segment (PQ^St of table 2); loads with `evaluate.load` too."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from maskformer.metrics.pixel_pairs import check_paired, integer_map, pixel_pairs

_DESCRIPTION = """
Panoptic quality of semantic segmentation: all pixels of a class are one segment of an image, whether the class is
countable or not, and are measured by the rules of panopticapi. MaskFormer's paper calls it PQ^St: unlike mean IoU it
weighs every image in which a class occurs alike. As fractions.
"""

_CITATION = """
@inproceedings{cheng2021maskformer,
  title = {Per-Pixel Classification is Not All You Need for Semantic Segmentation},
  author = {Cheng, Bowen and Schwing, Alexander G. and Kirillov, Alexander},
  booktitle = {NeurIPS},
  year = {2021},
}
"""

_INPUTS = """
Inputs:
    predictions: integer label maps (H, W), one an image, numpy or torch; labels outside 0 .. num_labels - 1 are void.
    references: integer label maps of the same sizes; `ignore_index` marks void pixels.
"""


class SemanticPanopticQuality(evaluate.Metric):
    """Panoptic quality of semantic label maps, counted image by image: PQ^St in table 2 of MaskFormer's paper.

    - In an image, all pixels of a class are one segment. A predicted segment and the true one of its class match if
      their IoU exceeds 0.5; void pixels of the reference do not enter the union.
    - A true segment without a match is missed. A predicted one is a false positive, unless more than half of it lies
      on void.
    - Predicted labels outside 0 .. `num_labels` - 1 belong to no segment.
    - The averages run over the classes that have a match, a miss or a false positive, unlike those of mean IoU: a
      class that is only predicted counts as 0.

    The state is four numbers a class, as in `PanopticQuality`.

    Args:
        num_labels: K, at least 1 (`ValueError` otherwise); labels are 0 .. K - 1.
        ignore_index: the reference label of void pixels, or None where there are none. If it is one of the labels,
            that class has no true segment.
        **kwargs: those of `evaluate.Metric`. Its cache is not used; several processes are combined by `reduce`.
    """

    def __init__(self, num_labels: int, ignore_index: int | None = 255, **kwargs):
        if num_labels < 1:
            raise ValueError(f"num_labels is {num_labels}; there must be at least one label")
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self._clear()

    def _clear(self) -> None:
        self._iou = np.zeros(self.num_labels)
        self._counts = np.zeros((3, self.num_labels), np.int64)  # matches, false positives, misses

    def _info(self) -> evaluate.MetricInfo:
        label_map = datasets.List(datasets.List(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": label_map, "references": label_map}),
            reference_urls=["https://arxiv.org/abs/2107.06278", "https://github.com/cocodataset/panopticapi"],
        )

    def _build_data_dir(self) -> str:
        """No folder: the counts stay in memory."""
        return ""

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Counts one image: an integer label map (H, W) for each side. Errors as in `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None) -> None:
        """Counts a batch: a sequence of integer label maps (H, W) for each side; every pair may have its own size.

        Raises `ValueError` if the numbers of maps or the sizes of a pair differ, or if a reference holds a label that
        is neither in range nor `ignore_index`, and `TypeError` if a map does not hold integers. Nothing of the batch
        is counted then.
        """
        check_paired(predictions, references)
        counted = [self._count(*pair, index) for index, pair in enumerate(zip(predictions, references, strict=True))]
        for iou, counts in counted:
            self._iou += iou
            self._counts += counts

    def _count(self, prediction: Any, reference: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What an image adds to the IoU sums (K,) and to the counts (3, K)."""
        what = f"prediction {index} of the batch", f"reference {index} of the batch"
        predicted, true, pixels = pixel_pairs(
            integer_map(prediction, what[0]), integer_map(reference, what[1]), what[0]
        )
        is_void = np.zeros(len(true), bool) if self.ignore_index is None else true == self.ignore_index
        unknown = true[~is_void & ((true < 0) | (true >= self.num_labels))]
        if unknown.size:
            ignoring = "nothing is ignored" if self.ignore_index is None else f"ignore_index is {self.ignore_index}"
            raise ValueError(
                f"{what[1]} holds the label {unknown[0]}; labels are 0 to {self.num_labels - 1}, and {ignoring}"
            )
        is_label = (predicted >= 0) & (predicted < self.num_labels)

        def area(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            """Pixels of each label (K,) among the chosen pairs."""
            return np.bincount(labels[chosen], pixels[chosen], self.num_labels)

        predicted_area, true_area = area(predicted, is_label), area(true, ~is_void)
        shared, on_void = area(true, ~is_void & (true == predicted)), area(predicted, is_label & is_void)
        union = true_area + predicted_area - shared - on_void
        iou = np.divide(shared, union, out=np.zeros(self.num_labels), where=union > 0)
        matched = iou > 0.5
        spurious = (predicted_area > 0) & ~matched & (2 * on_void <= predicted_area)
        missed = (true_area > 0) & ~matched
        return np.where(matched, iou, 0), np.stack([matched, spurious, missed])  # (K,), (3, K)

    def reduce(self, sum_over_processes: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replaces the counts by their sums over all processes; `compute` then tells the metric of all of them.

        `sum_over_processes` takes an array, first float64 (K,), then int64 (3, K), and returns its sum over the
        processes, of the same shape, to each.
        """
        self._iou = np.array(sum_over_processes(self._iou), np.float64).reshape(self._iou.shape)
        self._counts = np.array(sum_over_processes(self._counts), np.int64).reshape(self._counts.shape)

    def compute(self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None) -> dict:
        """The metric of all that was added (and of `predictions`, `references`, if given), and a fresh start.

        Returns fractions `pq`, `sq`, `rq` and the number `n` of classes they average (NaN where that is 0), and
        `per_class`: label to `{"pq", "sq", "rq", "tp", "fp", "fn"}`. Errors as in `add_batch`.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        iou, (tp, fp, fn) = self._iou, self._counts
        self._clear()
        zeros = np.zeros(self.num_labels)
        weight = tp + 0.5 * fp + 0.5 * fn
        qualities = {
            "pq": np.divide(iou, weight, out=zeros.copy(), where=weight > 0),
            "sq": np.divide(iou, tp, out=zeros.copy(), where=tp > 0),
            "rq": np.divide(tp, weight, out=zeros.copy(), where=weight > 0),
        }
        some = weight > 0
        result: dict[str, Any] = {
            name: float(quality[some].mean()) if some.any() else float("nan") for name, quality in qualities.items()
        }
        columns = {**qualities, "tp": tp, "fp": fp, "fn": fn}
        result["n"] = int(some.sum())
        result["per_class"] = {
            label: {name: values[label].item() for name, values in columns.items()} for label in range(self.num_labels)
        }
        return result
