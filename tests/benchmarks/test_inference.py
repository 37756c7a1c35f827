"""Both libraries run the same weights."""

from __future__ import annotations

import pytest
import torch

from maskformer.benchmarks.inference import OURS, THEIRS, measure_inference, photograph
from maskformer.benchmarks.peers import our_pair, transformers_pair
from maskformer.recipes import load_recipe

SMALL = {
    **{"feature_size": 32, "mask_feature_size": 32, "hidden_size": 32, "num_attention_heads": 4},
    **{"intermediate_size": 32, "decoder_layers": 2, "num_queries": 5},
    "size": {"shortest_edge": 64, "longest_edge": 128},
}


@pytest.fixture
def recipe():
    return load_recipe("ade20k-150/maskformer_r50").override(SMALL)


def test_the_peer_has_the_same_logits(recipe):
    ours = our_pair(recipe)
    theirs = transformers_pair(ours)
    pixel_values = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = ours.model(pixel_values), theirs.model(pixel_values)
    torch.testing.assert_close(one.masks_queries_logits, other.masks_queries_logits, rtol=1e-3, atol=1e-3)


def test_both_are_measured_from_photograph_to_answer(recipe):
    cost = measure_inference(recipe, (70, 90), rounds=1)
    assert set(cost.timings) == set(cost.forward) == {OURS, THEIRS}
    assert cost.agreement[OURS] == 1.0 and 0 <= cost.agreement[THEIRS] <= 1
    assert all(cost.timings[way].median > cost.forward[way].median * 0.5 for way in cost.timings)


def test_the_photograph_is_the_same_every_time():
    assert photograph(30, 40).size == (40, 30) and photograph(30, 40).tobytes() == photograph(30, 40).tobytes()
