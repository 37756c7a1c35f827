"""What is compared gives the same answers, and is measured in turns."""

from __future__ import annotations

import pytest
import torch

from maskformer import MaskFormerUniversalImageProcessor
from maskformer.benchmarks.alternating import Timing, alternate
from maskformer.benchmarks.post_process import (
    OURS,
    PLAIN,
    THEIRS,
    answer_runs,
    measure_post_processing,
    plain_semantic,
    predictions,
)

CANVAS, SIZE = (64, 96), (60, 80)


def test_the_plain_steps_give_this_packages_labels():
    outputs = predictions(CANVAS, 7, kept=5, queries=9)
    answer = MaskFormerUniversalImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[SIZE])[0]
    assert (plain_semantic(outputs, CANVAS, CANVAS, SIZE) == answer).float().mean() > 0.999
    assert len(answer.unique()) > 1


def test_the_queries_that_are_to_be_kept_are():
    outputs = predictions((128, 160), 7, kept=5, queries=9)
    answer = MaskFormerUniversalImageProcessor().post_process_panoptic_segmentation(outputs, label_ids_to_fuse=())[0]
    assert len(answer["segments_info"]) == 5


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
def test_every_way_has_its_time(task):
    cost = measure_post_processing([answer_runs(task, CANVAS, SIZE, num_labels=90, kept=3)], rounds=2)
    ways = {OURS, THEIRS, PLAIN} if task == "semantic" else {OURS, THEIRS}
    assert set(cost.timings) == set(cost.memory) == {(task, way) for way in ways}
    assert all(len(timing.seconds) == 2 and timing.median > 0 for timing in cost.timings.values())


def test_runs_take_turns_and_the_first_does_not_count():
    order = []
    timings = alternate({"one": lambda: order.append(1), "two": lambda: order.append(2)}, rounds=3)
    assert order == [1, 2] * 4 and len(timings["one"].seconds) == 3


def test_median_and_spread():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 10.0))
    assert timing.median == 3.0 and timing.spread == pytest.approx((7.0 - 1.5) / 3)
    assert Timing((1.0,)).spread == 0


def test_predictions_are_the_same_every_time():
    one, other = (predictions(CANVAS, 7, kept=5) for _ in range(2))
    assert torch.equal(one.masks_queries_logits, other.masks_queries_logits)
