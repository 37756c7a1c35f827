"""scripts/benchmark.py, run as a user runs it."""

from __future__ import annotations

import json
import runpy
import sys

import numpy as np
import pytest

from folders import write_panoptic_folder
from helpers import ROOT, fixture
from maskformer.benchmarks import train_step
from maskformer.benchmarks.data import STEPS, measure_data
from maskformer.benchmarks.train_step import StepCost
from maskformer.data.augmentation import Augmentation
from maskformer.data.loading import TrainingExamples, TrainingSampler
from maskformer.data.panoptic_folder import load_panoptic_folder

NAME = "ade20k-150/maskformer_r50"


def run(monkeypatch, *words) -> None:
    path = str(ROOT / "scripts" / "benchmark.py")
    monkeypatch.setattr(sys, "argv", [path, *words])
    runpy.run_path(path, run_name="__main__")


def test_complexity_stands_beside_the_published_columns(monkeypatch, capsys):
    run(monkeypatch, "complexity", NAME, "cityscapes-19/per_pixel_baseline_r101")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [NAME, "512x512", "41.3", "41", "55.1", "53"]
    assert lines[3].split()[1] == "512x1024" and lines[3].split()[3::2] == ["-", "-"]


def test_complexity_as_markdown_and_json(monkeypatch, capsys):
    run(monkeypatch, "complexity", NAME, "--markdown")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.count("|") == 7 for line in lines)
    assert lines[1].startswith("|--") or lines[1].startswith("| --")
    run(monkeypatch, "complexity", NAME, "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["recipe"] == NAME and row["published"] == {"params": 41, "flops": 53}
    assert row["parameters"] == fixture("recipes")["configurations"][NAME]["params"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["complexity", "ade20k-150/maskformer_r5"], "did you mean"),
        (["complexity", "shapes/demo"], "no label set"),
        ([], "COMMAND"),
        (["complexity", "--nothing"], "unrecognized arguments: --nothing"),
        (["data", "--nothing", "3"], "there is no setting 'nothing'"),
        (["data", "--source", "panoptic_folder"], "needs --train_path"),
        (["data", "--images", "0"], "--images must be at least 1"),
        (["metrics", "--rounds", "0"], "--images and --rounds must be at least 1"),
        (["train-step", "--losses", "transformers", "--checkpointing", "with"], "without checkpointing only"),
    ],
)
def test_mistakes_end_with_exit_code_2(monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_data_prints_every_step_and_what_it_takes(monkeypatch, capsys, tmp_path):
    write_panoptic_folder(tmp_path, count=3, size=64)
    words = ["data", "--source", "panoptic_folder", "--train_path", str(tmp_path), "--images", "3", "--batch_size", "2"]
    run(monkeypatch, *words, "--crop_size", "[32, 32]", "--color_jitter", "true")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2 : 3 + len(STEPS)]] == [*STEPS, "all"]
    assert sum(float(line.split()[2][:-1]) for line in lines[2 : 2 + len(STEPS)]) == pytest.approx(100, abs=0.5)
    assert lines[-1].endswith("images a second a core")
    run(monkeypatch, *words, "--json")
    content = json.loads(capsys.readouterr().out)
    assert content["images"] == 4 and content["images_per_second"] == pytest.approx(
        4 / sum(content["seconds"].values())
    )
    run(monkeypatch, *words, "--markdown")
    assert capsys.readouterr().out.startswith("| step")


def test_a_bad_example_ends_the_measurement_with_its_file(monkeypatch, tmp_path):
    folder = write_panoptic_folder(tmp_path, count=1)
    (folder / "images" / "0.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"images/0.png: not a readable image.*\n.*inspect_dataset"):
        run(monkeypatch, "data", "--source", "panoptic_folder", "--train_path", str(folder))


def test_what_is_measured_is_what_training_gets(tmp_path):
    """The batches that are collated hold the augmented examples of the training tickets, in their order."""
    source = load_panoptic_folder(write_panoptic_folder(tmp_path, count=5, size=64))
    augmentation = Augmentation(
        shortest_edges=[40, 48], crop_size=[32, 48], color_jitter=True, vertical_flip=True, rotate=True
    )
    batches = []
    cost = measure_data(source, augmentation, batches.append, batch_size=2, images=5, seed=3)
    assert cost.images == 6 and [len(batch) for batch in batches] == [2, 2, 2, 2]  # the first warms up
    assert sum(cost.share(step) for step in STEPS) == pytest.approx(1)
    assert all(value >= 0 for value in cost.seconds.values())
    examples = TrainingExamples(source, augmentation, seed=3)
    expected = [examples[ticket] for ticket in TrainingSampler(5, end=8, seed=3)]
    for one, other in zip(expected, sum(batches, []), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["segmentation"], other["segmentation"])


def test_metrics_stand_beside_the_plain_count(monkeypatch, capsys):
    words = ["metrics", "--images", "3", "--rounds", "1"]
    run(monkeypatch, *words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        "numpy.bincount",
        "mean_iou",
        "panoptic_quality",
        "semantic_panoptic_quality",
    ]
    assert lines[2].split()[2:] == ["1.00", "-"] and "over 3 images" in lines[0]
    run(monkeypatch, *words, "--json")
    content = json.loads(capsys.readouterr().out)
    assert content["ratio"]["mean_iou"] == content["seconds"]["mean_iou"] / content["seconds"]["numpy.bincount"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("lean", False), ("transformers", False), ("lean", True)]),
        (["--checkpointing", "without"], [("lean", False), ("transformers", False)]),
        (["--checkpointing", "with"], [("lean", True)]),
    ],
)
def test_training_steps_with_and_without_checkpointing(monkeypatch, capsys, words, expected):
    measured = []

    def measure(steps, rounds, progress):
        measured.extend((step.loss, step.checkpointing) for step in steps)
        return [StepCost(2**20, 1.0) for _ in steps]

    monkeypatch.setattr(train_step, "measure_steps", measure)
    run(monkeypatch, "train-step", "--losses", "lean", "transformers", *words, "--json")
    assert measured == expected
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["loss"], step["checkpointing"]) for step in steps] == expected
