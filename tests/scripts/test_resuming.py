"""Runs that stop and go on: nothing that was learnt or measured is lost, and what has changed counts."""

from __future__ import annotations

import json

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
