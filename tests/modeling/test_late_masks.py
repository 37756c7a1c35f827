"""Masks of the last layer alone come from a convolution by mask embeddings and weights: the same, for less."""

from __future__ import annotations

import pytest
import torch


def pixels(batch: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_masks_are_the_dot_products(tiny_model, batch):
    model = tiny_model()
    every = model(pixels(batch))
    last = model(pixels(batch), output_auxiliary_logits=False)
    assert last.auxiliary_logits is None and len(every.auxiliary_logits) == 2
    assert torch.equal(last.class_queries_logits, every.class_queries_logits)
    scale = every.masks_queries_logits.abs().max().item()
    torch.testing.assert_close(last.masks_queries_logits, every.masks_queries_logits, rtol=0, atol=2e-6 * scale)


def test_gradients_are_those_of_the_dot_products(tiny_model):
    gradients = []
    for output_auxiliary_logits in (True, False):
        model = tiny_model()
        model(pixels(), output_auxiliary_logits=output_auxiliary_logits).masks_queries_logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    largest = max(gradient.abs().max().item() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():  # those of the keys' biases are zero but for rounding
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-4 * scale, msg=name)


@torch.no_grad()
def test_the_network_alone_still_has_its_pixel_embeddings(tiny_model):
    model = tiny_model(output_auxiliary_logits=False)
    assert model.model(pixels()).pixel_embeddings.shape == (2, 16, 16, 24)


@torch.no_grad()
def test_more_queries_than_embedding_channels(tiny_model):
    model = tiny_model(num_queries=20)  # the embeddings have 16 channels: nothing would be saved
    every, last = model(pixels()), model(pixels(), output_auxiliary_logits=False)
    assert torch.equal(last.masks_queries_logits, every.masks_queries_logits)


@torch.no_grad()
def test_bfloat16_stays_as_close(tiny_model):
    model = tiny_model()
    exact = model(pixels()).masks_queries_logits
    with torch.autocast("cpu", torch.bfloat16):
        every, last = model(pixels()), model(pixels(), output_auxiliary_logits=False)
    errors = [(outputs.masks_queries_logits.float() - exact).abs().mean() for outputs in (every, last)]
    assert errors[1] < 1.5 * errors[0]
