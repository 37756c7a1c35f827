"""Panoptic maps and segments drawn at random, and what compares metrics of them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from property_settings import seeds

CATEGORIES = [{"id": 7, "isthing": 1}, {"id": 0, "isthing": 1}, {"id": 300, "isthing": 0}, {"id": 2, "isthing": 0}]
THINGS = [category["id"] for category in CATEGORIES if category["isthing"]]
HUGE_IDS = (1, 2, 3, 40, 255, 65536, 256**3 - 1, 2**40)


def same(found, expected) -> bool:
    """Whether numbers, arrays or nested dicts of them are equal, but for rounding; NaN equals NaN."""
    if isinstance(expected, dict):
        return found.keys() >= expected.keys() and all(same(found[key], value) for key, value in expected.items())
    return np.allclose(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def mean(values) -> float:
    """NaN of no values."""
    return float(np.mean(values)) if len(values) else math.nan


def at_once(metric, pairs: list) -> dict:
    return metric.compute(predictions=[one for one, _ in pairs], references=[other for _, other in pairs])


def panoptic_side(draw, size, kind: str, is_reference: bool, base=None) -> dict:
    """A map of huge, unsorted ids with holes, and its segments in any order."""
    ids = draw.permutation(HUGE_IDS)
    canvas = draw.integers(0, 4, size) if base is None else np.where(draw.random(size) < 0.7, base, 0)
    if kind == "void" and is_reference or kind == "no prediction" and not is_reference:
        canvas = np.zeros(size, int)
    labels = draw.choice([category["id"] for category in CATEGORIES], 5) if kind != "crowd" else [7] * 5
    present = [int(value) for value in draw.permutation(np.unique(canvas)) if value]
    segments = [{"id": int(ids[value]), "label_id": int(labels[value])} for value in present]
    for segment in segments if is_reference else []:
        segment["iscrowd"] = int(kind == "crowd" or draw.random() < 0.2)
    table = np.r_[0, ids[1:]]
    return {"segmentation": table[canvas], "segments_info": segments, "canvas": canvas}


def panoptic_pair(draw, size, kind: str) -> tuple[dict, dict]:
    true = panoptic_side(draw, size, kind, True)
    predicted = panoptic_side(draw, size, kind, False, true["canvas"] if draw.random() < 0.7 else None)
    return predicted, true


def segments_of(side: dict) -> list:
    return [
        (info["label_id"], side["segmentation"] == info["id"], bool(info.get("iscrowd", 0)))
        for info in side["segments_info"]
    ]


size_pairs = st.tuples(st.integers(1, 6), st.integers(1, 6))
images = {
    "seed": seeds,
    "sizes": st.lists(size_pairs, max_size=4),
    "kind": st.sampled_from(["random", "blocks", "void", "crowd", "no prediction"]),
}
