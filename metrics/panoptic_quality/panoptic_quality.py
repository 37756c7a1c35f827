"""Panoptic quality by the rules of panopticapi, as four numbers a category; loads with `evaluate.load` too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np

from maskformer.metrics.pixel_pairs import check_paired, integer_map, pixel_pairs

_DESCRIPTION = """
Panoptic quality (PQ), its segmentation quality (SQ) and its recognition quality (RQ), over all categories, things and
stuff, as fractions. Matching, void and crowd regions and the averages follow panopticapi, the COCO panoptic evaluation.
"""

_CITATION = """
@inproceedings{kirillov2019panoptic,
  title = {Panoptic Segmentation},
  author = {Kirillov, Alexander and He, Kaiming and Girshick, Ross and Rother, Carsten and Doll{\\'a}r, Piotr},
  booktitle = {CVPR},
  year = {2019},
}
"""

_INPUTS = """
Inputs:
    predictions: one {"segmentation": integer (H, W), "segments_info": [{"id", "label_id"}]} an image; id 0 is void.
    references: the same, of the same sizes; their segments may hold "iscrowd".
"""
LARGEST_TABLE = 2**16  # ids below are looked up in a table


class _Segments(NamedTuple):
    """The segments of one side of an image; row 0 is void, the others in the order of `segments_info`."""

    ids: np.ndarray  # (S + 1,)
    categories: np.ndarray  # (S + 1,), rows of the metric's categories; -1 for void
    is_crowd: np.ndarray  # (S + 1,)


class PanopticQuality(evaluate.Metric):
    """Panoptic quality (Kirillov et al. 2019), counted image by image; the rules are those of panopticapi.

    - A predicted and a reference segment of one category match if their IoU exceeds 0.5; void pixels of the reference
      do not enter the union.
    - A crowd segment neither matches nor is missed. An unmatched prediction is no false positive if more than half
      of it lies on void and on the crowd of its category (of several such crowds, the last listed).
    - A reference segment without a pixel is missed like any other; a prediction without a pixel is an error.
    - A category without any match, miss or false positive has PQ 0 and is left out of the averages. An average over
      no category, where panopticapi fails, is NaN.

    The state is four numbers a category: the sum of the matches' IoUs (float64), and how many matches, false positives
    and misses there were (int64).

    Args:
        categories: dicts with an integer `id`, any but each once, which the segments' `label_id` means, and `isthing`
            (by default 1). `ValueError` if there is none, an `id` is missing or occurs twice.
        **kwargs: those of `evaluate.Metric`. Its cache is not used; several processes are combined by `reduce`.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], **kwargs):
        if not categories:
            raise ValueError("categories is empty; at least one category with an 'id' is needed")
        self._rows: dict[int, int] = {}
        for row, category in enumerate(categories):
            if "id" not in category:
                raise ValueError(f"entry {row} of categories has no 'id': {dict(category)}")
            if category["id"] in self._rows:
                raise ValueError(
                    f"entries {self._rows[category['id']]} and {row} of categories share id {category['id']}"
                )
            self._rows[category["id"]] = row
        super().__init__(**kwargs)
        self.categories = [dict(category) for category in categories]
        self._is_thing = np.array([category.get("isthing", 1) == 1 for category in categories])
        self._clear()

    def _clear(self) -> None:
        self._iou = np.zeros(len(self.categories))
        self._counts = np.zeros((3, len(self.categories)), np.int64)  # matches, false positives, misses

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")

        def side(segment: dict) -> dict:
            return {"segmentation": datasets.List(datasets.List(number)), "segments_info": datasets.List(segment)}

        segment = {"id": number, "label_id": number}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(predictions=side(segment), references=side({**segment, "iscrowd": number})),
            reference_urls=["https://arxiv.org/abs/1801.00868", "https://github.com/cocodataset/panopticapi"],
        )

    def _build_data_dir(self) -> str:
        """No folder: the counts stay in memory."""
        return ""

    def add(self, *, prediction: Mapping | None = None, reference: Mapping | None = None) -> None:
        """Counts one image: `{"segmentation": (H, W), "segments_info": [...]}` each. Errors as in `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(
        self, *, predictions: Sequence[Mapping] | None = None, references: Sequence[Mapping] | None = None
    ) -> None:
        """Counts a batch: a sequence of `{"segmentation": (H, W), "segments_info": [...]}` for each side.

        Raises `ValueError`, naming side, index in the batch and id, if: the numbers of images or the sizes of a pair
        differ; a key is missing; a segment id occurs twice, is 0, is in the map but not in `segments_info` or, for
        predictions, the reverse; a `label_id` is no category. Raises `TypeError` if a map does not hold integers.
        Nothing of the batch is counted then.
        """
        check_paired(predictions, references)
        counted = [self._count(*pair, index) for index, pair in enumerate(zip(predictions, references, strict=True))]
        for iou, counts in counted:
            self._iou += iou
            self._counts += counts

    def _count(self, prediction: Mapping, reference: Mapping, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What an image adds to the IoU sums (C,) and to the counts (3, C)."""
        sides = f"prediction {index} of the batch", f"reference {index} of the batch"
        maps = [_segmentation(panoptic, side) for panoptic, side in zip((prediction, reference), sides, strict=True)]
        predicted, true = self._segments(prediction, sides[0]), self._segments(reference, sides[1])
        predicted_ids, true_ids, pixels = pixel_pairs(*maps, sides[0])
        columns = _rows_of(predicted_ids, predicted.ids, sides[0])
        rows = _rows_of(true_ids, true.ids, sides[1])
        shape = len(true.ids), len(predicted.ids)
        overlap = np.bincount(rows * shape[1] + columns, pixels, shape[0] * shape[1])
        overlap = overlap.astype(np.int64).reshape(shape)  # (true, predicted), pixels
        empty = predicted.ids[1:][overlap[:, 1:].sum(axis=0) == 0]
        if empty.size:
            raise ValueError(
                f"{sides[0]}: segments_info lists the segment {empty[0]}, which has no pixel in the map; leave it out"
            )
        return self._match(overlap, true, predicted)

    def _segments(self, panoptic: Mapping, side: str) -> _Segments:
        """Reads `segments_info`."""
        ids, categories, is_crowd = {0: 0}, [-1], [False]
        for segment in panoptic["segments_info"]:
            missing = [key for key in ("id", "label_id") if key not in segment]
            if missing:
                raise ValueError(f"{side}: a segment has no {missing[0]!r}: {dict(segment)}")
            identity, label = int(segment["id"]), int(segment["label_id"])
            if identity in ids:
                problem = "occurs twice in segments_info" if identity else "stands for void; segments need other ids"
                raise ValueError(f"{side}: the segment id {identity} {problem}")
            if label not in self._rows:
                raise ValueError(f"{side}: segment {identity} has label_id {label}, which is the id of no category")
            ids[identity] = len(ids)
            categories.append(self._rows[label])
            is_crowd.append(segment.get("iscrowd", 0) == 1)
        return _Segments(np.array(list(ids)), np.array(categories), np.array(is_crowd))

    def _match(self, overlap: np.ndarray, true: _Segments, predicted: _Segments) -> tuple[np.ndarray, np.ndarray]:
        """The IoU sums (C,) and counts (3, C) of an image whose segments share `overlap` (true, predicted) pixels."""
        true_area, predicted_area, on_void = overlap.sum(axis=1), overlap.sum(axis=0), overlap[0]
        same_category = true.categories[:, None] == predicted.categories  # (true, predicted)
        same_category[0] = False
        rows, columns = np.nonzero(same_category & (overlap > 0) & ~true.is_crowd[:, None])
        shared = overlap[rows, columns]
        iou = shared / (true_area[rows] + predicted_area[columns] - on_void[columns] - shared)
        matched = iou > 0.5  # at most one a segment, as segments do not overlap
        rows, columns, iou = rows[matched], columns[matched], iou[matched]

        missed = ~true.is_crowd
        missed[0] = missed[rows] = False
        last_crowd = np.zeros(len(self.categories), np.int64)
        last_crowd[true.categories[true.is_crowd]] = np.flatnonzero(true.is_crowd)
        crowd = last_crowd[predicted.categories]  # (predicted,), 0 where there is none
        on_crowd = np.where(crowd > 0, overlap[crowd, np.arange(len(crowd))], 0)
        spurious = 2 * (on_void + on_crowd) <= predicted_area
        spurious[0] = spurious[columns] = False

        def per_category(categories: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(categories, weights, len(self.categories))

        matches = true.categories[rows]
        spurious, missed = predicted.categories[spurious], true.categories[missed]
        return per_category(matches, iou), np.stack([per_category(x) for x in (matches, spurious, missed)])

    def reduce(self, sum_over_processes: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replaces the counts by their sums over all processes; `compute` then tells the metric of all of them.

        `sum_over_processes` takes an array, first float64 (C,), then int64 (3, C), and returns its sum over the
        processes, of the same shape, to each.
        """
        self._iou = np.array(sum_over_processes(self._iou), np.float64).reshape(self._iou.shape)
        self._counts = np.array(sum_over_processes(self._counts), np.int64).reshape(self._counts.shape)

    def compute(
        self, *, predictions: Sequence[Mapping] | None = None, references: Sequence[Mapping] | None = None
    ) -> dict:
        """The metric of all that was added (and of `predictions`, `references`, if given), and a fresh start.

        Returns fractions `pq`, `sq`, `rq` and the number `n` of categories they average, each also with `_things` and
        `_stuff`; and `per_class`: category id to `{"pq", "sq", "rq", "tp", "fp", "fn"}`. Errors as in `add_batch`.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        iou, (tp, fp, fn) = self._iou, self._counts
        self._clear()
        zeros = np.zeros(len(iou))
        weight = tp + 0.5 * fp + 0.5 * fn
        qualities = {
            "pq": np.divide(iou, weight, out=zeros.copy(), where=weight > 0),
            "sq": np.divide(iou, tp, out=zeros.copy(), where=tp > 0),
            "rq": np.divide(tp, weight, out=zeros.copy(), where=weight > 0),
        }
        result: dict[str, Any] = {}
        for suffix, chosen in (("", True), ("_things", self._is_thing), ("_stuff", ~self._is_thing)):
            chosen = chosen & (weight > 0)
            for name, quality in qualities.items():
                result[name + suffix] = float(quality[chosen].mean()) if chosen.any() else float("nan")
            result["n" + suffix] = int(chosen.sum())
        columns = {**qualities, "tp": tp, "fp": fp, "fn": fn}
        result["per_class"] = {
            identity: {name: values[row].item() for name, values in columns.items()}
            for identity, row in self._rows.items()
        }
        return result


def _segmentation(panoptic: Mapping, side: str) -> np.ndarray:
    """The integer segmentation (H, W) of one side."""
    if not isinstance(panoptic, Mapping) or not {"segmentation", "segments_info"} <= panoptic.keys():
        given = sorted(panoptic) if isinstance(panoptic, Mapping) else type(panoptic).__name__
        raise ValueError(f"{side} is {given}; it must be a dict of 'segmentation' and 'segments_info'")
    return integer_map(panoptic["segmentation"], side)


def _rows_of(values: np.ndarray, ids: np.ndarray, side: str) -> np.ndarray:
    """For each of `values` its row in `ids`; `ValueError` if one is not there."""
    smallest, largest = min(ids.min(), values.min(initial=0)), max(ids.max(), values.max(initial=0))
    if smallest >= 0 and largest < LARGEST_TABLE:
        table = np.zeros(largest + 1, np.int64)
        table[ids] = np.arange(len(ids))
        rows = table[values]
    else:  # such as COCO's, which are colours
        order = np.argsort(ids)
        rows = order[np.searchsorted(ids[order], values).clip(max=len(ids) - 1)]
    strange = values[ids[rows] != values]
    if strange.size:
        raise ValueError(f"{side}: the map holds the segment id {strange[0]}, which segments_info lacks (0 is void)")
    return rows
