"""Winograd convolutions against PyTorch's own, in float64."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from maskformer.modeling import winograd
from maskformer.modeling.winograd import Conv3x3, convolution


def relative_error(found: torch.Tensor, features: torch.Tensor, weight: torch.Tensor, bias=None) -> float:
    """Root mean square, beside that of the exact result."""
    exact = F.conv2d(features.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    assert found.shape == exact.shape
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (4, 4), (7, 12), (33, 18)])
@pytest.mark.parametrize("block_elements", [1, 2**20])
def test_every_size_and_block(monkeypatch, height, width, block_elements):
    monkeypatch.setattr(winograd, "BLOCK_ELEMENTS", block_elements)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, height, width, generator=generator)
    weight, bias = torch.randn(5, 6, 3, 3, generator=generator), torch.randn(5, generator=generator)
    assert relative_error(convolution(features, weight, bias), features, weight, bias) < 2e-6
    assert relative_error(convolution(features, weight), features, weight) < 2e-6


@pytest.mark.parametrize("many", [0, 10**9])
def test_rounding_is_that_of_float32(monkeypatch, many):
    monkeypatch.setattr(winograd, "MANY_TILES", many)
    torch.manual_seed(0)
    features, weight = torch.randn(1, 128, 24, 24).relu(), torch.randn(128, 128, 3, 3)
    direct = F.conv2d(features.contiguous(memory_format=torch.channels_last), weight, padding=1)
    found = relative_error(convolution(features, weight), features, weight)
    assert found < 2e-6 and found < 10 * relative_error(direct, features, weight)


@torch.no_grad()
def test_a_layer_takes_it_only_where_it_is_right():
    torch.manual_seed(0)
    features, calls = torch.randn(1, 96, 24, 20), []

    class Watched(Conv3x3):
        def forward(self, inputs):
            calls.append(winograd.pays(self, inputs))
            return super().forward(inputs)

    layer = Watched(96, 100, 3, padding=1)
    answer = layer(features)
    assert relative_error(answer, features, layer.weight, layer.bias) < 2e-6
    for changes in ({"stride": 2}, {"dilation": 2, "padding": 2}, {"padding": 0}, {"padding_mode": "circular"}):
        other = Watched(96, 96, 3, **({"padding": 1} | changes))
        expected = torch.nn.Conv2d.forward(other, features)
        assert torch.equal(other(features), expected)
    layer(features[..., :4, :4])  # too small
    layer.double()(features.double())
    layer.float()
    with torch.enable_grad():
        layer(features).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features).dtype == torch.bfloat16
    assert calls == [True] + [False] * 8 and layer.weight.grad is not None


@torch.no_grad()
@pytest.mark.parametrize("block_elements", [1, 2**20])
def test_in_the_place_of_its_input(monkeypatch, block_elements):
    monkeypatch.setattr(winograd, "BLOCK_ELEMENTS", block_elements)
    torch.manual_seed(0)
    layer = Conv3x3(96, 96, 3, padding=1)
    layer.owns_input = True
    for size, fits in (((24, 20), True), ((22, 24), False)):
        features = torch.randn(2, 96, *size).contiguous(memory_format=torch.channels_last)
        expected = features.clone()
        found = layer(features)
        assert relative_error(found, expected, layer.weight, layer.bias) < 2e-6
        assert (found.data_ptr() == features.data_ptr()) == fits


@pytest.mark.slow
def test_whatever_the_default_type_and_device_are_at_import():
    code = """
import torch
torch.set_default_dtype(torch.float64)
with torch.device("meta"):
    from maskformer.modeling.winograd import convolution
features, weight = (torch.randn(shape, dtype=torch.float32) for shape in ((1, 4, 9, 9), (3, 4, 3, 3)))
expected = torch.nn.functional.conv2d(features, weight, padding=1)
torch.testing.assert_close(convolution(features, weight), expected, rtol=1e-3, atol=1e-4)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
