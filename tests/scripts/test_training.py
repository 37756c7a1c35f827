"""What `scripts/train.py` does beside learning: plans, checkpoints, signals, numbers that are not finite."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import maskformer.training.loop as loop
from folders import write_semantic_folder
from maskformer import MaskFormerForUniversalSegmentation, PerPixelBaselineForSemanticSegmentation
from script_runs import TINY, fails, rows, run

DEMO = ["--recipe", "shapes/demo", *TINY, "--eval_steps", "100"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def steps_kept(folder) -> list[int]:
    """The steps of the numbered checkpoints in `folder`."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    run("train", *DEMO, "--output_dir", tmp_path / "run", "--dry_run", "--max_steps", "8", "--accumulation_steps", "2")
    text = capsys.readouterr().out
    for words in (
        "MaskFormerForUniversalSegmentation, resnet18, 8 labels",
        "backbone random, the others random",
        "8 for training, 3 for validation",
        "2 images a step (processes 1, micro-batches of each 2, images in each 1)",
        "8 steps, 16 images, 2.0 epochs",
        "2 steps of warm-up, then poly 0.9",
        "GB at the most",
    ):
        assert words in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("baseline", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_per_pixel_models_train_and_are_evaluated(tmp_path, baseline, capsys):
    data = write_semantic_folder(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{model_type: per_pixel_baseline, use_transformer_decoder: {baseline}, backbone: resnet18,"
        " feature_size: 32, mask_feature_size: 16, hidden_size: 32, intermediate_size: 32, decoder_layers: 2}\n"
        f"data: {{source: semantic_folder, train_path: {data}, validation_path: {data}}}\n"
        "training: {max_steps: 2, batch_size: 2, log_steps: 1, dataloader_workers: 0, report_to: []}\n"
    )
    run("train", "--recipe", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run", "--accumulation_steps", "2")
    model = PerPixelBaselineForSemanticSegmentation.from_pretrained(tmp_path / "run" / "best")
    assert model.config.id2label == {0: "road", 1: "car", 2: "sky"}
    (measured,) = [row for row in rows(tmp_path / "run") if "mean_iou" in row]
    assert "pq" not in measured and Image.open(tmp_path / "run" / "validation.png").size[0] > 300
    capsys.readouterr()
    run("eval", "--model", tmp_path / "run" / "best", "--output_dir", tmp_path / "eval")
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    # Training keeps channels last, whose other rounding decides ties of a model that knows nothing.
    assert results["mean_iou"] == pytest.approx(measured["mean_iou"], abs=2e-3)
    text = capsys.readouterr().out
    assert "mIoU" in text.splitlines()[-1] and "PQ" not in text and "road" in text


def test_micro_batches_give_the_step_of_the_whole_batch(tmp_path):
    words = ["--max_steps", "2", "--batch_size", "4"]
    for name, parts in (("one", "1"), ("four", "4")):
        run("train", *DEMO, *words, "--output_dir", tmp_path / name, "--accumulation_steps", parts)
    for one, four in zip(*([row for row in rows(tmp_path / n) if "loss" in row] for n in ("one", "four")), strict=True):
        assert one["loss"] == pytest.approx(four["loss"], rel=1e-4)
    one, four = weights(tmp_path / "one" / "last"), weights(tmp_path / "four" / "last")
    difference = max(float((one[name] - four[name]).abs().max()) for name in one)
    assert difference < 5e-4  # float32 and AdamW's first steps, which only know the sign of small gradients


def send_in_second_step(monkeypatch, number: int) -> list:
    """Sends this process a signal in the second step of a run; the list has an item for each step."""
    original, calls = loop.train_step, []

    def step(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(loop, "train_step", step)
    return calls


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_step_saves_and_leaves(tmp_path, monkeypatch, capsys, number, code):
    calls = send_in_second_step(monkeypatch, number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        run("train", *DEMO, "--output_dir", tmp_path / "a", "--max_steps", "4")
    assert stop.value.code == code and len(calls) == 2 and signal.getsignal(number) is before
    assert "--resume goes on" in capsys.readouterr().err
    assert torch.load(tmp_path / "a" / "last" / "training_state.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    run("train", "--output_dir", tmp_path / "a", "--resume")
    run("train", *DEMO, "--output_dir", tmp_path / "b", "--max_steps", "4")
    expected, actual = weights(tmp_path / "b" / "last"), weights(tmp_path / "a" / "last")
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())


@pytest.mark.parametrize("steps", ["2", "4"])
def test_a_signal_waits_for_no_evaluation(tmp_path, monkeypatch, steps):
    """Neither for one between steps nor for the last one."""
    send_in_second_step(monkeypatch, signal.SIGTERM)
    words = [*DEMO, "--output_dir", tmp_path, "--max_steps", steps, "--eval_steps", "2"]
    with pytest.raises(SystemExit) as stop:
        run("train", *words)
    assert stop.value.code == 143 and not [row for row in rows(tmp_path) if "pq" in row]
    assert torch.load(tmp_path / "last" / "training_state.pt", weights_only=True)["step"] == 2


def test_numbers_that_are_not_finite_stop_the_run_with_their_batch(tmp_path, monkeypatch):
    original, calls = loop.train_step, []

    def step(accelerator, model, *arguments):
        calls.append(1)
        if len(calls) == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return original(accelerator, model, *arguments)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(SystemExit) as stop:
        run("train", *DEMO, "--output_dir", tmp_path / "run", "--max_steps", "5", "--save_steps", "1")
    assert "is NaN" in str(stop.value) and "not_finite.pt" in str(stop.value)
    content = torch.load(tmp_path / "run" / "not_finite.pt", weights_only=True)
    assert content["step"] == 2 and content["batches"][0]["pixel_values"].shape[0] == 2
    assert Image.open(tmp_path / "run" / "not_finite.png").size[0] > 300
    assert all(value.isfinite().all() for value in weights(tmp_path / "run" / "last").values())


@pytest.mark.slow
def test_the_last_checkpoints_are_kept_and_any_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    words = ["--save_steps", "1", "--keep_checkpoints", "3"]
    run("train", *DEMO, *words, "--output_dir", folder, "--max_steps", "4")
    assert steps_kept(folder) == [2, 3, 4]
    before = weights(folder / "last")
    run("train", "--output_dir", folder, "--resume", "checkpoint-00000002")
    after = weights(folder / "last")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    run("train", "--output_dir", folder, "--resume", "checkpoint-00000002", "--max_steps", "3")
    assert steps_kept(folder) == [2, 3]  # the fourth step belongs to a run that goes on no more


def test_a_run_that_is_replaced_leaves_no_checkpoint(tmp_path, capsys):
    (tmp_path / "checkpoint-00000009").mkdir()
    (tmp_path / ".last.old").mkdir()
    assert "holds another run" in fails(capsys, "train", *DEMO, "--output_dir", tmp_path)
    words = ["--save_steps", "1", "--keep_checkpoints", "3", "--max_steps", "1", "--overwrite_output_dir"]
    run("train", *DEMO, *words, "--output_dir", tmp_path)
    assert steps_kept(tmp_path) == [1] and not list(tmp_path.glob(".*"))


def test_trackers_get_the_numbers(tmp_path):
    run("train", *DEMO, "--output_dir", tmp_path, "--max_steps", "2", "--report_to", "[tensorboard]")
    reader = EventAccumulator(str(tmp_path / "logs"))
    reader.Reload()
    losses = [(event.step, event.value) for event in reader.Scalars("loss")]
    expected = [(row["step"], row["loss"]) for row in rows(tmp_path) if "loss" in row]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert "pq" in reader.Tags()["scalars"]


@pytest.mark.slow
def test_a_run_can_start_from_another_model_with_other_labels(tmp_path):
    run("train", *DEMO, "--output_dir", tmp_path / "first", "--max_steps", "1")
    data = write_semantic_folder(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(
        f"data: {{source: semantic_folder, train_path: {data}, validation_path: {data}}}\n"
        "training: {max_steps: 1, batch_size: 1, dataloader_workers: 0, report_to: [], learning_rate: 1e-12}\n"
    )
    words = ["--recipe", tmp_path / "recipe.yaml", "--initial_model", tmp_path / "first" / "best"]
    run("train", *words, "--output_dir", tmp_path / "second")
    model = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path / "second" / "best")
    assert model.config.id2label == {0: "road", 1: "car", 2: "sky"} and model.config.backbone == "resnet18"
    first, second = weights(tmp_path / "first" / "best"), weights(tmp_path / "second" / "best")
    changed = [name for name in first if first[name].shape != second[name].shape]
    assert changed and all("class" in name for name in changed)
    backbone = [name for name in first if "backbone" in name and first[name].is_floating_point()]
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in backbone)
    settings = json.loads((tmp_path / "second" / "best" / "preprocessor_config.json").read_text())
    assert settings["size"] == {"shortest_edge": 128, "longest_edge": 512} and settings["image_mean"] == [0.5] * 3


@pytest.mark.slow
def test_a_frozen_backbone_keeps_its_weights_and_checkpointing_changes_nothing(tmp_path):
    run("train", *DEMO, "--output_dir", tmp_path / "a", "--max_steps", "2", "--freeze_backbone", "true")
    run("train", *DEMO, "--output_dir", tmp_path / "b", "--max_steps", "1", "--learning_rate", "1e-12")
    a, start = weights(tmp_path / "a" / "last"), weights(tmp_path / "b" / "last")
    moved = {name for name in a if not torch.allclose(a[name].float(), start[name].float(), atol=1e-7)}
    assert moved and not any("backbone" in name for name in moved)
    run("train", *DEMO, "--output_dir", tmp_path / "c", "--max_steps", "2")
    run("train", *DEMO, "--output_dir", tmp_path / "d", "--max_steps", "2", "--gradient_checkpointing", "true")
    losses = [[row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in "cd"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
