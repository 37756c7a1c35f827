"""The Swin backbone against transformers' own, which agrees with the official one at every size."""

from __future__ import annotations

import pytest
import torch
from transformers import SwinBackbone as TransformersSwin
from transformers import SwinConfig

from maskformer import MaskFormerUniversalConfig
from maskformer.modeling import blocks
from maskformer.modeling.backbone import load_backbone

# transformers' names, and the official ones that ours are.
NAMES = {
    "swin.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "swin.embeddings.norm": "patch_embed.norm",
    "swin.encoder.layers": "layers",
    "attention.relative_position_bias.": "attn.",
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    **{f"hidden_states_norms.stage{stage + 1}": f"norm{stage}" for stage in range(4)},
}


@pytest.fixture(scope="module")
def swins():
    """Our backbone and transformers', with the same random weights."""
    torch.manual_seed(0)
    stages = [f"stage{stage}" for stage in range(1, 5)]
    theirs = TransformersSwin(
        SwinConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_features=stages)
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    state = theirs.state_dict()
    renamed = {}
    for name, value in state.items():
        if ".q_proj" in name:
            value = torch.cat([state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            name = name.replace("attention.q_proj", "attn.qkv")
        for their_part, our_part in NAMES.items():
            name = name.replace(their_part, our_part)
        # Keys and values are joined with the queries; the norm of a classifier is not part of the features.
        if ".attention." not in name and not name.startswith("swin.layernorm"):
            renamed[name] = value
    config = MaskFormerUniversalConfig(backbone="swin_tiny_patch4_window7_224")
    config._attn_implementation = "sdpa"
    ours = load_backbone(config).eval()
    ours.load_state_dict(renamed, strict=True)
    return ours, theirs


@pytest.mark.parametrize("size", [(224, 224), (128, 160), (97, 130), (33, 30)])
def test_features_agree_at_every_size(swins, size):
    ours, theirs = swins
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(pixel_values).feature_maps
        actual = ours(pixel_values)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=1e-5 * e.abs().max().item())


@pytest.mark.parametrize("size", [(97, 130), (208, 224)])  # of windows' places a sixth is padding, and a fourteenth
def test_blocks_in_place_are_the_blocks_as_written(swins, monkeypatch, size):
    ours, _ = swins
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 3 * 49 * 96 * 5)  # five windows at a time
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = ours(pixel_values)  # with gradients, everything at once
    seen = []
    hooks = [block.attn.register_forward_hook(lambda *_: seen.append(1)) for block in ours.layers[0].blocks]
    with torch.no_grad():
        watched = ours(pixel_values)
        for hook in hooks:
            hook.remove()
        found = ours(pixel_values)
    assert len(seen) > 2 * len(hooks)
    for one, other, exact in zip(found, watched, expected, strict=True):
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-5 * exact.abs().max().item())
        torch.testing.assert_close(other, exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@torch.no_grad()
def test_bfloat16_is_near(swins):
    ours, _ = swins
    pixel_values = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(0))
    expected = ours(pixel_values)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(pixel_values)
    for one, exact in zip(found, expected, strict=True):
        assert (one - exact).square().mean() < 2e-3 * exact.square().mean()


@pytest.fixture(scope="module")
def small():
    """A small backbone with eager attention, whose steps all have derivatives."""
    torch.manual_seed(0)
    kwargs = {"embed_dim": 32, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    config = MaskFormerUniversalConfig(backbone="swin_tiny_patch4_window7_224", backbone_kwargs=kwargs)
    config._attn_implementation = "eager"
    backbone = load_backbone(config).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def test_functions_of_torch_func(small):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.func.jvp(lambda x: small(x)[3], (images,), (images,))
    batched = torch.func.vmap(lambda image: small(image[None])[3][0])
    stacked = {name: torch.stack([value, value]) for name, value in small.named_parameters()}
    ensemble = torch.func.vmap(lambda weights: torch.func.functional_call(small, weights, (images,))[3])
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            for one, other in zip(torch.func.jvp(lambda x: small(x)[3], (images,), (images,)), expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(batched(images), expected[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ensemble(stacked)[1], expected[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_who_watches_blocks_keeps_their_answers(small):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    kept = []
    hooks = [block.register_forward_hook(lambda *call: kept.append(call[2])) for block in small.layers[0].blocks]
    small(images)
    copies = list(kept)
    with torch.enable_grad():
        small(images)
    for hook in hooks:
        hook.remove()
    for one, other in zip(copies, kept[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
