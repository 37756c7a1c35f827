"""Mean intersection over union of semantic label maps, as one confusion matrix; loads with `evaluate.load` too."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from maskformer.metrics.pixel_pairs import check_paired, integer_map, pixel_pairs

_DESCRIPTION = """
Semantic segmentation quality from one confusion matrix over all pixels: mean IoU, IoU weighted by class frequency, mean
accuracy over classes and overall pixel accuracy, as fractions. The rules are those of detectron2's semantic evaluator.
"""

_CITATION = """
@article{everingham2015pascal,
  title = {The Pascal Visual Object Classes Challenge: A Retrospective},
  author = {Everingham, Mark and Eslami, S. M. Ali and Van Gool, Luc and Williams, Christopher K. I. and Winn, John and
            Zisserman, Andrew},
  journal = {International Journal of Computer Vision},
  year = {2015},
}
"""

_INPUTS = """
Inputs:
    predictions: integer label maps (H, W), one an image, numpy or torch; labels outside 0 .. num_labels - 1 are wrong.
    references: integer label maps of the same sizes; `ignore_index` marks the pixels that do not count.
"""


class MeanIoU(evaluate.Metric):
    """Mean IoU, counted image by image; the rules are those of detectron2's `SemSegEvaluator`.

    - Pixels whose reference is `ignore_index` do not count, whatever is predicted there.
    - Averages run over the classes that occur in the references. One that is only predicted is left out, yet its
      pixels are misses of their true classes.
    - A predicted label outside 0 .. `num_labels` - 1 (void, 255, -1) is wrong: a miss of the true class, a false
      positive of none. detectron2 never meets one, as it takes an argmax; its matrix would drop the pixel and so
      reward giving no answer.

    The state is one int64 matrix (num_labels, num_labels + 1), rows true, columns predicted, the last for such labels.

    Args:
        num_labels: K, at least 1 (`ValueError` otherwise); labels are 0 .. K - 1.
        ignore_index: the reference label that does not count, or None. If it is one of the labels, that class is not
            evaluated: with more than 255 labels the default is hardly meant.
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
        self._confusion = np.zeros((self.num_labels, self.num_labels + 1), np.int64)

    def _info(self) -> evaluate.MetricInfo:
        label_map = datasets.List(datasets.List(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": label_map, "references": label_map}),
            reference_urls=["https://github.com/facebookresearch/detectron2"],
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
        for cells, pixels in counted:
            np.add.at(self._confusion.reshape(-1), cells, pixels)  # a view: (K * (K + 1),)

    def _count(self, prediction: Any, reference: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of the flat confusion matrix that an image adds to, and how many pixels to each."""
        what = f"prediction {index} of the batch"
        predicted, true = integer_map(prediction, what), integer_map(reference, f"reference {index} of the batch")
        predicted, true, pixels = pixel_pairs(predicted, true, what)
        if self.ignore_index is not None:
            kept = true != self.ignore_index
            predicted, true, pixels = predicted[kept], true[kept], pixels[kept]
        unknown = true[(true < 0) | (true >= self.num_labels)]
        if unknown.size:
            ignoring = "nothing is ignored" if self.ignore_index is None else f"ignore_index is {self.ignore_index}"
            raise ValueError(
                f"reference {index} of the batch holds the label {unknown[0]}; labels are 0 to {self.num_labels - 1}, "
                f"and {ignoring}"
            )
        predicted[(predicted < 0) | (predicted >= self.num_labels)] = self.num_labels
        return true * (self.num_labels + 1) + predicted, pixels

    def reduce(self, sum_over_processes: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replaces the counts by their sums over all processes; `compute` then tells the metric of all of them.

        `sum_over_processes` takes an int64 array and returns its sum over the processes, of the same shape, to each.
        """
        self._confusion = np.array(sum_over_processes(self._confusion), np.int64).reshape(self._confusion.shape)

    def compute(self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None) -> dict:
        """The metric of all that was added (and of `predictions`, `references`, if given), and a fresh start.

        Returns fractions: `mean_iou`, `frequency_weighted_iou`, `mean_accuracy`, `overall_accuracy` (NaN if no pixel
        counted), and the float64 arrays (K,) `per_category_iou` and `per_category_accuracy`, NaN where the category is
        absent from the references. Errors as in `add_batch`.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        confusion = self._confusion
        self._clear()
        true = confusion.sum(axis=1)  # (K,)
        correct = confusion.diagonal()
        predicted = confusion[:, : self.num_labels].sum(axis=0)
        present = true > 0
        nan = np.full(self.num_labels, np.nan)
        iou = np.divide(correct, true + predicted - correct, out=nan.copy(), where=present)
        accuracy = np.divide(correct, true, out=nan.copy(), where=present)
        some = bool(present.any())
        return {
            "mean_iou": float(iou[present].mean()) if some else float("nan"),
            "frequency_weighted_iou": float(np.average(iou[present], weights=true[present])) if some else float("nan"),
            "mean_accuracy": float(accuracy[present].mean()) if some else float("nan"),
            "overall_accuracy": float(correct.sum() / true.sum()) if some else float("nan"),
            "per_category_iou": iou,
            "per_category_accuracy": accuracy,
        }
