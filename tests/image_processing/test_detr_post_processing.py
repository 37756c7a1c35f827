"""DETR's panoptic post-processing against the official answers, a hand-worked case and whole tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maskformer.image_processing import row_blocks
from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessor,
)
from query_outputs import BIG, CASES, bilinear, binary_outputs, outputs_of, pixel_mask, query_logits, reference_case


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_detr_panoptic_answer_is_the_official_one(case):
    stuff = list(range(case["num_things"], case["num_labels"]))
    [answer] = MaskFormerUniversalImageProcessor(label_ids_to_fuse=stuff).post_process_panoptic_segmentation(
        reference_case(case), case["threshold"], target_sizes=[case["output_size"]], method="detr"
    )
    segments, expected = answer["segments_info"], case["panoptic_detr"]["segments"]
    areas = torch.bincount(answer["segmentation"].flatten(), minlength=len(segments) + 1).tolist()
    assert answer["segmentation"].dtype == torch.int32 and areas[0] == 0
    assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
    assert [s["label_id"] for s in segments] == [label for label, _ in expected]
    assert [s["was_fused"] for s in segments] == [s["label_id"] in stuff for s in segments]
    for segment, (_, area) in zip(segments, expected, strict=True):
        assert abs(areas[segment["id"]] - area) <= 0.002 * answer["segmentation"].numel()


def test_detr_gives_pixels_by_mask_logit_and_drops_small_segments():
    size = (10, 12)
    halves, spot = [np.zeros(size, bool) for _ in range(2)], np.zeros(size, bool)
    halves[0][:, :6], halves[1][:, 6:] = True, True
    spot[2, 2:6] = True  # 4 pixels
    outputs = binary_outputs([0, 0, 2], [*halves, spot], confidence=[BIG, 3.0, BIG])
    outputs.masks_queries_logits[0, 2] += torch.from_numpy(spot)  # higher there than the half
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[1])
    [answer] = processor.post_process_panoptic_segmentation(outputs, 0.5, method="detr")
    assert [s["label_id"] for s in answer["segments_info"]] == [0, 0]
    assert torch.equal(answer["segmentation"], torch.from_numpy(np.where(halves[0], 1, 2)).int())

    # A label's probability decides whether a query counts, and not which pixels it wins.
    outputs.masks_queries_logits[0, 1] += 2 * BIG + 1
    [answer] = processor.post_process_panoptic_segmentation(outputs, 0.5, method="detr")
    assert [s["score"] for s in answer["segments_info"]] == [pytest.approx(np.exp(3) / (np.exp(3) + 4), rel=1e-4)]
    assert (answer["segmentation"] == 1).all()
    [answer] = processor.post_process_panoptic_segmentation(outputs, 0.99, method="detr")
    assert len(answer["segments_info"]) == 1 and (answer["segmentation"] == 1).all()

    # Stuff is fused first; the queries that lost their pixels so are dropped, and those pixels go to what is left.
    [answer] = processor.post_process_panoptic_segmentation(
        binary_outputs([0, 0, 2], [*halves, spot]), 0.5, label_ids_to_fuse=[0], method="detr"
    )
    assert [(s["label_id"], s["was_fused"]) for s in answer["segments_info"]] == [(0, True)]
    assert (answer["segmentation"] == 1).all()


@pytest.mark.parametrize("output_size", [(37, 51), (8, 5), (90, 131)])
def test_detr_answer_equals_whole_tensors(monkeypatch, output_size):
    """Blocks of rows and the rows that are left out change nothing."""
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 2000)
    classes, masks = query_logits(5, 12, 6, (16, 20))
    classes[:, -1] -= 7
    outputs = outputs_of(classes, masks, pixel_mask((64, 80), (50, 71)))
    [answer] = MaskFormerUniversalImageProcessor().post_process_panoptic_segmentation(
        outputs, 0.3, target_sizes=[output_size], method="detr"
    )
    scores, labels = classes.softmax(-1).max(-1)
    keep = (labels != 6) & (scores > 0.3)
    labels, masks = labels[keep], bilinear(masks[keep], (64, 80))[:, :50, :71]
    while True:
        winner = Image.fromarray(masks.argmax(0).numpy().astype(np.int32)).resize(output_size[::-1], Image.NEAREST)
        winner = torch.from_numpy(np.array(winner))
        large = torch.bincount(winner.flatten(), minlength=len(labels)) > 4
        if large.all():
            break
        labels, masks = labels[large], masks[large]
    assert [s["label_id"] for s in answer["segments_info"]] == labels.tolist()
    assert (answer["segmentation"] != winner + 1).float().mean() < 0.002
