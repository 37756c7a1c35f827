"""Parameters and multiply-adds are those that the official model has, counted by fvcore."""

from __future__ import annotations

import pytest
from torch import nn

from helpers import fixture
from maskformer import load_recipe
from maskformer.benchmarks import complexity
from maskformer.benchmarks.complexity import count_complexity

OFFICIAL = fixture("recipes")["configurations"]
QUICK = (
    "ade20k-150/maskformer_swin_tiny",
    "ade20k-150/per_pixel_baseline_plus_r50",
    "ade20k-150/per_pixel_baseline_r50",
    "coco-panoptic/maskformer_r50",
)
CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.parity) for name in OFFICIAL]


@pytest.mark.parametrize("name", CASES)
def test_counts_are_the_official_ones(name):
    cost, official = count_complexity(load_recipe(name)), OFFICIAL[name]
    assert cost.parameters == official["params"]
    assert list(cost.image_size) == official["macs_input_hw"]
    # fvcore reads the cost of an einsum from numpy, which prints it with four digits.
    assert cost.multiply_adds == pytest.approx(official["macs"], rel=1e-4)
    assert cost.multiply_adds == sum(cost.by_operation.values())


def test_each_kind_of_operation_is_counted(monkeypatch):
    """A small network, counted by hand: a 3x3 convolution of 8 x 8 pixels, two norms and a linear layer."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4)
            self.batch_norm, self.linear = nn.BatchNorm2d(4), nn.Linear(8, 5)
            self.config = None

        def num_parameters(self):
            return sum(parameter.numel() for parameter in self.parameters())

        def forward(self, pixel_values):
            maps = self.batch_norm(self.norm(self.convolution(pixel_values)))  # (1, 4, 8, 8)
            return type("Outputs", (dict,), {"logits": maps})({"logits": self.linear(maps)})

    recipe = load_recipe("cityscapes-19/per_pixel_baseline_r101").override({"crop_size": [8, 8]})
    monkeypatch.setattr(complexity, "empty_model", lambda config: Small().to("meta").eval())
    cost = count_complexity(recipe)
    assert cost.parameters == 3 * 4 * 9 + 2 * 4 + 2 * 4 + 8 * 5 + 5
    assert cost.by_operation == {
        "convolution": 64 * 4 * 3 * 9,
        "matrix product": 4 * 8 * 8 * 5,
        "normalization": (5 + 2) * 4 * 64,
        "resizing": 2 * 4 * 4 * 64,
        "auxiliary heads": 0,
    }


def test_a_recipe_without_labels_cannot_be_counted():
    with pytest.raises(ValueError, match="names no label set"):
        count_complexity(load_recipe("shapes/demo"))
