"""Backbones give the same maps with gradients, where nothing is done in place, and without."""

from __future__ import annotations

import pytest
import torch

from maskformer import MaskFormerUniversalConfig
from maskformer.modeling.backbone import FrozenBatchNorm, load_backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "seresnet50", "resnetv2_50", "mobilenetv3_small_050"])
def test_maps_are_the_same_with_and_without_gradients(name):
    torch.manual_seed(0)
    backbone = load_backbone(MaskFormerUniversalConfig(backbone=name, freeze_batch_norm=True)).eval()
    random = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm):  # of a trained network none of these is one
            for buffer in (module.running_mean, module.running_var, module.weight, module.bias):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=random))
    pixels = torch.randn(2, 3, 64, 96, generator=random)
    before = pixels.clone()
    expected = backbone(pixels)
    with torch.no_grad():
        found = backbone(pixels)
    assert torch.equal(pixels, before)
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4 * float(there.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_norms_are_as_exact_as_their_output(dtype):
    norm = FrozenBatchNorm(8).eval()
    norm.owns_input = True
    norm.running_mean.fill_(30.0)
    features = (30 + torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))).to(dtype)
    expected = norm.double()(features.double())
    error = (norm.to(dtype)(features) - expected).abs().max()
    assert error <= 2 * torch.finfo(dtype).eps * expected.abs().max()
