"""What the benchmark of metrics measures."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_a_peer_is_timed_from_where_it_lies(tmp_path):
    # What the benchmark asks of panopticapi; the real one is not installed with this project.
    (tmp_path / "panopticapi").mkdir()
    (tmp_path / "panopticapi" / "__init__.py").touch()
    (tmp_path / "panopticapi" / "evaluation.py").write_text(
        "rgb2id = lambda color: color[..., 0] + 256 * color[..., 1]\n"
        "def pq_compute_single_core(number, pairs, true_folder, predicted_folder, categories):\n"
        "    print('Core')\n"
        "    (true, predicted), = pairs\n"
        "    assert {s['category_id'] for s in true['segments_info']} <= set(categories)\n"
    )
    cost = measure_metrics(images=1, rounds=1, size=(48, 64), peers=tmp_path)
    assert {"panopticapi", "panopticapi's reading of two PNGs alone"} < cost.seconds.keys()
    with pytest.raises(ValueError, match="neither panopticapi/ nor metrics/mean_iou/"):
        measure_metrics(images=1, rounds=1, size=(48, 64), peers=tmp_path / "panopticapi")
