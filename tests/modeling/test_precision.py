"""Half precision: what is matched and what is lost is computed in float32, at magnitudes that overflow float16."""

from __future__ import annotations

import pytest
import torch

from maskformer.modeling.loss import mask_classification_losses
from maskformer.modeling.matcher import match
from maskformer.modeling.point_sampling import PointSampling

WEIGHTS = (1.0, 20.0, 1.0)
HALVES = [torch.float16, torch.bfloat16]


def batch(scale: float) -> tuple:
    """Predictions of two layers and two images, and targets of 400 x 400 pixels: areas beyond float16's 65504."""
    random = torch.Generator().manual_seed(0)
    classes = scale * torch.randn(2, 2, 12, 5, generator=random)
    masks = scale * torch.randn(2, 2, 12, 100, 100, generator=random)
    wanted = [torch.rand(count, 400, 400, generator=random) < 0.9 for count in (3, 0)]
    assert wanted[0].sum((1, 2)).min() > 2 * 65504
    return classes, masks, wanted, [torch.randint(4, (count,), generator=random) for count in (3, 0)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1.0, 300.0, 1e4])
@pytest.mark.parametrize("points", [None, PointSampling(2000, 3.0, 0.75)])
def test_halves_are_matched_and_scored_as_the_same_numbers_in_float32(dtype, scale, points):
    classes, masks, wanted, labels = batch(scale)
    classes, masks = classes.to(dtype), masks.to(dtype)
    found, expected = [], []
    for results, change in ((found, lambda value: value), (expected, torch.Tensor.float)):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            results.append(match(change(classes), change(masks), labels, wanted, WEIGHTS, points))
            torch.manual_seed(0)
            logits = change(masks).detach().requires_grad_()
            losses = mask_classification_losses(change(classes), logits, wanted, labels, WEIGHTS, 0.1, points=points)
        sum(losses.values()).backward()
        results += [losses, logits.grad]
    for here, there in zip(found[0], expected[0], strict=True):
        for image, (pair, same) in enumerate(zip(here, there, strict=True)):
            assert all(torch.equal(a, b) for a, b in zip(pair, same, strict=True)), image
    for name, value in expected[1].items():
        assert found[1][name].dtype == torch.float32 and value.isfinite()
        torch.testing.assert_close(found[1][name], value, msg=lambda text, n=name: f"{n}: {text}")
    assert found[2].dtype == dtype and found[2].isfinite().all()
    torch.testing.assert_close(found[2].float(), expected[2], rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("points", [None, 200])
def test_a_step_under_autocast_is_that_of_float32_but_for_the_network(tiny_model, points):
    model = tiny_model(train_num_points=points).train()
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 64, 64, generator=random)
    targets = {
        "mask_labels": [torch.rand(count, 64, 64, generator=random) > 0.5 for count in (3, 0)],
        "class_labels": [torch.randint(4, (count,), generator=random) for count in (3, 0)],
    }
    torch.manual_seed(0)
    exact = model(pixels, **targets).loss
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(pixels, **targets)
    assert outputs.loss.dtype == torch.float32 and abs(outputs.loss - exact) <= 0.05 * exact
    outputs.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
