"""Average precision beside COCO's rules, followed one instance at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from drawn_segments import CATEGORIES, THINGS, at_once, images, mean, panoptic_pair, same, segments_of, size_pairs
from maskformer.metrics.mask_average_precision import mask_average_precision
from maskformer.metrics.panoptic_quality import panoptic_quality
from property_settings import holds_for, seeds

THRESHOLDS = np.linspace(0.5, 0.95, 10)
EMPTY = np.zeros(0)


def instance_pair(draw, size, kind: str, form: str) -> tuple[dict, dict]:
    """As a map of ids or as bool masks that overlap, with scores some of which are equal."""
    predicted, true = panoptic_pair(draw, size, kind)
    scores = draw.choice([0.1, 0.5, 0.5, 0.9, 1.0, *draw.random(4)], len(predicted["segments_info"]))
    for info, score in zip(predicted["segments_info"], scores, strict=True):
        info["score"] = float(score)
    if form != "ids":
        masks = [mask for _, mask, _ in segments_of(predicted)]
        masks = [mask | (draw.random(size) < 0.2) for mask in masks]
        predicted["segmentation"] = np.array(masks, bool).reshape(-1, *size)  # (n, H, W)
    if form == "tensor":
        predicted["segmentation"] = torch.from_numpy(predicted["segmentation"])
    return predicted, true


def plain_average_precision(pairs: list, category: int, threshold: float) -> float:
    """COCO's AP of one category at one threshold: greedy by score, crowds ignored, at 101 points of recall."""
    found, total = [], 0
    for predicted, true in pairs:
        truth = [(mask, crowd) for label, mask, crowd in segments_of(true) if label == category]
        truth.sort(key=lambda item: item[1])  # crowds last
        total += sum(not crowd for _, crowd in truth)
        maps, infos = np.asarray(predicted["segmentation"]), predicted["segments_info"]
        masks = maps if maps.dtype == bool else [maps == info["id"] for info in infos]
        guesses = [
            (info["score"], mask) for info, mask in zip(infos, masks, strict=True) if info["label_id"] == category
        ]
        taken = set()
        for score, mask in sorted(guesses, key=lambda item: -item[0]):
            best, chosen = min(threshold, 1 - 1e-10), None
            for number, (other, crowd) in enumerate(truth):
                if number in taken and not crowd or chosen is not None and not truth[chosen][1] and crowd:
                    continue
                shared, union = (mask & other).sum(), mask.sum() if crowd else (mask | other).sum()
                if union and shared / union >= best:
                    best, chosen = shared / union, number
            if chosen is None or not truth[chosen][1]:
                found.append((score, chosen is not None))
            if chosen is not None:
                taken.add(chosen)
    if not total:
        return math.nan
    found.sort(key=lambda item: -item[0])
    right = np.cumsum([hit for _, hit in found])
    precision = np.maximum.accumulate((right / np.arange(1, len(found) + 1))[::-1])[::-1] if found else EMPTY
    positions = np.searchsorted(right / total if found else EMPTY, np.linspace(0, 1, 101))
    return float(np.mean([precision[i] if i < len(precision) else 0.0 for i in positions]))


@holds_for(**images, form=st.sampled_from(["ids", "bool", "tensor"]))
def test_average_precision_is_that_of_coco_by_hand(seed, sizes, kind, form):
    draw = np.random.default_rng(seed)
    pairs = [instance_pair(draw, size, kind, form) for size in sizes]
    metric = mask_average_precision.MaskAveragePrecision(CATEGORIES)
    found = at_once(metric, pairs)
    of_things = {}
    for category in THINGS:
        ap = [plain_average_precision(pairs, category, threshold) for threshold in THRESHOLDS]
        of_things[category] = {"ap": float(np.mean(ap)), "ap50": ap[0], "ap75": ap[5]}
    assert same(found["per_class"], of_things)
    for name in ("ap", "ap50", "ap75"):
        values = [row[name] for row in of_things.values() if not math.isnan(row[name])]
        assert same(found[name], mean(values))
    # Images in order: of equal scores, those of earlier images rank first.
    for predicted, true in pairs:
        metric.add(prediction=predicted, reference=true)
    assert same(metric.compute(), found)


@holds_for(
    seed=seeds,
    size=size_pairs,
    wrong=st.sampled_from(["twice", "unknown id", "unknown label", "float", "size", "no key"]),
    of_prediction=st.booleans(),
    instances=st.booleans(),
)
def test_what_is_wrong_is_one_error_and_nothing_is_counted(seed, size, wrong, of_prediction, instances):
    draw = np.random.default_rng(seed)
    good, bad = ([instance_pair(draw, size, "random", "ids")] for _ in "ab")
    side = bad[0][0 if of_prediction else 1]
    side["segmentation"][0, 0] = 1
    if not any(info["id"] == 1 for info in side["segments_info"]):
        side["segments_info"].append({"id": 1, "label_id": 7, "score": 0.5})
    side["segments_info"] = [info for info in side["segments_info"] if (side["segmentation"] == info["id"]).any()]
    segments = side["segments_info"]
    if wrong == "twice":
        segments.append(dict(segments[0]))
    elif wrong == "unknown id":
        side["segmentation"][0, 0] = 99
    elif wrong == "unknown label":
        segments[-1]["label_id"] = 77
    elif wrong == "no key":
        del segments[0]["label_id"]
    elif wrong == "float":
        side["segmentation"] = side["segmentation"].astype(float)
    else:
        side["segmentation"] = np.pad(side["segmentation"], ((0, 0), (0, 1)))
    module = mask_average_precision.MaskAveragePrecision if instances else panoptic_quality.PanopticQuality
    metric = module(CATEGORIES)
    metric.add_batch(predictions=[good[0][0]], references=[good[0][1]])
    name = "prediction 0" if of_prediction or wrong == "size" else "reference 0"
    with pytest.raises(TypeError if wrong == "float" else ValueError, match=f"^{name}"):
        metric.add_batch(predictions=[bad[0][0]], references=[bad[0][1]])
    assert same(metric.compute(), at_once(module(CATEGORIES), good))
