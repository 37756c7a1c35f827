"""Semantic and panoptic answers beside brute force: everything is enlarged, then compared pixel by pixel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st

from drawn_outputs import CLOSE, Problem, check_segments, problems, thresholds
from maskformer import MaskFormerUniversalImageProcessorPil, PerPixelBaselineImageProcessorPil
from maskformer.image_processing.preprocessing import nearest_pixels
from property_settings import holds_for
from query_outputs import bilinear

PROCESSOR = MaskFormerUniversalImageProcessorPil()


def combined(classes, masks) -> torch.Tensor:
    return torch.einsum("nk,nhw->khw", classes[:, :-1], masks)


def check_highest(answer: torch.Tensor, scores: torch.Tensor, close: float = CLOSE) -> None:
    """Every label's score is the highest, or as high to rounding."""
    assert answer.dtype == torch.int64 and answer.shape == scores.shape[1:]
    assert (scores.gather(0, answer[None])[0] >= scores.max(0).values - close).all()


@holds_for(**problems, first=st.booleans())
def test_semantic_labels_have_the_highest_score(first, **fields):
    problem = Problem(**fields)
    answers = PROCESSOR.post_process_semantic_segmentation(problem.outputs, problem.targets, first)
    for image, answer in enumerate(answers):
        classes, masks = problem.probabilities(image)
        scores = combined(classes, masks)
        if not first:
            scores = combined(classes, problem.on_canvas(image).double().sigmoid())
            scores = bilinear(scores.float(), problem.sizes[image]).double()
        check_highest(answer, scores)


@holds_for(many=1000, **problems)
def test_labels_of_pixels_have_the_highest_logit(**fields):
    """The per-pixel baseline's logits always stretch over four times their size."""
    fields["canvas"] = None
    problem = Problem(**fields)
    processor = PerPixelBaselineImageProcessorPil()
    outputs = SimpleNamespace(logits=problem.masks, pixel_mask=None)
    answers = processor.post_process_semantic_segmentation(outputs, problem.targets)
    for image, answer in enumerate(answers):
        logits = bilinear(problem.on_canvas(image), problem.sizes[image])
        check_highest(answer, logits.double(), CLOSE * fields["magnitude"])


def plain_panoptic(classes, masks, threshold, mask_threshold, overlap, fuse) -> tuple[np.ndarray, list, bool]:
    """The map, its segments (label, whether fused, score), and whether rounding decides anywhere."""
    found, labels = classes.max(-1)
    kept = [i for i in range(len(found)) if labels[i] < classes.shape[1] - 1 and found[i] > threshold]
    doubtful = bool(((found - threshold).abs() < CLOSE).any())
    canvas = np.zeros(masks.shape[1:], int)
    if not kept:
        return canvas, [], doubtful
    weighted = (found[kept, None, None] * masks[kept]).numpy()
    winner, ranked = weighted.argmax(0), np.sort(weighted, axis=0)
    doubtful |= len(kept) > 1 and bool((ranked[-1] - ranked[-2] < CLOSE).any())
    doubtful |= bool(((masks[kept] - mask_threshold).abs() < CLOSE).any())
    segments, fused = [], {}
    for place, query in enumerate(kept):
        won, claimed = (winner == place).sum(), int((masks[query] >= mask_threshold).sum())
        if not won or not claimed or won / claimed < overlap:
            continue
        label, score = int(labels[query]), float(found[query])
        if label in fused:
            number = fused[label]
            segments[number - 1][2] = max(score, segments[number - 1][2])
        else:
            segments.append([label, label in fuse, score])
            number = len(segments)
            if label in fuse:
                fused[label] = number
        canvas[winner == place] = number
    return canvas, segments, doubtful


@holds_for(**problems, **thresholds)
def test_panoptic_segments_are_those_of_brute_force(threshold, mask_threshold, overlap, **fields):
    problem = Problem(**fields)
    limits = threshold, mask_threshold, overlap
    answers = PROCESSOR.post_process_panoptic_segmentation(problem.outputs, *limits, problem.fuse, problem.targets)
    for image, answer in enumerate(answers):
        canvas, segments, doubtful = plain_panoptic(*problem.probabilities(image), *limits, problem.fuse)
        assert tuple(answer["segmentation"].shape) == tuple(problem.sizes[image])
        if not doubtful:
            check_segments(answer, canvas, segments)


@holds_for(many=1000, **problems, threshold=st.sampled_from([0.0, 0.3, 0.85]))
def test_segments_by_detrs_rules_are_those_of_brute_force(threshold, **fields):
    problem = Problem(**fields)
    answers = PROCESSOR.post_process_panoptic_segmentation(
        problem.outputs, threshold, label_ids_to_fuse=problem.fuse, target_sizes=problem.targets, method="detr"
    )
    for image, answer in enumerate(answers):
        found, labels = problem.classes[image].double().softmax(-1).max(-1)
        masks, size = problem.on_canvas(image).numpy(), problem.sizes[image]
        rows, columns = (nearest_pixels(*pair) for pair in zip(masks.shape[1:], size, strict=True))
        kept = [i for i in range(len(found)) if labels[i] < problem.classes.shape[2] - 1 and found[i] > threshold]
        ranked = np.sort(masks[kept], axis=0)
        if ((found - threshold).abs() < CLOSE).any() or len(kept) > 1 and np.diff(ranked, axis=0).min() < 1e-4:
            continue
        first = True
        while kept:
            winner = np.array(kept)[masks[kept].argmax(0)][rows][:, columns]
            for query in reversed(kept) if first else ():
                same = [
                    other for other in kept if labels[other] == labels[query] and int(labels[query]) in problem.fuse
                ]
                winner[np.isin(winner, same)] = min(same, default=query)
            first = False
            large = [query for query in kept if (winner == query).sum() > 4]
            if large == kept:
                break
            kept = large
        canvas = sum(((winner == query) * i for i, query in enumerate(kept, start=1)), np.zeros(size, int))
        segments = [[int(labels[q]), int(labels[q]) in problem.fuse, float(found[q])] for q in kept]
        check_segments(answer, canvas, segments)
