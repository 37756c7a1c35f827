"""Initial weights as the official code draws them, for new models and for what a checkpoint does not fill."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import maskformer


def bounded(weight: torch.Tensor, bound: float) -> None:
    """Uniform within `bound`."""
    assert 0.95 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def xavier(inputs: int, outputs: int) -> float:
    """The bound of Xavier's uniform initialisation."""
    return math.sqrt(6 / (inputs + outputs))


def check(model) -> None:
    """The initial weights of a model with a Swin backbone, an encoder and a decoder of 32 channels."""
    network = model.model
    for layer in (*network.transformer_module.layers, *network.pixel_level_module.pixel_decoder.encoder.layers):
        attentions = [layer.self_attention, getattr(layer, "cross_attention", layer.self_attention)]
        for attention in attentions:
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                bounded(projection.weight, xavier(32, 3 * 32))  # officially one matrix (3C, C)
                assert (projection.bias == 0).all()
            bounded(attention.out_proj.weight, xavier(32, 32))
            assert (attention.out_proj.bias == 0).all()
        bounded(layer.feed_forward[0].weight, xavier(32, 64))
        bounded(layer.feed_forward[3].weight, xavier(64, 32))
    assert network.transformer_module.query_embeddings.weight.std().item() == pytest.approx(1, rel=0.1)
    bounded(model.segmentation_module.mask_head[0].weight, 1 / math.sqrt(32))
    bounded(network.pixel_level_module.pixel_decoder.mask_projection.weight, math.sqrt(3 / (32 * 9)))
    assert (network.pixel_level_module.pixel_decoder.mask_projection.bias == 0).all()
    swin = network.pixel_level_module.backbone
    for module in swin.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or (module.bias == 0).all()
    bounded(swin.patch_embed["proj"].weight, 1 / math.sqrt(3 * 4 * 4))


FIELDS = {
    "backbone": "swin_tiny_patch4_window7_224",
    "pixel_decoder_encoder_layers": 1,
    "intermediate_size": 64,
    "decoder_layers": 1,
}


def test_a_new_model(tiny_model, tiny_per_pixel_model):
    check(tiny_model(num_queries=50, **FIELDS))
    labels = {index: str(index) for index in range(50)}
    check(tiny_per_pixel_model(use_transformer_decoder=True, id2label=labels, **FIELDS))


def test_entries_that_a_checkpoint_lacks(tiny_model, tmp_path):
    """Only one entry is stored, so everything else is initialised after loading on the meta device."""
    model = tiny_model(num_queries=50, **FIELDS)
    kept = "segmentation_module.class_head.weight"
    model.save_pretrained(tmp_path, state_dict={kept: model.state_dict()[kept]})
    loaded = maskformer.MaskFormerForUniversalSegmentation.from_pretrained(tmp_path)
    assert torch.equal(loaded.state_dict()[kept], model.state_dict()[kept])
    check(loaded)


def test_another_number_of_queries_is_drawn_anew(tiny_model, tiny_config, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = maskformer.MaskFormerForUniversalSegmentation.from_pretrained(
        tmp_path, config=tiny_config(num_queries=90), ignore_mismatched_sizes=True
    )
    state = loaded.state_dict()
    queries = "model.transformer_module.query_embeddings.weight"
    assert state[queries].std().item() == pytest.approx(1, rel=0.1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name != queries)


def test_pre_norm_layers_start_as_torch_makes_them(tiny_model):
    for layer in tiny_model(pre_norm=True, **FIELDS).model.transformer_module.layers:
        for linear in (layer.self_attention.q_proj, layer.cross_attention.out_proj, layer.feed_forward[0]):
            bounded(linear.weight, 1 / math.sqrt(32))
        bounded(layer.feed_forward[3].weight, 1 / math.sqrt(64))
