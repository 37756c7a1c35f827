"""Attention goes through transformers' interface, so that implementations of others take part."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@pytest.fixture
def recorded(monkeypatch):
    """The modules whose attention an implementation called `recorded` has computed, as sdpa does."""
    modules = []

    def attend(module, *args, **kwargs):
        modules.append(type(module).__name__)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "recorded", attend)
    return modules


@pytest.mark.parametrize("backbone", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_another_implementation_computes_the_attention(tiny_model, tmp_path, recorded, backbone):
    model = tiny_model(backbone=backbone)
    model.save_pretrained(tmp_path)
    other = type(model).from_pretrained(tmp_path, attn_implementation="recorded")
    pixel_values = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, given = model(pixel_values), other(pixel_values)
    torch.testing.assert_close(given.masks_queries_logits, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    layers = model.config.decoder_layers
    assert len([name for name in recorded if "Window" not in name]) == 2 * layers  # to the queries and to the image
