"""Group normalisation in place, and the sum of the pyramid's maps, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from maskformer.modeling import blocks
from maskformer.modeling.group_norm import GroupNorm
from maskformer.modeling.pixel_decoder import plus_enlarged


@pytest.fixture(params=[1, 2**20])
def some_rows_at_a_time(request, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", request.param)


def channels_last(*shape: int, mean: float = 0.0) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(shape) + mean).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_it_is_the_definition(some_rows_at_a_time, mean):
    norm, features = GroupNorm(4, 12), channels_last(2, 12, 7, 9, mean=mean)
    norm.weight.uniform_(0.5, 2)
    norm.bias.normal_()
    exact = F.group_norm(features.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    found = norm(features)
    assert found.data_ptr() == features.data_ptr()
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-5)


def test_what_is_differentiated_or_lies_otherwise_is_left_alone():
    norm, features = GroupNorm(4, 12), channels_last(2, 12, 7, 9)
    before = features.clone()
    norm(features).sum().backward()
    with torch.no_grad():
        norm(features.contiguous())
        norm.double()(features.double())
    assert torch.equal(features, before) and norm.weight.grad is not None


@pytest.mark.parametrize("fine, coarse", [((8, 12), (4, 6)), ((7, 5), (4, 3)), ((6, 6), (6, 6))])
def test_sums_with_enlarged_maps(some_rows_at_a_time, fine, coarse):
    fine, coarse = channels_last(2, 3, *fine), channels_last(2, 3, *coarse)
    expected = fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    assert torch.equal(plus_enlarged(fine, coarse), expected)
    with torch.no_grad():
        assert torch.equal(plus_enlarged(fine, coarse), expected)
