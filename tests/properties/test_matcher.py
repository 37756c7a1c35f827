"""Matching beside scipy on costs written plainly in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from maskformer.modeling.matcher import PredictionIsNaN, match
from property_settings import holds_for, seeds

MASKS = ("random", "none", "all", "blocks")
NOT_FINITE = (np.nan, np.inf, -np.inf)


def problem(seed, layers, queries, targets, labels, size, canvas, magnitude=5.0, masks="random"):
    """Predictions of L layers for as many images as `targets` has numbers, and the targets of each image."""
    draw = np.random.default_rng(seed)
    classes = draw.normal(size=(layers, len(targets), queries, labels + 1)) * min(magnitude, 50)
    logits = draw.normal(size=(layers, len(targets), queries, *size)) * magnitude
    class_labels = [torch.from_numpy(draw.integers(0, labels, count)) for count in targets]
    mask_labels = [torch.from_numpy(target_masks(draw, count, canvas, masks)) for count in targets]
    return torch.from_numpy(classes).float(), torch.from_numpy(logits).float(), class_labels, mask_labels


def target_masks(draw, count: int, canvas: tuple[int, int], kind: str) -> np.ndarray:
    """Bool masks (count, H, W)."""
    if kind in ("none", "all"):
        return np.full((count, *canvas), kind == "all")
    if kind == "random":
        return draw.random((count, *canvas)) < 0.5
    masks = np.zeros((count, *canvas), bool)
    for mask in masks:
        top, left = draw.integers(0, canvas[0]), draw.integers(0, canvas[1])
        mask[top : top + draw.integers(1, canvas[0] + 1), left : left + draw.integers(1, canvas[1] + 1)] = True
    return masks


def plain_cost(classes, logits, labels, masks, weights) -> np.ndarray:
    """The cost (N, n) of one layer of one image by the formulas of the official code, in float64."""
    x = logits.double().flatten(1)[:, None]  # (N, 1, h * w)
    t = F.interpolate(masks[:, None].double(), size=logits.shape[1:], mode="nearest").flatten(1)[None]  # (1, n, h * w)
    p = x.sigmoid()
    positive, negative = -0.25 * (1 - p) ** 2 * F.logsigmoid(x), -0.75 * p**2 * F.logsigmoid(-x)
    focal = (positive * t + negative * (1 - t)).mean(2)  # (N, n)
    dice = 1 - (2 * (p * t).sum(2) + 1) / (p.sum(2) + t.sum(2) + 1)  # (N, n)
    label = -classes.double().softmax(-1)[:, labels]  # (N, n)
    return (weights[0] * label + weights[1] * focal + weights[2] * dice).numpy()


def check_cheapest(found, cost: np.ndarray) -> None:
    """One-to-one, as many pairs as can be, and as cheap as scipy's, to the rounding of float32."""
    queries, targets = (indices.numpy() for indices in found)
    pairs = min(cost.shape)
    assert queries.dtype == targets.dtype == np.int64
    assert len(set(queries.tolist())) == len(set(targets.tolist())) == len(queries) == len(targets) == pairs
    cheapest = cost[linear_sum_assignment(cost)].sum()
    # Rounding is of the summands: the likeliest pairs may cost less than nothing, and cancel.
    assert cost[queries, targets].sum() <= cheapest + 1e-4 * max(1.0, abs(cheapest))


sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
problems = {
    "seed": seeds,
    "layers": st.integers(1, 3),
    "queries": st.integers(1, 6),
    "targets": st.lists(st.integers(0, 9), min_size=1, max_size=3),
    "labels": st.integers(1, 5),
    "size": sizes,
    "canvas": sizes,
}
weights = st.sampled_from([(1.0, 20.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (2.0, 5.0, 5.0)])


@holds_for(
    **problems, masks=st.sampled_from(MASKS), weights=weights, magnitude=st.sampled_from([0.0, 0.1, 5.0, 100.0, 1e4])
)
def test_the_assignment_is_as_cheap_as_any(weights, **fields):
    """No targets, more of them than queries, masks of every size, masks of nothing or all; ties may fall either way."""
    classes, logits, class_labels, mask_labels = problem(**fields)
    found = match(classes, logits, class_labels, mask_labels, weights)
    assert len(found) == fields["layers"]
    for layer, images in enumerate(found):
        assert len(images) == len(class_labels)
        for image, pairs in enumerate(images):
            targets = class_labels[image], mask_labels[image]
            check_cheapest(pairs, plain_cost(classes[layer, image], logits[layer, image], *targets, weights))


@holds_for(many=500, **problems, dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
def test_other_precisions_are_matched_in_float32_or_wider(dtype, **fields):
    classes, logits, class_labels, mask_labels = problem(**fields)
    classes, logits = classes.to(dtype), logits.to(dtype)
    found = match(classes, logits, class_labels, mask_labels, (1.0, 20.0, 1.0))
    for layer, images in enumerate(found):
        for image, pairs in enumerate(images):
            targets = class_labels[image], mask_labels[image]
            cost = plain_cost(classes[layer, image], logits[layer, image], *targets, (1.0, 20.0, 1.0))
            check_cheapest(pairs, cost)


@holds_for(
    **problems,
    masks=st.sampled_from(MASKS),
    value=st.sampled_from(NOT_FINITE),
    of_masks=st.booleans(),
    everywhere=st.booleans(),
)
def test_what_is_no_number_is_told_or_matched(value, of_masks, everywhere, **fields):
    """NaN of an image with targets is `PredictionIsNaN`; of infinity it is that, or an assignment."""
    classes, logits, class_labels, mask_labels = problem(**fields)
    changed = logits if of_masks else classes
    if everywhere:
        changed[:] = value
    else:
        draw = np.random.default_rng(fields["seed"])
        changed.view(-1)[int(draw.integers(changed.numel()))] = value
    try:
        found = match(classes, logits, class_labels, mask_labels, (1.0, 20.0, 1.0))
    except PredictionIsNaN:
        assert any(fields["targets"])
        return
    spoilt = changed.isnan().flatten(2).any(2).any(0).tolist()  # (B,)
    assert not any(bad and count for bad, count in zip(spoilt, fields["targets"], strict=True))
    for images in found:
        for (queries, targets), count in zip(images, fields["targets"], strict=True):
            assert len(queries) == len(targets) == min(count, fields["queries"])


def test_an_infinite_cost_is_no_error_of_scipy():
    """A query whose mask is minus infinity all over misses a target that is everywhere by an infinite cost."""
    classes, logits = torch.zeros(1, 1, 1, 3), torch.full((1, 1, 1, 2, 2), -torch.inf)
    with pytest.raises(PredictionIsNaN, match="infinit"):
        match(classes, logits, [torch.tensor([0])], [torch.ones(1, 2, 2, dtype=torch.bool)], (1.0, 20.0, 1.0))
