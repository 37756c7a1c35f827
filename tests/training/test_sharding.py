"""Weights and optimiser states of plain and of sharded models are the same wholes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from helpers import ROOT
from maskformer.recipes.arguments import TrainingArguments
from maskformer.training.optimization import build_optimizer
from maskformer.training.sharding import optimizer_state, restore_optimizer, whole_model


def test_an_optimiser_state_comes_back_by_names_and_keeps_new_settings(tiny_model):
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-3))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = optimizer_state(model, optimizer)
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
    fresh = build_optimizer(model, TrainingArguments(learning_rate=5e-5))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    restore_optimizer(model, fresh, state)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(fresh.state[parameter][key], value), (name, key)
    assert {group["initial_lr"] for group in fresh.param_groups} == {5e-5}
    assert whole_model(model) is model


@pytest.mark.slow
def test_a_sharded_model_trains_is_saved_and_goes_on_as_a_plain_one(tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "sharded_steps.py")]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT / "tests") for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    sys.path.insert(0, str(ROOT / "tests"))
    import sharded_steps

    model, optimizer = sharded_steps.make(sharded=False)
    sharded_steps.train(model, optimizer, [0, 1])
    for rank in range(2):
        weights = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-8 * value.abs().max().item() + 1e-12)
