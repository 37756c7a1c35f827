"""COCO's average precision of instance masks, matched by pycocotools; loads with `evaluate.load` too."""

import contextlib
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskformer.metrics.pixel_pairs import check_paired

_DESCRIPTION = """
Average precision (AP) of instance masks as COCO defines it, computed by pycocotools: averaged over IoU thresholds of
0.50 to 0.95, at 0.50 and 0.75 alone, and over small, medium and large instances, as fractions.
"""

_CITATION = """
@inproceedings{lin2014coco,
  title = {Microsoft COCO: Common Objects in Context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva
            and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {ECCV},
  year = {2014},
}
"""

_INPUTS = """
Inputs:
    predictions: one {"segmentation": ..., "segments_info": [{"label_id", "score"}]} an image; the segmentation is a
        list of COCO RLEs or bool maps (n, H, W), one for each entry of segments_info, or a map (H, W) of their "id".
    references: one {"segmentation": ..., "segments_info": [{"id", "label_id", "iscrowd"}]} an image, of integer maps
        (H, W), or (P, H, W) where instances overlap; id 0 is void.
"""

MOST_INSTANCES = 100  # of a category in an image: the best-scored ones count, as in COCO's AP


class _Matches(NamedTuple):
    """The D predicted and G true instances of one category in one image, for A ranges of area and T IoU thresholds."""

    scores: np.ndarray  # float64 (D,), falling
    matched: np.ndarray  # bool (A, T, D)
    ignored: np.ndarray  # bool (A, T, D), predictions that are neither right nor wrong
    true_ignored: np.ndarray  # bool (A, G), crowds and instances outside of the range


