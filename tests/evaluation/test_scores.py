"""Scores are sums: over images, processes and interruptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluations import LABELS, VOID, make_example, same, shifted_answer
from maskformer.data.example import semantic_map
from maskformer.evaluation.answers import Answer
from maskformer.evaluation.scores import Scores
from maskformer.metrics import MaskAveragePrecision, MeanIoU, PanopticQuality, SemanticPanopticQuality

KINDS = ("semantic", "panoptic", "instance")


def pairs(count: int = 8) -> list[tuple[dict, Answer]]:
    """Examples with answers that are right in parts."""
    examples = [make_example(index) | {"index": index} for index in range(count)]
    return [(example, shifted_answer(example, example["index"] % 4)) for example in examples]


def scores_of(chosen) -> Scores:
    """The scores of these pairs."""
    scores = Scores(LABELS, KINDS)
    for example, answer in chosen:
        scores.add(example, answer)
    return scores


def test_the_summary_holds_what_the_metrics_say_of_all_images():
    chosen = pairs()
    summary = scores_of(chosen).summary()
    examples, answers = [example for example, _ in chosen], [answer for _, answer in chosen]
    truths = [semantic_map(example, VOID) for example in examples]
    semantic = [answer.semantic for answer in answers]
    iou = MeanIoU(num_labels=4, ignore_index=VOID).compute(predictions=semantic, references=truths)
    maps = SemanticPanopticQuality(num_labels=4, ignore_index=VOID).compute(predictions=semantic, references=truths)
    panoptic = PanopticQuality(categories=LABELS.categories).compute(
        predictions=[answer.panoptic for answer in answers], references=examples
    )
    precision = MaskAveragePrecision(categories=LABELS.categories).compute(
        predictions=[answer.instances for answer in answers], references=examples
    )
    assert summary["images"] == 8
    assert summary["pq"] == pytest.approx(panoptic["pq"], abs=1e-12) and 0 < summary["pq"] < 1
    assert summary["rq_things"] == pytest.approx(panoptic["rq_things"], abs=1e-12)
    assert summary["mean_iou"] == pytest.approx(iou["mean_iou"], abs=1e-12)
    assert summary["semantic_pq"] == pytest.approx(maps["pq"], abs=1e-12)
    assert summary["ap"] == precision["ap"] and 0 < summary["ap"] < 1
    row = summary["per_label"]["label 3"]
    assert row["iou"] == pytest.approx(iou["per_category_iou"][3], abs=1e-12)
    assert (row["tp"], row["ap"]) == (panoptic["per_class"][3]["tp"], precision["per_class"][3]["ap"])
    assert "ap" not in summary["per_label"]["label 0"]  # stuff


def test_states_add_up_in_any_order():
    chosen = pairs()
    expected = scores_of(chosen).summary()
    total = Scores(LABELS, KINDS)
    for part in (chosen[1::2], chosen[::2]):
        total.add_state(scores_of(part).state())
    assert same(total.summary(), expected)
    assert total.summary()["ap"] == expected["ap"]
    assert sorted(total.images) == list(range(8))


def test_equal_scores_are_ranked_by_the_image_whichever_process_had_it():
    """All predictions have one score; precision then depends on the order of the images."""
    chosen = pairs()
    for _, answer in chosen:
        for info in answer.instances["segments_info"]:
            info["score"] = 0.5
    total = Scores(LABELS, KINDS)
    for part in (chosen[5:], chosen[:5]):
        total.add_state(scores_of(part).state())
    assert total.summary()["ap"] == scores_of(chosen).summary()["ap"]


def test_images_have_a_score_of_their_own():
    chosen = pairs(3)
    scores = scores_of(chosen)
    for example, answer in chosen:
        alone = PanopticQuality(categories=LABELS.categories).compute(
            predictions=[answer.panoptic], references=[example]
        )
        assert scores.images[example["index"]] == (example["image_id"], pytest.approx(alone["pq"], abs=1e-12))
    assert scores.images[0][1] == 1.0  # whose answer is the truth


def nothing(size: tuple[int, int]) -> Answer:
    """No segment and no instance; every pixel has label 0."""
    panoptic = {"segmentation": torch.zeros(size, dtype=torch.int32), "segments_info": []}
    return Answer(torch.zeros(size, dtype=torch.int64), panoptic, {"segmentation": [], "segments_info": []})


def test_an_image_without_any_prediction_misses_every_segment():
    example = make_example(0) | {"index": 0}
    summary = scores_of([(example, nothing((40, 56)))]).summary()
    assert summary["pq"] == 0 and summary["ap"] == 0
    rows = summary["per_label"].values()
    assert sum(row["fn"] for row in rows) == len(example["segments_info"])
    assert sum(row["tp"] + row["fp"] for row in rows) == 0


def test_an_image_without_any_truth_has_no_score_and_counts_nothing():
    example = make_example(0) | {"index": 0}
    void = {**example, "segmentation": np.zeros((40, 56), np.int32), "segments_info": []}
    scores = scores_of([(void, shifted_answer(example, 1)), (void, nothing((40, 56)))])
    summary = scores.summary()
    assert math.isnan(scores.images[0][1]) and math.isnan(summary["mean_iou"]) and math.isnan(summary["pq"])
    assert sum(row["fp"] for row in summary["per_label"].values()) == 0  # all on void


def test_an_image_of_one_pixel_counts():
    example = make_example(0) | {"index": 0}
    example |= {"segmentation": np.ones((1, 1), np.int32), "segments_info": [{"id": 1, "label_id": 0, "iscrowd": 0}]}
    answer = nothing((1, 1))
    summary = scores_of([(example, answer)]).summary()
    assert summary["mean_iou"] == 1.0 and summary["pq"] == 0.0


def test_another_size_than_that_of_the_truth_is_named_with_its_image_and_counts_nothing():
    example = make_example(3) | {"index": 3, "image_id": "street"}
    scores = Scores(LABELS, KINDS)
    with pytest.raises(ValueError, match=r"image 'street': .*size \(56, 40\) and its reference \(40, 56\)"):
        scores.add(example, nothing((56, 40)))
    assert scores.confusion.sum() == 0 and not scores.images
