"""The point-sampled mask losses against the losses of full resolution, and the points themselves."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from maskformer.modeling import mask_loss, matcher
from maskformer.modeling.loss import mask_classification_losses
from maskformer.modeling.mask_loss import focal_and_dice, focal_and_dice_at_points
from maskformer.modeling.point_sampling import PointSampling, read_predictions, training_pixels

SIZE = (24, 32)
WEIGHTS = (1.0, 20.0, 1.0)


def masks(count: int = 3, seed: int = 0):
    """Predictions (count, 6, 8) and targets (2, 24, 32), and which target each prediction has."""
    random = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(count, 6, 8, dtype=torch.float64, generator=random)).requires_grad_()
    targets = F.interpolate(torch.rand(2, 1, 4, 4, generator=random), size=SIZE)[:, 0] > 0.5
    return logits, targets, torch.arange(count) % 2


@pytest.fixture
def every_pixel(monkeypatch):
    """Instead of random points, all pixels of the canvas, once each."""

    def pixels(count, num_points, size, device):
        return torch.arange(size[0] * size[1], device=device).expand(count, -1)

    monkeypatch.setattr("maskformer.modeling.point_sampling.random_pixels", pixels)
    monkeypatch.setattr(matcher, "random_pixels", pixels)
    return PointSampling(SIZE[0] * SIZE[1], 1.0, 0.0)


def test_predictions_are_read_as_the_full_loss_reads_them():
    logits, _, _ = masks()
    everywhere = F.interpolate(logits[None], size=SIZE, mode="bilinear")[0]  # (3, H, W)
    read = read_predictions(logits[None], torch.arange(24 * 32)[None], SIZE)[0]
    torch.testing.assert_close(read, everywhere.flatten(1))
    own = torch.randint(24 * 32, (3, 50))
    torch.testing.assert_close(read_predictions(logits[:, None], own, SIZE)[:, 0], everywhere.flatten(1).gather(1, own))


def test_on_all_pixels_the_losses_and_gradients_are_those_of_full_resolution(every_pixel):
    logits, targets, indices = masks()
    for actual, expected in zip(
        focal_and_dice_at_points(logits, targets, indices, every_pixel),
        focal_and_dice(logits, targets, indices),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)
        weight = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
        gradients = [
            torch.autograd.grad((weight * value).sum(), logits, retain_graph=True)[0] for value in (actual, expected)
        ]
        torch.testing.assert_close(*gradients)


def test_blocks_of_masks_make_no_difference(monkeypatch, every_pixel):
    logits, targets, indices = masks(count=5)
    expected = focal_and_dice_at_points(logits, targets, indices, every_pixel)
    monkeypatch.setattr(mask_loss, "PLACES_AT_ONCE", 2 * SIZE[0] * SIZE[1])
    actual = focal_and_dice_at_points(logits, targets, indices, every_pixel)
    torch.testing.assert_close(torch.stack(actual), torch.stack(expected))


def test_uniform_points_have_the_full_focal_loss_and_gradient_in_expectation():
    logits, targets, indices = masks()
    torch.manual_seed(0)
    uniform = PointSampling(40, 3.0, 0.0)
    samples = torch.stack([focal_and_dice_at_points(logits, targets, indices, uniform)[0] for _ in range(3000)])
    expected = focal_and_dice(logits, targets, indices)[0]
    error = samples.detach().std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - expected).abs() < 4 * error).all()
    actual, full = (torch.autograd.grad(value.sum(), logits)[0] for value in (samples.mean(0), expected))
    assert (actual - full).norm() < 0.05 * full.norm()


def test_dice_of_many_points_is_near_that_of_full_resolution():
    logits, targets, indices = masks()
    torch.manual_seed(0)
    dice = focal_and_dice_at_points(logits, targets, indices, PointSampling(20_000, 1.0, 0.0))[1]
    torch.testing.assert_close(dice, focal_and_dice(logits, targets, indices)[1], rtol=0.02, atol=0.02)


def test_the_asked_share_of_points_is_the_most_uncertain_of_those_drawn(monkeypatch):
    logits, _, _ = masks()
    drawn = []

    def spy(count, num_points, size, device):
        drawn.append(torch.randint(size[0] * size[1], (count, num_points)))
        return drawn[-1]

    monkeypatch.setattr("maskformer.modeling.point_sampling.random_pixels", spy)
    pixels = training_pixels(logits, SIZE, PointSampling(20, 4.0, 0.75))
    candidates, others = drawn
    assert candidates.shape == (3, 80) and others.shape == (3, 5) and pixels.shape == (3, 20)
    assert torch.equal(pixels[:, 15:], others)
    doubt = F.interpolate(logits[None], size=SIZE, mode="bilinear")[0].abs().flatten(1)  # (3, H * W)
    chosen, all_candidates = doubt.gather(1, pixels[:, :15]), doubt.gather(1, candidates)
    torch.testing.assert_close(chosen.sort(1)[0], all_candidates.sort(1)[0][:, :15])


def test_gradients_reach_the_neighbours_of_the_points_only(monkeypatch):
    """Pixel (0, 0) is read from value (0, 0) alone; pixel (13, 18) from four."""
    logits, targets, indices = masks()
    chosen = torch.tensor([[0, 13 * 32 + 18]]).expand(3, -1)
    monkeypatch.setattr(mask_loss, "training_pixels", lambda *_: chosen)
    sum(focal_and_dice_at_points(logits, targets, indices, PointSampling(2, 1.0, 0.0))).sum().backward()
    reached = torch.zeros(6, 8, dtype=torch.bool)
    reached[0, 0] = reached[2:4, 4:6] = True  # rows 13.5 / 4 - 0.5 = 2.875, columns 18.5 / 4 - 0.5 = 4.125
    assert torch.equal(logits.grad != 0, reached.expand(3, -1, -1))


def criterion_inputs(sizes: list[int], dtype=torch.float64):
    """Predictions of 2 layers and 5 queries, and targets on a canvas of 24 x 32."""
    random = torch.Generator().manual_seed(3)
    class_logits = torch.randn(2, len(sizes), 5, 4, dtype=dtype, generator=random)
    mask_logits = 3 * torch.randn(2, len(sizes), 5, 24, 32, dtype=dtype, generator=random)
    truth = [torch.rand(size, *SIZE, generator=random) > 0.5 for size in sizes]
    classes = [torch.randint(3, (size,), generator=random) for size in sizes]
    return class_logits, mask_logits.requires_grad_(), truth, classes


def test_on_all_pixels_the_criterion_is_that_of_full_resolution(every_pixel):
    """Predictions have the size of the canvas, so that both ways of matching see the same pixels."""
    inputs = criterion_inputs([3, 0, 7])
    full = mask_classification_losses(*inputs, WEIGHTS, 0.1)
    points = mask_classification_losses(*inputs, WEIGHTS, 0.1, points=every_pixel)
    torch.testing.assert_close(points, full)


def test_the_seed_alone_decides():
    inputs, points = criterion_inputs([3, 2]), PointSampling(30, 3.0, 0.75)

    def losses(seed):
        torch.manual_seed(seed)
        return mask_classification_losses(*inputs, WEIGHTS, 0.1, points=points)

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_half_precision_predictions_are_read_and_scored_in_float32():
    class_logits, mask_logits, truth, classes = criterion_inputs([3], torch.float32)
    inputs = class_logits.half(), (1e3 * mask_logits).half(), truth, classes
    with torch.autocast("cpu", torch.bfloat16):
        losses = mask_classification_losses(*inputs, WEIGHTS, 0.1, points=PointSampling(30, 3.0, 0.75))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


@pytest.mark.parametrize("targets", [[0], [0, 3], [12]])
def test_no_targets_and_more_targets_than_queries_train(tiny_model, targets):
    model = tiny_model(train_num_points=50).train()
    random = torch.Generator().manual_seed(0)
    loss = model(
        torch.randn(len(targets), 3, 64, 96, generator=random),
        mask_labels=[torch.rand(count, 64, 96, generator=random) > 0.5 for count in targets],
        class_labels=[torch.randint(4, (count,), generator=random) for count in targets],
    ).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "fields", [{"train_num_points": 0}, {"oversample_ratio": 0.5}, {"importance_sample_ratio": 1.5}]
)
def test_numbers_of_points_that_cannot_be_drawn_are_refused(tiny_config, fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        tiny_config(**fields)
