"""Instances beside brute force, and all answers where logits are infinite or NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from pycocotools import mask as coco

from drawn_outputs import CLOSE, Problem, check_segments, problems, thresholds
from maskformer import MaskFormerUniversalImageProcessorPil
from property_settings import holds_for

PROCESSOR = MaskFormerUniversalImageProcessorPil()


def plain_instances(classes, masks, threshold, mask_threshold, stuff) -> tuple[list, bool]:
    """Label, score and mask of each, best first, and whether rounding decides anywhere."""
    found, labels = classes[:, :-1].max(-1)
    instances, doubtful = [], bool(((masks - mask_threshold).abs() < CLOSE).any())
    for query in range(len(found)):
        mask = masks[query] >= mask_threshold
        score = float(found[query] * masks[query][mask].mean()) if mask.any() else 0.0
        doubtful |= abs(score - threshold) < CLOSE and threshold > 0
        if int(labels[query]) not in stuff and mask.any() and score > threshold:
            instances.append((int(labels[query]), score, mask.numpy()))
    instances.sort(key=lambda instance: -instance[1])
    scores = [score for _, score, _ in instances]
    return instances, doubtful or min(-np.diff(scores), default=1) < CLOSE


@holds_for(**problems, **thresholds)
def test_instances_are_those_of_brute_force(threshold, mask_threshold, overlap, **fields):
    """As masks that overlap, as COCO's RLEs of the same, and as a map where better ones hide worse ones."""
    problem = Problem(**fields)
    processor = MaskFormerUniversalImageProcessorPil(label_ids_to_fuse=sorted(problem.fuse))
    limits = threshold, mask_threshold, overlap, problem.targets
    maps, binary, rles = (
        processor.post_process_instance_segmentation(problem.outputs, *limits, **{form: True} if form else {})
        for form in (None, "return_binary_maps", "return_coco_annotation")
    )
    for image, (one, masks, coded) in enumerate(zip(maps, binary, rles, strict=True)):
        assert masks["segments_info"] == coded["segments_info"]
        found = [coco.decode(rle).astype(bool) for rle in coded["segmentation"]]
        assert len(found) == len(masks["segmentation"])
        assert all(np.array_equal(*pair) for pair in zip(found, masks["segmentation"].numpy(), strict=True))
        expected, doubtful = plain_instances(*problem.probabilities(image), threshold, mask_threshold, problem.fuse)
        if doubtful:
            continue
        assert [info["label_id"] for info in masks["segments_info"]] == [label for label, _, _ in expected]
        assert np.allclose([info["score"] for info in masks["segments_info"]], [s for _, s, _ in expected], atol=CLOSE)
        assert all(np.array_equal(mask, wanted) for mask, (_, _, wanted) in zip(found, expected, strict=True))
        canvas, visible = np.zeros(problem.sizes[image], int), []
        for label, score, mask in expected:
            free = mask & (canvas == 0)
            if free.any() and free.sum() / mask.sum() >= overlap:
                visible.append([label, False, score])
                canvas[free] = len(visible)
        check_segments(one, canvas, visible)


def every_answer(problem: Problem) -> list:
    """All kinds of answers to a problem."""
    return [
        PROCESSOR.post_process_semantic_segmentation(problem.outputs, problem.targets, False),
        PROCESSOR.post_process_semantic_segmentation(problem.outputs, problem.targets, True),
        PROCESSOR.post_process_panoptic_segmentation(problem.outputs, 0.1, target_sizes=problem.targets),
        PROCESSOR.post_process_panoptic_segmentation(problem.outputs, 0.1, target_sizes=problem.targets, method="detr"),
        PROCESSOR.post_process_instance_segmentation(problem.outputs, 0.1, target_sizes=problem.targets),
    ]


def is_same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == pytest.approx(other, abs=CLOSE)


@holds_for(
    **problems, value=st.sampled_from([torch.inf, -torch.inf, torch.nan]), share=st.sampled_from([0.0, 0.3, 1.0])
)
def test_infinite_logits_are_very_large_ones_and_nan_is_an_error(value, share, **fields):
    """One infinite logit, some, or all of them; of masks or of labels. A sigmoid and a softmax have limits there."""
    problem, large = Problem(**fields), Problem(**fields)
    outputs = large.outputs  # wide enough for what is large
    large.classes, large.masks = outputs.class_queries_logits, outputs.masks_queries_logits = (
        large.classes.float(),
        large.masks.float(),
    )
    draw = torch.Generator().manual_seed(fields["seed"])
    of_masks = bool(torch.rand((), generator=draw) < 0.5)
    for one, number in ((problem, value), (large, max(min(value, 1e4), -1e4))):
        logits = one.masks if of_masks else one.classes
        draw.manual_seed(fields["seed"])
        chosen = torch.rand(logits.shape, generator=draw) <= share
        chosen.view(-1)[fields["seed"] % chosen.numel()] = True
        logits[chosen] = number
    if value != value:
        for answer in (
            PROCESSOR.post_process_semantic_segmentation,
            PROCESSOR.post_process_panoptic_segmentation,
            PROCESSOR.post_process_instance_segmentation,
        ):
            with pytest.raises(ValueError, match=r"the logits of image \d of the batch are NaN"):
                answer(problem.outputs)
        return
    assert is_same(every_answer(problem), every_answer(large))
