"""Semantic, panoptic and instance answers against the official ones, plain formulas and hand-worked cases."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco

from maskformer.image_processing import dominance, mask_windows, row_blocks, tile_grid, tiles
from maskformer.image_processing.image_prediction import ImagePrediction, image_predictions
from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessor,
    PerPixelBaselineImageProcessor,
)
from maskformer.image_processing.post_processing import semantic_scores, semantic_segmentation
from query_outputs import (
    BIG,
    CASES,
    LargestTensor,
    bilinear,
    binary_outputs,
    confidence_for,
    outputs_of,
    pixel_mask,
    plain_scores,
    query_logits,
    rectangle,
    reference_case,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_reference_logits_are_regenerated(case):
    outputs = reference_case(case)
    assert outputs.class_queries_logits[0, :2, :3].tolist() == case["class_logits_corner"]
    assert outputs.masks_queries_logits[0, 0, :2, :3].tolist() == case["mask_logits_corner"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
@pytest.mark.parametrize("order", ["resize_masks_first", "resize_scores_last"])
def test_semantic_answer_is_the_official_one(case, order):
    outputs, expected, first = reference_case(case), case["semantic"][order], order == "resize_masks_first"
    scores = semantic_scores(image_predictions(outputs, [case["output_size"]])[0], first)
    torch.testing.assert_close(scores[:3, 0, :3], torch.tensor(expected["corner"]), rtol=1e-4, atol=1e-6)
    assert scores.mean().item() == pytest.approx(expected["score_mean"], rel=1e-5)

    processor = MaskFormerUniversalImageProcessor()
    [labels] = processor.post_process_semantic_segmentation(outputs, [case["output_size"]], resize_masks_first=first)
    assert labels.dtype == torch.int64 and list(labels.shape) == case["output_size"]
    histogram = torch.bincount(labels.flatten(), minlength=case["num_labels"])
    wanted = torch.zeros_like(histogram)
    for label, count in expected["histogram"].items():
        wanted[int(label)] = count
    assert (histogram - wanted).abs().sum() <= 0.002 * labels.numel()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_panoptic_answer_is_the_official_one(case):
    stuff = list(range(case["num_things"], case["num_labels"]))
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=stuff)
    [answer] = processor.post_process_panoptic_segmentation(
        reference_case(case), case["threshold"], 0.5, case["overlap_threshold"], target_sizes=[case["output_size"]]
    )
    segments = answer["segments_info"]
    areas = torch.bincount(answer["segmentation"].flatten(), minlength=len(segments) + 1).tolist()
    tolerance = 0.002 * answer["segmentation"].numel()
    assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
    assert [s["label_id"] for s in segments] == [label for label, _ in case["panoptic"]["segments"]]
    assert [s["was_fused"] for s in segments] == [s["label_id"] in stuff for s in segments]
    for segment, (_, area) in zip(segments, case["panoptic"]["segments"], strict=True):
        assert abs(areas[segment["id"]] - area) <= tolerance
    assert abs(areas[0] - case["panoptic"]["void_area"]) <= tolerance


@pytest.mark.parametrize("output_size", [(60, 75), (133, 180), (31, 40), (7, 200), (1, 1)])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("per_pixel", [True, False])
def test_blocks_of_rows_equal_the_whole(monkeypatch, output_size, first, per_pixel):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 4000)
    monkeypatch.setattr(tiles, "BLOCK_ELEMENTS", 4000)
    classes, masks = query_logits(3, 12, 7, (16, 20))
    p = ImagePrediction(None if per_pixel else classes, masks, (63, 78), (60, 75), output_size)
    torch.testing.assert_close(semantic_scores(p, first), plain_scores(p, first), rtol=1e-5, atol=1e-5)
    assert torch.equal(semantic_segmentation(p, first), semantic_scores(p, first).argmax(0))


def test_infinite_logits_are_as_sure_as_can_be():
    classes, masks = query_logits(6, 5, 4, (8, 12))
    classes[:, :] = -9.0
    classes[0, 1] = classes[1, 2] = 9.0
    masks[:] = -torch.inf
    masks[0, :, :6] = torch.inf
    masks[1, :, 6:] = torch.inf
    processor = MaskFormerUniversalImageProcessor()
    outputs = outputs_of(classes, masks)
    for first in (True, False):
        answer = processor.post_process_semantic_segmentation(outputs, resize_masks_first=first)[0]
        assert (answer[:, :22] == 1).all() and (answer[:, 26:] == 2).all()
    answer = processor.post_process_panoptic_segmentation(outputs)[0]
    assert [info["label_id"] for info in answer["segments_info"]] == [1, 2]
    answer = processor.post_process_instance_segmentation(outputs, return_binary_maps=True)[0]
    assert answer["segmentation"][:, :, 0].all(1).tolist() == [True, False]


def test_autocast_does_not_round_answers():
    classes, masks = query_logits(7, 25, 6, (16, 20))
    outputs, processor = outputs_of(classes, masks, pixel_mask((64, 80), (60, 75))), MaskFormerUniversalImageProcessor()
    expected = list(all_answers(processor, outputs, [(90, 100)]))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(all_answers(processor, outputs, [(90, 100)]), expected)


def test_a_default_dtype_does_not_matter():
    classes, masks = query_logits(7, 25, 6, (16, 20))
    outputs, processor = outputs_of(classes, masks), MaskFormerUniversalImageProcessor()
    expected = list(all_answers(processor, outputs, [(91, 103)]))
    remembered = dominance.bits, tile_grid.tile_grid, tile_grid.tile_axes, mask_windows.resizing
    for function in remembered:
        function.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(all_answers(processor, outputs, [(91, 103)]), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_nothing_of_classes_or_queries_times_the_picture_is_made(monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 2**16)
    monkeypatch.setattr(tiles, "BLOCK_ELEMENTS", 2**16)
    monkeypatch.setattr(dominance, "OPEN_ELEMENTS", 2**16)
    classes, masks = query_logits(4, 12, 20, (24, 32))
    outputs = outputs_of(classes, masks, pixel_mask((96, 128), (96, 120)))
    processor = MaskFormerUniversalImageProcessor()
    with LargestTensor() as made:
        for first in (True, False):
            processor.post_process_semantic_segmentation(outputs, [(300, 375)], resize_masks_first=first)
        processor.post_process_panoptic_segmentation(outputs, threshold=0.0, target_sizes=[(300, 375)])
        processor.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=[(300, 375)])
    assert made.elements <= 300 * 378  # the map, up to whole tiles


def test_per_pixel_logits_are_enlarged_by_four_and_cut():
    logits = torch.randn(2, 5, 9, 11, generator=torch.Generator().manual_seed(0))
    mask = pixel_mask((34, 42), (34, 42), (30, 37))  # the network rounded 34 / 4 and 42 / 4 up
    outputs = SimpleNamespace(logits=logits, pixel_mask=mask)
    answers = PerPixelBaselineImageProcessor().post_process_semantic_segmentation(outputs, torch.tensor([[50, 60]] * 2))
    for one, (height, width), answer in zip(logits, [(34, 42), (30, 37)], answers, strict=True):
        enlarged = F.interpolate(one[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
        assert torch.equal(answer, bilinear(enlarged[:, :height, :width], (50, 60)).argmax(0))


def test_answers_have_the_images_size_unless_told():
    classes, masks = query_logits(5, 10, 4, (8, 12))
    processor = MaskFormerUniversalImageProcessor()
    with_mask, without = outputs_of(classes, masks, pixel_mask((32, 48), (30, 41))), outputs_of(classes, masks)
    assert processor.post_process_semantic_segmentation(with_mask)[0].shape == (30, 41)
    assert processor.post_process_semantic_segmentation(without)[0].shape == (32, 48)
    assert processor.post_process_panoptic_segmentation(with_mask)[0]["segmentation"].shape == (30, 41)
    assert processor.post_process_instance_segmentation(with_mask, target_sizes=[(9, 7)])[0]["segmentation"].shape == (
        9,
        7,
    )
    del without.pixel_mask
    assert processor.post_process_semantic_segmentation(without)[0].shape == (32, 48)


def all_answers(processor, outputs, sizes=None):
    for first in (True, False):
        yield from processor.post_process_semantic_segmentation(outputs, sizes, resize_masks_first=first)
    for answer in processor.post_process_panoptic_segmentation(outputs, 0.3, target_sizes=sizes):
        yield from (answer["segmentation"], answer["segments_info"])
    for answer in processor.post_process_instance_segmentation(outputs, 0.3, target_sizes=sizes):
        yield from (answer["segmentation"], answer["segments_info"])


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_padding_never_enters_an_answer():
    classes, masks = query_logits(6, 20, 6, (16, 20))
    disturbed = masks.clone()
    disturbed[:, 11:] = BIG  # the image ends in row 10 and column 12 of the masks, and the next ones touch its border
    disturbed[:, :, 13:] = BIG
    mask = pixel_mask((64, 80), (41, 50))
    processor = MaskFormerUniversalImageProcessor()
    sizes = [(82, 100)]
    assert_same(
        all_answers(processor, outputs_of(classes, masks, mask), sizes),
        all_answers(processor, outputs_of(classes, disturbed, mask), sizes),
    )


def test_a_mixed_batch_equals_its_images_alone():
    logits = [query_logits(seed, 20, 6, (16, 20)) for seed in (7, 8, 9)]
    classes, masks = (torch.stack(x) for x in zip(*logits, strict=True))
    mask = pixel_mask((64, 80), (64, 33), (20, 80), (64, 80))
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[3, 4, 5])
    for name in ("semantic", "panoptic", "instance"):
        answer = getattr(processor, f"post_process_{name}_segmentation")
        together = answer(outputs_of(classes, masks, mask))
        alone = [answer(outputs_of(classes[i], masks[i], mask[i : i + 1]))[0] for i in range(3)]
        for one, other in zip(together, alone, strict=True):
            as_list = (lambda x: [x]) if name == "semantic" else (lambda x: [x["segmentation"], x["segments_info"]])
            assert_same(as_list(one), as_list(other))


def test_half_precision_outputs_are_read_in_single_precision():
    classes, masks = (x.bfloat16() for x in query_logits(6, 20, 6, (16, 20)))
    processor = MaskFormerUniversalImageProcessor()
    assert_same(
        all_answers(processor, outputs_of(classes, masks)),
        all_answers(processor, outputs_of(classes.float(), masks.float())),
    )


def test_stuff_is_merged_under_one_id_and_things_are_not():
    size = (4, 8)
    quarters = [rectangle(size, 0, 4, left, left + 2) for left in (0, 2, 4, 6)]
    confidence = [confidence_for(x) for x in (0.9, 0.85, 0.95, 0.99)]
    outputs = binary_outputs([2, 1, 2, 1], quarters, confidence=confidence)
    [answer] = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[2, 3]).post_process_panoptic_segmentation(outputs)
    assert answer["segmentation"].dtype == torch.int32
    assert answer["segmentation"].tolist() == [[1, 1, 2, 2, 1, 1, 3, 3]] * 4
    scores = [segment.pop("score") for segment in answer["segments_info"]]
    assert scores == pytest.approx([0.95, 0.85, 0.99])  # the highest of the merged ones
    assert answer["segments_info"] == [
        {"id": 1, "label_id": 2, "was_fused": True},
        {"id": 2, "label_id": 1, "was_fused": False},
        {"id": 3, "label_id": 1, "was_fused": False},
    ]
    told = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[2]).post_process_panoptic_segmentation(
        outputs, label_ids_to_fuse=set()
    )
    assert told[0]["segmentation"].tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]] * 4
    assert not any(segment["was_fused"] for segment in told[0]["segments_info"])


def test_a_query_mostly_hidden_becomes_void():
    size = (1, 10)
    sure, hidden = rectangle(size, 0, 1, 0, 8), rectangle(size, 0, 1, 5, 10)  # 2 of 5 pixels remain of the second
    outputs = binary_outputs([0, 1], [sure, hidden], confidence=[BIG, confidence_for(0.9)])
    processor = MaskFormerUniversalImageProcessor()
    for overlap, expected in ((0.41, [1] * 8 + [0] * 2), (0.4, [1] * 8 + [2] * 2)):
        [answer] = processor.post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=overlap)
        assert answer["segmentation"].tolist() == [expected]


def test_mask_threshold_enters_the_claimed_area_only():
    # Mask probability 0.6 on the left half, 0.3 on the right one; the only query wins every pixel.
    logits = torch.logit(torch.tensor([[[0.6, 0.6, 0.3, 0.3]]]))
    outputs = outputs_of(torch.tensor([[BIG, 0.0]]), logits, pixel_mask((1, 4), (1, 4)))
    processor = MaskFormerUniversalImageProcessor()
    for mask_threshold, segments in ((0.5, 1), (0.2, 1), (0.7, 0)):  # 4 of 2, 4 of 4, and of none claimed
        [answer] = processor.post_process_panoptic_segmentation(outputs, mask_threshold=mask_threshold)
        assert len(answer["segments_info"]) == segments
        assert answer["segmentation"].tolist() == [[segments] * 4]


def test_panoptic_threshold_is_strict_and_no_object_never_counts():
    outputs = binary_outputs([0, 4], np.ones((2, 2, 2), bool))  # label 4 of K = 4 is no-object
    outputs.class_queries_logits[0] = torch.tensor([np.log(3.0), -BIG, -BIG, -BIG, 0.0])  # 0.75 against 0.25
    probability = outputs.class_queries_logits[0, 0].softmax(-1)[0].item()
    processor = MaskFormerUniversalImageProcessor()
    for threshold, count in ((probability, 0), (probability - 1e-4, 1)):
        [answer] = processor.post_process_panoptic_segmentation(outputs, threshold=threshold)
        assert len(answer["segments_info"]) == count


def test_instance_score_is_class_times_mean_mask_probability():
    probabilities = torch.tensor([[[0.9, 0.7, 0.4, 0.1]]])
    classes = torch.tensor([[confidence_for(0.8), 0.0, 0.0, 0.0, 0.0]])
    outputs = outputs_of(classes, torch.logit(probabilities), pixel_mask((1, 4), (1, 4)))
    processor = MaskFormerUniversalImageProcessor()
    [answer] = processor.post_process_instance_segmentation(outputs)
    assert answer["segmentation"].dtype == torch.int32 and answer["segmentation"].tolist() == [[1, 1, 0, 0]]
    [segment] = answer["segments_info"]
    assert segment.pop("score") == pytest.approx(0.8 * (0.9 + 0.7) / 2)
    assert segment == {"id": 1, "label_id": 0, "was_fused": False}
    [wider] = processor.post_process_instance_segmentation(outputs, mask_threshold=0.3)
    assert wider["segmentation"].tolist() == [[1, 1, 1, 0]]
    assert wider["segments_info"][0]["score"] == pytest.approx(0.8 * (0.9 + 0.7 + 0.4) / 3)
    for threshold, count in ((0.63, 1), (0.65, 0)):  # the threshold is on the product
        [some] = processor.post_process_instance_segmentation(outputs, threshold=threshold)
        assert len(some["segments_info"]) == count
    [none] = processor.post_process_instance_segmentation(outputs, threshold=0.1, mask_threshold=0.95)
    assert none["segments_info"] == []  # an empty mask is no instance, however sure


@pytest.fixture
def overlapping():
    """Three instances by falling score: [0, 6), [4, 10) and, mostly hidden by both, [3, 7); and one region of stuff."""
    size = (2, 12)
    masks = [rectangle(size, 0, 2, *columns) for columns in ((3, 7), (0, 6), (4, 10), (0, 12))]
    confidence = [confidence_for(x) for x in (0.7, 0.9, 0.8, 0.99)]
    return masks, binary_outputs([0, 1, 1, 3], masks, confidence=confidence)


def test_better_instances_hide_worse_ones_in_the_map(overlapping):
    _, outputs = overlapping
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[3])
    [answer] = processor.post_process_instance_segmentation(outputs, overlap_mask_area_threshold=0.6)
    assert answer["segmentation"].tolist() == [[1] * 6 + [2] * 4 + [0] * 2] * 2
    assert [(s["id"], s["label_id"]) for s in answer["segments_info"]] == [(1, 1), (2, 1)]
    [strict] = processor.post_process_instance_segmentation(outputs, overlap_mask_area_threshold=0.7)
    assert strict["segmentation"].tolist() == [[1] * 6 + [0] * 6] * 2  # 4 of 6 columns are too few
    [all_labels] = MaskFormerUniversalImageProcessor().post_process_instance_segmentation(outputs)
    assert [s["label_id"] for s in all_labels["segments_info"]] == [3]  # without known stuff everything may be a thing


def test_binary_maps_and_coco_annotations_keep_overlaps(overlapping):
    masks, outputs = overlapping
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[3])
    expected = np.stack([masks[1], masks[2], masks[0]])
    [maps] = processor.post_process_instance_segmentation(outputs, return_binary_maps=True)
    assert maps["segmentation"].dtype == torch.bool
    assert np.array_equal(maps["segmentation"].numpy(), expected)
    assert [(s["id"], s["label_id"]) for s in maps["segments_info"]] == [(1, 1), (2, 1), (3, 0)]

    [annotation] = processor.post_process_instance_segmentation(outputs, return_coco_annotation=True)
    assert annotation["segments_info"] == maps["segments_info"]
    for rle, mask in zip(annotation["segmentation"], expected, strict=True):
        assert rle["size"] == [2, 12] and isinstance(rle["counts"], str)
        assert np.array_equal(coco.decode(rle).astype(bool), mask)
    with pytest.raises(ValueError, match="exclude each other"):
        processor.post_process_instance_segmentation(outputs, return_coco_annotation=True, return_binary_maps=True)


def test_without_any_segment_answers_are_empty():
    outputs = binary_outputs([4, 4], np.ones((2, 3, 5), bool))  # all queries are no-object
    processor = MaskFormerUniversalImageProcessor()
    for answer in (
        processor.post_process_panoptic_segmentation(outputs, threshold=0.0)[0],
        processor.post_process_panoptic_segmentation(outputs, threshold=0.0, method="detr")[0],
        processor.post_process_instance_segmentation(outputs)[0],
    ):
        assert answer["segments_info"] == []
        assert torch.equal(answer["segmentation"], torch.zeros(3, 5, dtype=torch.int32))
    assert processor.post_process_instance_segmentation(outputs, return_coco_annotation=True)[0]["segmentation"] == []
    maps = processor.post_process_instance_segmentation(outputs, return_binary_maps=True)[0]["segmentation"]
    assert maps.shape == (0, 3, 5) and maps.dtype == torch.bool


def test_bad_arguments_are_named():
    classes, masks = query_logits(5, 10, 4, (8, 12))
    processor = MaskFormerUniversalImageProcessor()
    outputs = outputs_of(classes, masks)
    with pytest.raises(ValueError, match="2 target_sizes for 1 images"):
        processor.post_process_semantic_segmentation(outputs, [(4, 4), (4, 4)])
    with pytest.raises(ValueError, match=r"target_sizes\[0\].*\(0, 4\)"):
        processor.post_process_semantic_segmentation(outputs, [(0, 4)])
    with pytest.raises(ValueError, match="'detr2'.*'maskformer'"):
        processor.post_process_panoptic_segmentation(outputs, method="detr2")
    with pytest.raises(ValueError, match="pixel_mask has no ones for image 0"):
        processor.post_process_semantic_segmentation(outputs_of(classes, masks, torch.zeros(1, 32, 48)))
    masks[3, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="image 0 of the batch are NaN"):
        processor.post_process_panoptic_segmentation(outputs)
