"""Images that turn out to be damaged in the middle of an epoch: named, and skipped or fatal as the run was told."""

from __future__ import annotations

import shutil

import pytest
import torch

from fault_runs import SMALL, ScriptRun, complete_rows, same_weights, step_of, steps_made, wait_until
from folders import write_panoptic_folder
from maskformer.training.checkpoint import STATE, load_state

COUNT, STEPS = 12, 18  # three epochs
WORDS = [*SMALL, "--save_steps", "100", "--eval_steps", "100", "--max_steps", STEPS, "--source", "panoptic_folder"]
pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path):
    write_panoptic_folder(tmp_path / "data", count=COUNT)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("validation") / "data", count=2, split="validation")


@pytest.fixture(scope="module")
def whole(validation, tmp_path_factory):
    """A run on images that are all good."""
    notes = tmp_path_factory.mktemp("whole")
    train = write_panoptic_folder(notes / "data", count=COUNT)
    words = ["--train_path", train, "--validation_path", validation, "--output_dir", notes / "run"]
    run = ScriptRun(notes, "train", *WORDS, *words)
    assert run.wait() == 0, run.text()
    return notes / "run"


def damage(path) -> bytes:
    """Cuts a file to its half, as a copy that was stopped does; returns what it was."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_stops_at_an_image_that_breaks_and_with_a_mended_one_ends_the_same(
    data, validation, whole, tmp_path, workers
):
    folder, image = tmp_path / "run", data / "images" / "5.png"
    words = ["--train_path", data, "--validation_path", validation, "--dataloader_workers", workers]
    run = ScriptRun(tmp_path / "first", "train", *WORDS, *words, "--output_dir", folder)
    wait_until(lambda: steps_made(folder) >= 1, run)
    content = damage(image)
    assert run.wait(60) == 1, run.text()
    assert f"error: {image}: not a readable image" in run.text() and "--on_bad_sample skip goes on" in run.text()
    assert "Traceback" not in run.text()
    made = steps_made(folder)
    assert load_state(folder / "last")["step"] == made >= 1  # none is lost, though none was to be saved yet
    image.write_bytes(content)
    run = ScriptRun(tmp_path / "second", "train", *WORDS, *words, "--output_dir", folder, "--resume")
    assert run.wait() == 0 and step_of(run.text()) == made, run.text()
    assert same_weights(folder / "last", whole / "last")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_skips_an_image_that_breaks_and_makes_all_its_steps(data, validation, tmp_path, workers):
    folder, image = tmp_path / "run", data / "images" / "5.png"
    words = ["--train_path", data, "--validation_path", validation, "--dataloader_workers", workers]
    run = ScriptRun(tmp_path / "notes", "train", *WORDS, *words, "--on_bad_sample", "skip", "--output_dir", folder)
    wait_until(lambda: steps_made(folder) >= 1, run)
    damage(image)
    assert run.wait() == 0, run.text()
    assert f"skipped a bad sample: {image}: not a readable image" in run.text()
    assert [row["step"] for row in complete_rows(folder / "history.jsonl") if "loss" in row] == list(
        range(1, STEPS + 1)
    )


def test_a_run_that_goes_on_without_an_image_is_one_that_never_had_it(data, validation, tmp_path):
    """Skipping is as reproducible as the rest: stopped at a bad image and resumed, or begun with `skip`."""
    damage(data / "images" / "5.png")
    words = [*WORDS, "--train_path", data, "--validation_path", validation]
    run = ScriptRun(tmp_path / "one", "train", *words, "--output_dir", tmp_path / "at_once", "--on_bad_sample", "skip")
    assert run.wait() == 0, run.text()
    assert ScriptRun(tmp_path / "two", "train", *words, "--output_dir", tmp_path / "parts").wait() == 1
    more = ["--output_dir", tmp_path / "parts", "--resume", "--on_bad_sample", "skip"]
    run = ScriptRun(tmp_path / "three", "train", *words, *more)
    assert run.wait() == 0, run.text()
    assert same_weights(tmp_path / "at_once" / "last", tmp_path / "parts" / "last")


def test_a_validation_image_that_breaks_loses_no_step(data, validation, tmp_path):
    """An evaluation comes between two checkpoints."""
    shutil.copytree(validation, tmp_path / "broken")
    image = tmp_path / "broken" / "images" / "1.png"
    damage(image)
    folder = tmp_path / "run"
    words = ["--train_path", data, "--validation_path", tmp_path / "broken", "--eval_steps", 3]
    run = ScriptRun(tmp_path / "notes", "train", *WORDS, *words, "--output_dir", folder)
    assert run.wait() == 1, run.text()
    assert f"error: {image}: not a readable image" in run.text()
    assert torch.load(folder / "last" / STATE, weights_only=True)["step"] == 3
