"""Runs that stop and go on: nothing that was learnt or measured is lost, and what has changed counts."""

from __future__ import annotations

import json
import shutil

import accelerate
import pytest
import torch

from folders import edit_json, write_panoptic_folder
from script_runs import TINY, fails, rows, run

STEPS = ["--save_steps", "1", "--eval_steps", "1"]


@pytest.fixture
def stopped(tmp_path):
    """A run on a panoptic folder that has done two steps."""
    data = write_panoptic_folder(tmp_path / "data", count=2)
    words = ["--source", "panoptic_folder", "--train_path", data, "--validation_path", data, *STEPS]
    run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "run", *TINY, *words, "--max_steps", "2")
    return tmp_path / "run"


def test_a_worse_model_never_replaces_a_better_one(stopped):
    """Even if the run was killed right after the evaluation that found it, with nothing saved since."""
    metrics = json.loads((stopped / "best" / "metrics.json").read_text())
    (stopped / "best" / "metrics.json").write_text(json.dumps(metrics | {"pq": 0.99}))
    before = (stopped / "best" / "model.safetensors").read_bytes()
    run("train", "--output_dir", stopped, "--resume", "--max_steps", "3")
    assert (stopped / "best" / "model.safetensors").read_bytes() == before


def test_a_changed_learning_rate_counts(stopped):
    run(
        "train", "--output_dir", stopped, "--resume", "--max_steps", "4", "--learning_rate", "5e-5", "--poly_power", "0"
    )
    assert [row["learning_rate"] for row in rows(stopped) if "loss" in row][2:] == [5e-5, 5e-5]
    groups = torch.load(stopped / "last" / "training_state.pt", weights_only=True)["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {5e-5}


def test_settings_of_the_loss_count_and_those_of_other_networks_are_refused(stopped, capsys):
    before = (stopped / "recipe.yaml").read_text()
    words = ["--output_dir", stopped, "--resume", "--max_steps", "3"]
    assert "num_queries was 24, and --resume cannot make it 5" in fails(capsys, "train", *words, "--num_queries", "5")
    assert "cannot change freeze_backbone" in fails(capsys, "train", *words, "--freeze_backbone", "true")
    assert (stopped / "recipe.yaml").read_text() == before
    run("train", *words, "--train_num_points", "100", "--mask_weight", "5")
    config = json.loads((stopped / "last" / "config.json").read_text())
    assert (config["train_num_points"], config["mask_weight"], config["num_queries"]) == (100, 5, 24)
    assert "train_num_points: 100" in (stopped / "recipe.yaml").read_text()


def test_one_command_begins_and_goes_on(tmp_path, capsys):
    """As in a job that a scheduler puts into its queue again; settings given once are not lost."""
    words = ["--recipe", "shapes/demo", "--output_dir", tmp_path, "--resume", *STEPS]
    run("train", *words, *TINY, "--max_steps", "1")
    run("train", *words, "--max_steps", "2")
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2]
    assert "backbone: resnet18" in (tmp_path / "recipe.yaml").read_text()
    assert "going on after step 1, with the settings of" in capsys.readouterr().out


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(tmp_path, stopped):
    shutil.rmtree(stopped / "last")
    best = (stopped / "best" / "metrics.json").read_text()
    (stopped / "best" / "metrics.json").write_text(json.dumps(json.loads(best) | {"pq": 0.99}))
    run("train", "--output_dir", stopped, "--resume", "--max_steps", "1")
    assert [row["step"] for row in rows(stopped) if "loss" in row] == [1]
    assert json.loads((stopped / "best" / "metrics.json").read_text())["pq"] == 0.99


@pytest.mark.slow
def test_the_scale_of_gradients_comes_back(tmp_path, monkeypatch):
    """With one, as float16 has it, a resumed run is the run that was never stopped."""
    original = accelerate.Accelerator

    def make(**settings):
        accelerator = original(**settings)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        return accelerator

    monkeypatch.setattr(accelerate, "Accelerator", make)
    for steps, folder in (("4", "whole"), ("2", "parts")):
        run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / folder, *TINY, "--max_steps", steps)
    run("train", "--output_dir", tmp_path / "parts", "--resume", "--max_steps", "4")
    states = [
        torch.load(tmp_path / name / "last" / "training_state.pt", weights_only=True) for name in ("whole", "parts")
    ]
    assert states[0]["scaler"] == states[1]["scaler"] and states[0]["scaler"]["scale"] == 16


def test_labels_that_are_not_those_of_the_checkpoint_are_named(stopped, capsys):
    edit_json(stopped.parent / "data" / "panoptic.json", lambda c: c["categories"][2].update(name="unicorn"))
    message = fails(capsys, "train", "--output_dir", stopped, "--resume", "--max_steps", "3")
    assert "label 2 is" in message and "'unicorn' in the training data" in message


def test_training_and_validation_must_have_the_same_labels(tmp_path, capsys):
    one, other = (write_panoptic_folder(tmp_path / name, count=1) for name in "ab")
    edit_json(other / "panoptic.json", lambda c: c["categories"].reverse())
    words = ["--source", "panoptic_folder", "--train_path", one, "--validation_path", other]
    message = fails(capsys, "train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "run", *TINY, *words)
    assert "in the training data, but" in message and "in the validation data" in message


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_bad_sample_loses_no_step(tmp_path, workers):
    folder = write_panoptic_folder(tmp_path / "data", count=6)
    for index in range(5):
        (folder / "images" / f"{index}.png").write_bytes(b"no image")
    data = ["--source", "panoptic_folder", "--train_path", folder, "--validation_path", folder]
    words = ["--recipe", "shapes/demo", *TINY, *data, "--max_steps", "9", "--dataloader_workers", workers]
    with pytest.raises(SystemExit) as stop:
        run("train", "--output_dir", tmp_path / "run", *words)
    assert str(stop.value).startswith("error: ") and ".png" in str(stop.value) and "Traceback" not in str(stop.value)
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
