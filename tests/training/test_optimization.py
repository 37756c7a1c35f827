"""Parameter groups and learning rates, as the official code has them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers import fixture
from maskformer import MaskFormerForUniversalSegmentation, load_recipe
from maskformer.convert import to_official
from maskformer.recipes.arguments import TrainingArguments
from maskformer.training.optimization import build_optimizer, learning_rate_factor, set_learning_rate


@pytest.mark.parametrize("backbone", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_groups(tiny_model, backbone):
    model = tiny_model(backbone=backbone)
    arguments = TrainingArguments(learning_rate=1e-3, backbone_multiplier=0.1, weight_decay=0.05)
    optimizer = build_optimizer(model, arguments)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        assert group["lr"] == group["initial_lr"]
        seen |= {names[id(parameter)]: (group["lr"], group["weight_decay"]) for parameter in group["params"]}
    assert seen.keys() == set(names.values())
    for name, (rate, decay) in seen.items():
        assert rate == pytest.approx(1e-4 if ".backbone." in name else 1e-3), name
        undecayed = "norm" in name or "query_embeddings" in name or "relative_position_bias" in name
        undecayed |= any(f"{part}.{index}.1." in name for part in ("laterals", "outputs") for index in range(4))
        assert decay == (0 if undecayed else 0.05), name


@pytest.mark.parametrize("name", fixture("optimizer")["recipes"])
def test_every_official_parameter_has_its_rate_and_decay(name):
    """Parameters are filled with the number of their group; converted to the official layout, they tell it."""
    recipe, expected = load_recipe(name), fixture("optimizer")["recipes"][name]
    config = recipe.build_config()
    with torch.device("meta"):
        model = MaskFormerForUniversalSegmentation(config)
    optimizer = build_optimizer(model, recipe.training)
    numbers = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    learnt = {key: numbers[id(p)] for key, p in model.named_parameters()}
    state = {
        key: torch.full((1,), learnt.get(key, -1)).expand(value.shape) for key, value in model.state_dict().items()
    }
    members = {}
    for official, value in to_official(state, config).items():
        found = value.unique().tolist()
        if len(found) == 1 and found[0] in numbers.values():  # all others are buffers
            members.setdefault(found[0], []).append(official)
    assert expected["frozen"] == []
    groups = {}
    for number, group in enumerate(optimizer.param_groups):
        groups.setdefault((round(group["lr"], 12), group["weight_decay"]), []).extend(members[number])
    assert len(groups) == len(expected["groups"])
    for group in expected["groups"]:
        names = groups[group["learning_rate"], group["weight_decay"]]
        assert len(names) == group["size"] and set(group["names"]) <= set(names)


@pytest.mark.parametrize("case", fixture("learning_rate")["cases"], ids=lambda case: case["configuration"])
def test_learning_rates_are_the_official_ones(case):
    arguments = TrainingArguments(**case["arguments"])
    for step, expected in case["learning_rate_at_step"].items():
        step = int(step)
        rate = arguments.learning_rate * learning_rate_factor(step, step / arguments.max_steps, arguments)
        assert rate == pytest.approx(expected, rel=1e-9)


def test_the_rate_ends_at_zero_and_every_group_follows(tiny_model):
    arguments = TrainingArguments(backbone_multiplier=0.1)
    optimizer = build_optimizer(tiny_model(), arguments)
    assert set_learning_rate(optimizer, 0.5) == pytest.approx(5e-5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([5e-6, 5e-5])
    assert learning_rate_factor(10, 1.2, dataclasses.replace(arguments, max_steps=10)) == 0
