"""What the benchmark of metrics measures."""

from __future__ import annotations

import numpy as np

from maskformer.benchmarks.metrics import PLAIN, measure_metrics, memory_growth, random_segments


def test_every_metric_is_timed_beside_the_plain_count_and_keeps_nothing():
    cost = measure_metrics(images=30, rounds=2, size=(48, 64))
    assert set(cost.seconds) == {PLAIN, "mean_iou", "panoptic_quality", "semantic_panoptic_quality"}
    assert cost.ratio(PLAIN) == 1 and all(seconds > 0 for seconds in cost.seconds.values())
    assert cost.growth.keys() == cost.seconds.keys() - {PLAIN}
    assert max(cost.growth.values()) < 30 * 100  # not a map, not a number an image


def test_what_is_kept_is_noticed():
    kept = []
    growth = memory_growth(lambda: kept.append(np.zeros(1000, np.uint8)), 50, lambda: None)
    assert growth > 50 * 1000


def test_segments_have_the_id_of_the_nearest_point():
    segments, labels = random_segments((30, 40), 6, 9)
    assert segments.shape == (30, 40) and set(np.unique(segments)) <= set(range(1, 7))
    assert labels.shape == (6,) and labels.max() < 9
    assert (segments[:, 1:] == segments[:, :-1]).mean() > 0.8