class MaskAveragePrecision(evaluate.Metric):
    """COCO's average precision of instance masks, matched image by image; all rules are pycocotools'.

    - Instances are matched by falling score, at IoU thresholds of 0.50, 0.55 ... 0.95; the best 100 of a category and
      image count. A prediction that lies on a crowd is neither right nor wrong.
    - Small instances have up to 32 x 32 pixels, large ones at least 96 x 96. An instance's area is its mask's, or
      `area` where a reference's `segments_info` has it.
    - Only categories that are things count; segments of stuff are passed over on both sides. Averages run over the
      categories that the references hold; over none they are NaN (COCO prints -1).

    The state is, for each image and category in it, the scores of the predictions and bits that say which are right:
    about 90 bytes a prediction. No mask is kept.

    Args:
        categories: dicts with an integer `id`, any but each once, which the segments' `label_id` means, and `isthing`
            (by default 1). `ValueError` if there is none, an `id` is missing or occurs twice.
        **kwargs: those of `evaluate.Metric`. Its cache is not used; several processes are combined by `reduce`.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], **kwargs):
        ids = [category.get("id") for category in categories]
        if not ids:
            raise ValueError("categories is empty; at least one category with an 'id' is needed")
        if None in ids:
            raise ValueError(f"entry {ids.index(None)} of categories has no 'id': {dict(categories[ids.index(None)])}")
        if len(set(ids)) < len(ids):
            raise ValueError(f"categories hold an id twice; the ids are {ids}")
        super().__init__(**kwargs)
        self.categories = [dict(category) for category in categories]
        self._is_thing = {category["id"]: category.get("isthing", 1) == 1 for category in categories}
        self._clear()

    def _clear(self) -> None:
        self._images: list[dict[int, _Matches]] = []

    def _info(self) -> evaluate.MetricInfo:
        number, text = datasets.Value("int64"), datasets.Value("string")
        predicted = {"label_id": number, "score": datasets.Value("float64")}
        true = {"id": number, "label_id": number, "iscrowd": number}
        rles = datasets.List({"size": datasets.List(number), "counts": text})
        id_map = datasets.List(datasets.List(number))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                predictions={"segmentation": rles, "segments_info": datasets.List(predicted)},
                references={"segmentation": id_map, "segments_info": datasets.List(true)},
            ),
            reference_urls=["https://cocodataset.org/#detection-eval", "https://github.com/cocodataset/cocoapi"],
        )

    def _build_data_dir(self) -> str:
        """No folder: the matches stay in memory."""
        return ""

    def add(self, *, prediction: Mapping | None = None, reference: Mapping | None = None) -> None:
        """Matches one image: `{"segmentation": ..., "segments_info": [...]}` each. Errors as in `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(
        self, *, predictions: Sequence[Mapping] | None = None, references: Sequence[Mapping] | None = None
    ) -> None:
        """Matches a batch: a sequence of `{"segmentation": ..., "segments_info": [...]}` for each side.

        A segmentation is an integer map (H, W) of the ids in `segments_info`, 0 for none, or several (P, H, W) where
        segments overlap; or, one for each entry of `segments_info`, bool maps (n, H, W) or a list of COCO RLEs.
        Raises `ValueError`, naming side and index in the batch, if: the numbers of images or the sizes of a pair
        differ; a key is missing; an id occurs twice or is in a map but not in `segments_info`; a `label_id` is no
        category; a score is NaN. Raises `TypeError` if a map holds neither integers nor bools. Nothing of the batch is
        counted then.
        """
        check_paired(predictions, references)
        self._images += [
            self._match(*pair, index) for index, pair in enumerate(zip(predictions, references, strict=True))
        ]

    def _match(self, prediction: Mapping, reference: Mapping, index: int) -> dict[int, _Matches]:
        """The matches of one image, by category."""
        sides = f"prediction {index} of the batch", f"reference {index} of the batch"
        predicted, predicted_size = self._instances(prediction, sides[0], needs_score=True)
        true, true_size = self._instances(reference, sides[1], needs_score=False)
        if None not in (predicted_size, true_size) and predicted_size != true_size:
            raise ValueError(
                f"{sides[0]} has size {predicted_size} and its reference {true_size} (height, width); resize the "
                "prediction to the size of the reference"
            )
        return matches_by_category(predicted, true)

    def _instances(self, answer: Mapping, side: str, needs_score: bool) -> tuple[list[dict], tuple[int, int] | None]:
        """The things of one side as pycocotools' annotations, each with its RLE, and the size of the masks if known."""
        if not isinstance(answer, Mapping) or not {"segmentation", "segments_info"} <= answer.keys():
            given = sorted(answer) if isinstance(answer, Mapping) else type(answer).__name__
            raise ValueError(f"{side} is {given}; it must be a dict of 'segmentation' and 'segments_info'")
        infos = answer["segments_info"]
        for info in infos:
            missing = [key for key in ("label_id", *(["score"] if needs_score else [])) if key not in info]
            if missing:
                raise ValueError(f"{side}: a segment has no {missing[0]!r}: {dict(info)}")
            if info["label_id"] not in self._is_thing:
                raise ValueError(f"{side}: a segment has label_id {info['label_id']}, which is the id of no category")
            if needs_score and np.isnan(info["score"]):
                raise ValueError(f"{side}: the score of a segment is NaN: {dict(info)}")
        rles, size = masks_as_rles(answer["segmentation"], infos, side)
        instances = []
        for info, rle in zip(infos, rles, strict=True):
            if self._is_thing[info["label_id"]]:
                area = int(coco_mask.area(rle))
                instances.append(
                    {
                        "id": len(instances) + 1,  # pycocotools takes a match with id 0 for none
                        "image_id": 1,
                        "category_id": info["label_id"],
                        "segmentation": rle,
                        "iscrowd": int(info.get("iscrowd", 0) == 1),
                        "area": area if needs_score else info.get("area", area),
                        "score": float(info.get("score", 1)),
                    }
                )
        return instances, size

    def reduce(self, gather_over_processes: Callable[[list], Sequence[list]]) -> None:
        """Replaces the matches by those of all processes; `compute` then tells the metric of all of them.

        Precision depends on the order of all scores, so matches are gathered where other metrics are summed:
        `gather_over_processes` takes a list that pickles, and returns to each process the lists of all of them, by
        rank (as `torch.distributed.all_gather_object` does). Of equal scores COCO ranks those of earlier images first.
        Images are taken to have been dealt one by one, image i to process i modulo the number of processes: then the
        metric is that of one process, to the last bit.
        """
        turns = itertools.zip_longest(*gather_over_processes(self._images))
        self._images = [image for turn in turns for image in turn if image is not None]

    def compute(
        self, *, predictions: Sequence[Mapping] | None = None, references: Sequence[Mapping] | None = None
    ) -> dict:
        """The metric of all that was added (and of `predictions`, `references`, if given), and a fresh start.

        Returns the fractions `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium` and `ap_large`, and `per_class`: category id
        to the same and `instances`, how many the references hold, crowds left out. Errors as in `add_batch`.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        images, self._images = self._images, []
        per_class = {
            category: averages([image[category] for image in images if category in image])
            for category, is_thing in self._is_thing.items()
            if is_thing
        }
        names = [name for name in averages([]) if name != "instances"]
        columns = {name: np.array([row[name] for row in per_class.values()]) for name in names}
        means = {
            name: float(np.nanmean(column)) if np.isfinite(column).any() else float("nan")
            for name, column in columns.items()
        }
        return {**means, "per_class": per_class}


def masks_as_rles(segmentation: Any, infos: Sequence[Mapping], side: str) -> tuple[list[dict], tuple[int, int] | None]:
    """The mask of each of `infos` as a COCO RLE, and the size (height, width) of the masks, None where there is none.

    `MaskAveragePrecision.add_batch` says what `segmentation` may be.
    """
    if isinstance(segmentation, list | tuple) and all(isinstance(mask, Mapping) for mask in segmentation):
        sizes = {tuple(int(edge) for edge in rle["size"]) for rle in segmentation}
        if len(segmentation) != len(infos):
            raise ValueError(f"{side} has {len(segmentation)} masks for {len(infos)} segments")
        if len(sizes) > 1:
            raise ValueError(f"{side}: its masks have several sizes (height, width): {sorted(sizes)}")
        return list(segmentation), next(iter(sizes), None)
    array = np.asarray(segmentation.cpu() if hasattr(segmentation, "cpu") else segmentation)
    if array.ndim not in (2, 3):
        raise ValueError(f"{side} has shape {array.shape}; it must be (height, width), or several such maps")
    if array.dtype == bool:
        if array.ndim != 3 or len(array) != len(infos):
            raise ValueError(f"{side} has bool maps of shape {array.shape} for {len(infos)} segments")
        return [encoded(mask) for mask in array], array.shape[-2:]
    if array.dtype.kind not in "iu":
        raise TypeError(f"{side} holds {array.dtype}; maps hold integers, or bools")
    maps = array.reshape(-1, *array.shape[-2:])  # (P, H, W)
    return masks_of_ids(maps, infos, side), array.shape[-2:]


def masks_of_ids(maps: np.ndarray, infos: Sequence[Mapping], side: str) -> list[dict]:
    """The mask of each of `infos` as a COCO RLE, from maps of ids (P, H, W)."""
    ids = [info.get("id") for info in infos]
    if None in ids or 0 in ids or len(set(ids)) < len(ids):
        raise ValueError(f"{side}: segments need an 'id' of their own that is not 0, but the ids are {ids}")
    rles = [encoded((maps == identity).any(0)) for identity in ids]
    if sum(np.count_nonzero(maps == identity) for identity in ids) < np.count_nonzero(maps):
        strange = sorted(set(np.unique(maps).tolist()) - {0, *ids})
        raise ValueError(f"{side}: the map holds the segment id {strange[0]}, which segments_info lacks (0 is void)")
    return rles


def encoded(mask: np.ndarray) -> dict:
    """The COCO RLE of a bool mask (H, W)."""
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def matches_by_category(predicted: list[dict], true: list[dict]) -> dict[int, _Matches]:
    """The matches of one image, by category, from pycocotools' annotations of either side."""
    present = sorted({instance["category_id"] for instance in [*predicted, *true]})
    if not present:
        return {}
    size = [*predicted, *true][0]["segmentation"]["size"]
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        for instances in (true, predicted):
            side = COCO()
            side.dataset = {
                "images": [{"id": 1, "height": size[0], "width": size[1]}],
                "categories": [{"id": category} for category in present],
                "annotations": instances,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="segm")
        evaluator.params.maxDets = [MOST_INSTANCES]
        evaluator.evaluate()
    areas = len(evaluator.params.areaRng)
    found = {}
    for row, category in enumerate(present):
        ranges = evaluator.evalImgs[row * areas : (row + 1) * areas]  # categories x ranges of area, of one image
        found[category] = _Matches(
            scores=np.array(ranges[0]["dtScores"], np.float64),
            matched=np.stack([entry["dtMatches"] > 0 for entry in ranges]),  # (A, T, D)
            ignored=np.stack([entry["dtIgnore"] > 0 for entry in ranges]),  # (A, T, D)
            true_ignored=np.stack([entry["gtIgnore"] > 0 for entry in ranges]),  # (A, G)
        )
    return found


def averages(images: list[_Matches]) -> dict[str, float]:
    """A category's averages of precision over the images that it occurs in, NaN where there is no true instance."""
    evaluator = COCOeval(iouType="segm")
    params = evaluator.params
    params.catIds, params.imgIds, params.maxDets = [0], list(range(len(images))), [MOST_INSTANCES]
    evaluator._paramsEval = params
    evaluator.evalImgs = [
        {
            "dtScores": image.scores,
            "dtMatches": image.matched[area],
            "dtIgnore": image.ignored[area],
            "gtIgnore": image.true_ignored[area],
        }
        for area in range(len(params.areaRng))
        for image in images
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, 0, :, 0]  # (T, recalls, A), -1 where there is no true instance
    precision = np.where(precision < 0, np.nan, precision).mean(axis=1)  # (T, A)
    at = {round(float(threshold), 2): row for row, threshold in enumerate(params.iouThrs)}
    by_area = dict(zip(params.areaRngLbl, precision.mean(axis=0).tolist(), strict=True))
    return {
        "ap": by_area["all"],
        "ap50": float(precision[at[0.5], 0]),
        "ap75": float(precision[at[0.75], 0]),
        **{f"ap_{label}": by_area[label] for label in ("small", "medium", "large")},
        "instances": sum(int(np.count_nonzero(~image.true_ignored[0])) for image in images),
    }
