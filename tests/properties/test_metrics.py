"""Metrics of maps beside brute force: sets of pixels, and loops over segments."""

from __future__ import annotations

import math

import numpy as np

from drawn_segments import CATEGORIES, THINGS, at_once, images, mean, panoptic_pair, same, segments_of
from maskformer.metrics.mean_iou import mean_iou
from maskformer.metrics.panoptic_quality import panoptic_quality
from maskformer.metrics.semantic_panoptic_quality import semantic_panoptic_quality
from property_settings import holds_for

LABELS = 4
EMPTY = np.zeros(0)


def in_parts(metric, pairs: list, draw) -> dict:
    """What `metric` says of pairs that come in any order and in batches of any size, some of them empty."""
    pairs = [pairs[i] for i in draw.permutation(len(pairs))]
    while pairs:
        count = int(draw.integers(0, len(pairs) + 1))
        batch, pairs = pairs[:count], pairs[count:]
        if count == 1 and draw.random() < 0.5:
            metric.add(prediction=batch[0][0], reference=batch[0][1])
        else:
            metric.add_batch(predictions=[one for one, _ in batch], references=[other for _, other in batch])
    return metric.compute()


def label_pair(draw, size, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A predicted and a true label map of any type of integers; 255 is void, 9 and 254 are no labels."""
    true = draw.choice([0, 1, 2, 3, 255], size)
    predicted = np.where(draw.random(size) < 0.5, true, draw.choice([0, 1, 2, 3, 9, 254, 255], size))
    if kind == "void":
        true[:] = 255
    elif kind == "blocks":
        true, predicted = (np.full(size, draw.choice([0, 1, 3])) for _ in "ab")
        predicted[: int(draw.integers(1, size[0] + 1))] = draw.choice([0, 1, 3])
    types = [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64]
    return tuple(side.astype(types[draw.integers(len(types))]) for side in (predicted, true))


def plain_mean_iou(pairs) -> dict:
    predicted, true = (np.concatenate([pair[i].ravel().astype(int) for pair in pairs] or [EMPTY]) for i in (0, 1))
    predicted, true = predicted[true != 255], true[true != 255]
    iou, accuracy, frequency = np.full((3, LABELS), math.nan)
    for label in set(true.tolist()):
        here, there = predicted == label, true == label
        iou[label] = (here & there).sum() / (here | there).sum()
        accuracy[label], frequency[label] = (here & there).sum() / there.sum(), there.mean()
    seen = ~np.isnan(iou)
    return {
        "mean_iou": mean(iou[seen]),
        "mean_accuracy": mean(accuracy[seen]),
        "overall_accuracy": mean(predicted == true),
        "frequency_weighted_iou": (iou * frequency)[seen].sum() if seen.any() else math.nan,
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


def plain_quality(counts: dict, ids) -> dict:
    """PQ of IoUs of matches, false positives and misses (`counts[id]`), averaged over `ids` that have any."""
    rows = {}
    for identity, (ious, fp, fn) in counts.items():
        weight = len(ious) + fp / 2 + fn / 2
        pq, rq = (sum(ious) / weight, len(ious) / weight) if weight else (0.0, 0.0)
        rows[identity] = {"pq": pq, "sq": mean(ious) if ious else 0.0, "rq": rq, "tp": len(ious), "fp": fp, "fn": fn}
    some = [rows[i] for i in ids if rows[i]["tp"] + rows[i]["fp"] + rows[i]["fn"]]
    return {**{name: mean([row[name] for row in some]) for name in ("pq", "sq", "rq")}, "n": len(some)}, rows


def count_segments(true: list, predicted: list, void: np.ndarray, counts: dict) -> None:
    """Adds an image's matches, false positives and misses; segments are (label, mask, is a crowd)."""
    taken = set()
    for label, mask, crowd in true:
        if crowd:
            continue
        for number, (other, guess, _) in enumerate(predicted):
            shared = (mask & guess).sum()
            if other == label and shared and shared / ((mask | guess) & ~(void & guess)).sum() > 0.5:
                counts[label][0].append(shared / ((mask | guess) & ~(void & guess)).sum())
                taken.add(number)
                break
        else:
            counts[label][2] += 1
    for number, (label, guess, _) in enumerate(predicted):
        crowds = [mask for other, mask, crowd in true if crowd and other == label]
        excused = void | crowds[-1] if crowds else void
        if number not in taken and 2 * (guess & excused).sum() <= guess.sum():
            counts[label][1] += 1


@holds_for(**images)
def test_mean_iou_is_that_of_sets_of_pixels(seed, sizes, kind):
    draw = np.random.default_rng(seed)
    pairs = [label_pair(draw, size, kind) for size in sizes]
    expected, metric = plain_mean_iou(pairs), mean_iou.MeanIoU(LABELS)
    assert same(at_once(metric, pairs), expected)
    assert same(in_parts(metric, pairs, draw), expected)
    assert math.isnan(metric.compute()["mean_iou"])  # a fresh start


@holds_for(**images)
def test_semantic_panoptic_quality_is_that_of_sets_of_pixels(seed, sizes, kind):
    draw = np.random.default_rng(seed)
    pairs = [label_pair(draw, size, kind) for size in sizes]
    counts = {label: [[], 0, 0] for label in range(LABELS)}
    for predicted, true in pairs:
        sides = ([(k, side == k, False) for k in range(LABELS) if (side == k).any()] for side in (true, predicted))
        count_segments(*sides, true == 255, counts)
    means, rows = plain_quality(counts, range(LABELS))
    metric = semantic_panoptic_quality.SemanticPanopticQuality(LABELS)
    for found in (at_once(metric, pairs), in_parts(metric, pairs, draw)):
        assert same(found, means | {"per_class": rows})


@holds_for(**images)
def test_panoptic_quality_is_that_of_loops_over_segments(seed, sizes, kind):
    draw = np.random.default_rng(seed)
    pairs = [panoptic_pair(draw, size, kind) for size in sizes]
    counts = {category["id"]: [[], 0, 0] for category in CATEGORIES}
    for predicted, true in pairs:
        count_segments(segments_of(true), segments_of(predicted), true["segmentation"] == 0, counts)
    metric = panoptic_quality.PanopticQuality(CATEGORIES)
    for found in (at_once(metric, pairs), in_parts(metric, pairs, draw)):
        for suffix, ids in (("", counts), ("_things", THINGS), ("_stuff", set(counts) - set(THINGS))):
            means, rows = plain_quality(counts, ids)
            assert same(found, {name + suffix: value for name, value in means.items()} | {"per_class": rows})
