"""Weights and optimiser states of plain and of sharded models are the same wholes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from helpers import ROOT
from maskformer import MaskFormerForUniversalSegmentation
from maskformer.recipes.arguments import TrainingArguments
from maskformer.training.optimization import build_optimizer
from maskformer.training.sharding import optimizer_state, restore_optimizer, whole_model
from script_runs import TINY, rows, run

CONFIGURATIONS = ROOT / "scripts" / "accelerate"
SWIN = [
    *("--backbone", "swin_tiny_patch4_window7_224"),
    *("--backbone_kwargs", "{embed_dim: 12, depths: [1, 2, 1, 1], num_heads: [1, 2, 2, 4]}"),
]
# Runs a script as if CPUs were the GPUs that accelerate wants for FSDP; everything else is accelerate's own.
AS_ON_GPUS = """
import runpy
import sys

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = lambda state: setattr(state, "device", torch.device("cpu"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_knows_every_entry_of_a_configuration(path):
    config = load_config_from_file(str(path))  # refuses unknown entries, but not those within fsdp_config
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert set(config.fsdp_config) <= set(known)
    assert bool(config.fsdp_config) == (path.stem == "sharded")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [[], SWIN], ids=["resnet", "swin"])
def test_the_sharded_configuration_trains_as_one_process_does(tmp_path, backbone):
    """What is launched is what docs/training.md says, but with fewer processes."""
    (tmp_path / "as_on_gpus.py").write_text(AS_ON_GPUS)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGURATIONS / "sharded.yaml"]
    launcher += ["--num_processes", 2, "--main_process_port", 0, tmp_path / "as_on_gpus.py"]
    words = ["--recipe", "shapes/demo", *TINY, *backbone, "--max_steps", 2, "--output_dir"]
    command = [*launcher, ROOT / "scripts" / "train.py", *words, tmp_path / "sharded"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    subprocess.run([str(word) for word in command], env=environment, check=True, timeout=300)
    run("train", *words, tmp_path / "plain")
    sharded, plain = ([row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("sharded", "plain"))
    assert sharded == pytest.approx(
        plain, rel=2e-3
    )  # float32, and AdamW's first steps follow the sign of tiny gradients
    assert sharded[0] == pytest.approx(plain[0], rel=1e-5)
    MaskFormerForUniversalSegmentation.from_pretrained(tmp_path / "sharded" / "last")
