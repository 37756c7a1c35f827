"""The losses and their gradients beside the official formulas, written plainly in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional as F

from maskformer.modeling.loss import loss_normalizers, mask_classification_losses
from maskformer.modeling.matcher import match
from maskformer.modeling.per_pixel_loss import STRIDE, cross_entropy_sum, labels_on_grid
from maskformer.modeling.point_sampling import PointSampling
from property_settings import holds_for, seeds

WEIGHTS = (1.0, 20.0, 1.0)
NAMES = ("loss_ce", "loss_mask", "loss_dice")


def draw_problem(seed, layers, queries, targets, labels, size, stride, magnitude, masks):
    """Predictions (L, B, N, ...) with gradients, and the targets of as many images as `targets` has numbers."""
    draw = torch.Generator().manual_seed(seed)
    canvas = size[0] * stride, size[1] * stride
    classes = torch.randn(layers, len(targets), queries, labels + 1, generator=draw) * magnitude
    logits = torch.randn(layers, len(targets), queries, *size, generator=draw) * magnitude
    class_labels = [torch.randint(labels, (count,), generator=draw) for count in targets]
    share = {"random": 0.5, "none": 0.0, "all": 1.0}[masks]
    mask_labels = [torch.rand(count, *canvas, generator=draw) < share for count in targets]
    return classes.requires_grad_(), logits.requires_grad_(), class_labels, mask_labels


def plain_losses(classes, logits, class_labels, mask_labels, no_object_weight, pairs) -> dict:
    """The losses of one layer, with `pairs` of queries and targets an image: (B, N, K+1) and (B, N, h, w)."""
    labels = classes.shape[-1] - 1
    wanted = torch.full(classes.shape[:2], labels, dtype=torch.int64)  # (B, N)
    focal, dice = logits.new_zeros(()), logits.new_zeros(())
    for image, (chosen, targets) in enumerate(pairs):
        wanted[image, chosen] = class_labels[image][targets]
        for query, target in zip(chosen.tolist(), targets.tolist(), strict=True):
            mask = mask_labels[image][target].double()  # (H, W)
            x = logits[image, query][None, None]  # (1, 1, h, w)
            x = F.interpolate(x, size=mask.shape, mode="bilinear", align_corners=False)[0, 0]  # (H, W)
            p = x.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(x, mask, reduction="none")
            right = p * mask + (1 - p) * (1 - mask)
            alpha = 0.25 * mask + 0.75 * (1 - mask)
            focal = focal + (alpha * (1 - right) ** 2 * entropy).mean()
            dice = dice + 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
    weight = classes.new_ones(labels + 1)
    weight[-1] = no_object_weight
    num_masks = max(1, sum(map(len, class_labels)))
    entropy = F.cross_entropy(classes.transpose(1, 2), wanted, weight)
    return {"loss_ce": entropy, "loss_mask": focal / num_masks, "loss_dice": dice / num_masks}


def gradients(losses, inputs) -> list[torch.Tensor]:
    """Of the weighted sum of `losses`, by (name, layer)."""
    total = sum(dict(zip(NAMES, WEIGHTS, strict=True))[name] * value for (name, _), value in losses.items())
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, found, strict=True)]


def check_close(found: torch.Tensor, expected: torch.Tensor, magnitude: float) -> None:
    """Finite, and equal to the rounding of float32: of sums, and of enlarged logits of this magnitude, as a sigmoid
    changes by as much as its logit was rounded."""
    assert found.isfinite().all()
    found, expected = found.detach().double(), expected.detach()
    tolerance = (2e-5 + 4e-7 * magnitude) * max(float(expected.abs().max()), 1e-2)
    assert float((found - expected).abs().max()) <= tolerance


problems = {
    "seed": seeds,
    "layers": st.integers(1, 2),
    "queries": st.integers(1, 5),
    "targets": st.lists(st.integers(0, 7), min_size=1, max_size=3),
    "labels": st.integers(1, 4),
    "size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "stride": st.integers(1, 4),
    "magnitude": st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e3, 1e4]),
    "masks": st.sampled_from(["random", "none", "all"]),
}


@holds_for(**problems, no_object_weight=st.sampled_from([0.1, 1.0, 0.5]))
def test_losses_and_gradients_are_those_of_the_formulas(no_object_weight, **fields):
    """None and too many targets, masks of nothing or all, logits that a sigmoid cannot tell from infinity."""
    classes, logits, class_labels, mask_labels = draw_problem(**fields)
    losses = mask_classification_losses(classes, logits, mask_labels, class_labels, WEIGHTS, no_object_weight)
    assert set(losses) == {(name, layer) for name in NAMES for layer in range(fields["layers"])}
    pairs = match(classes, logits, class_labels, mask_labels, WEIGHTS)
    wide = [x.detach().double().requires_grad_() for x in (classes, logits)]
    expected = {}
    for layer in range(fields["layers"]):
        values = plain_losses(*(x[layer] for x in wide), class_labels, mask_labels, no_object_weight, pairs[layer])
        expected |= {(name, layer): value for name, value in values.items()}
    for key, value in losses.items():
        check_close(value, expected[key], fields["magnitude"])
    for found, wanted in zip(gradients(losses, [classes, logits]), gradients(expected, wide), strict=True):
        check_close(found, wanted, fields["magnitude"])


@holds_for(many=500, **problems, dtype=st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_computed_in_float32(dtype, **fields):
    """Values of half precision give the losses that they give as float32, and finite gradients of their own type."""
    classes, logits, *targets = draw_problem(**fields)
    narrow = [x.detach().to(dtype).requires_grad_() for x in (classes, logits)]
    wide = [x.detach().float() for x in narrow]
    found, expected = (mask_classification_losses(*x, *targets[::-1], WEIGHTS, 0.1) for x in (narrow, wide))
    for key, value in found.items():
        check_close(value, expected[key].double(), 0)
    for x, gradient in zip(narrow, gradients(found, narrow), strict=True):
        assert gradient.dtype == x.dtype and gradient.isfinite().all()


@holds_for(many=500, **problems, num_points=st.integers(1, 20))
def test_losses_at_points_are_finite(num_points, **fields):
    """And where all pixels are alike, the mean over points is that over pixels."""
    classes, logits, class_labels, mask_labels = draw_problem(**fields)
    targets = mask_labels, class_labels
    points = PointSampling(num_points, 3.0, 0.75)
    losses = mask_classification_losses(classes, logits, *targets, WEIGHTS, 0.1, points=points)
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(losses, [classes, logits]))
    if fields["masks"] != "random" and fields["size"] == (1, 1):
        everywhere = mask_classification_losses(classes, logits, *targets, WEIGHTS, 0.1)
        # The pairs may differ, as dice losses depend on the number of places.
        if fields["queries"] == 1 and max(fields["targets"]) <= 1:
            for layer in range(fields["layers"]):
                found, wanted = losses["loss_mask", layer], everywhere["loss_mask", layer]
                check_close(found, wanted.double(), fields["magnitude"])


@holds_for(many=500, **problems, wrong=st.sampled_from(["label", "size", "count", "images"]))
def test_targets_that_do_not_fit_are_one_error(wrong, **fields):
    fields["targets"] = [max(1, count) for count in fields["targets"]]
    classes, logits, class_labels, mask_labels = draw_problem(**fields)
    image = fields["seed"] % len(class_labels)
    if wrong == "label":
        class_labels[image][-1] = -1 if fields["seed"] % 2 else fields["labels"]
    elif wrong == "size":
        mask_labels[image] = F.pad(mask_labels[image], (0, 1))
    elif wrong == "count":
        mask_labels[image] = mask_labels[image][1:]
    else:
        mask_labels = mask_labels[1:]
    canvas = tuple(size * fields["stride"] for size in fields["size"])
    with pytest.raises(ValueError, match="there are" if wrong == "images" else f"image {image}: "):
        mask_classification_losses(classes, logits, mask_labels, class_labels, WEIGHTS, 0.1, canvas)


@holds_for(many=500, **problems)
def test_without_a_no_object_weight_and_targets_there_is_no_loss(**fields):
    """Nothing weighs anything then; 0 / 0 would be NaN, and end a training."""
    fields["targets"] = [0] * len(fields["targets"])
    classes, logits, class_labels, mask_labels = draw_problem(**fields)
    losses = mask_classification_losses(classes, logits, mask_labels, class_labels, WEIGHTS, 0.0)
    assert all(value == 0 for value in losses.values())
    assert all((gradient == 0).all() for gradient in gradients(losses, [classes, logits]))
    normalizers = loss_normalizers(class_labels, fields["queries"], 0.0, torch.device("cpu"))
    assert normalizers["num_masks"] == 1


@holds_for(
    seed=seeds,
    images=st.integers(1, 3),
    labels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    void=st.sampled_from([0.0, 0.3, 1.0]),
    magnitude=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
)
def test_the_loss_of_pixels_is_that_of_the_formula(seed, images, labels, size, void, magnitude):
    """All void included: the sum is then 0."""
    draw = torch.Generator().manual_seed(seed)
    logits = (torch.randn(images, labels, *size, generator=draw) * magnitude).requires_grad_()
    canvas = STRIDE * size[0], STRIDE * size[1]
    targets = torch.randint(labels, (images, *canvas), generator=draw)
    targets[torch.rand(images, *canvas, generator=draw) < void] = 255
    found = cross_entropy_sum(logits, labels_on_grid(targets, logits, 255), 255)
    wide = logits.detach().double().requires_grad_()
    enlarged = F.interpolate(wide, size=canvas, mode="bilinear", align_corners=False)  # (B, K, 4h, 4w)
    expected = F.cross_entropy(enlarged, targets, ignore_index=255, reduction="sum")
    check_close(found, expected, magnitude)
    (by_logits,), (wanted,) = (torch.autograd.grad(*pair) for pair in ((found, logits), (expected, wide)))
    check_close(by_logits, wanted, magnitude)
