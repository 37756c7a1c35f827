"""Shards of prepared data that are lost, cut short or damaged: before a run, between two, and while one reads them."""

from __future__ import annotations

import shutil

import pytest

from fault_runs import SMALL, ScriptRun, same_weights, step_of, steps_made, wait_until

SHARD = "train-00002-of-00004.parquet"
WORDS = [*SMALL, "--save_steps", "2", "--eval_steps", "100", "--max_steps", "24", "--source", "prepared"]
pytestmark = pytest.mark.slow


@pytest.fixture
def data(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


def vanish(path) -> None:
    path.unlink()


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("damage", [vanish, cut])
def test_a_run_does_not_go_on_with_a_shard_that_is_lost(prepared, data, tmp_path, streaming, damage):
    folder = tmp_path / "run"
    words = [*WORDS, "--data_path", data, "--streaming", streaming, "--output_dir", folder]
    assert ScriptRun(tmp_path / "first", "train", *words, "--max_steps", 2).wait() == 0
    damage(data / SHARD)
    run = ScriptRun(tmp_path / "second", "train", *words, "--max_steps", 3, "--resume")
    assert run.wait(60) == 2, run.text()
    assert f"{data / SHARD}: " in run.text() and "run scripts/prepare_dataset.py again" in run.text()
    shutil.copy(prepared / SHARD, data / SHARD)
    run = ScriptRun(tmp_path / "third", "train", *words, "--max_steps", 3, "--resume")
    assert run.wait() == 0 and step_of(run.text()) == 2, run.text()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", [vanish, cut])
def test_a_shard_that_is_lost_while_a_run_reads_it_is_named(prepared, data, tmp_path, workers, damage):
    """The run ends, and once the shard is back it goes on to what an undisturbed one gives."""
    words = [*WORDS, "--streaming", "true", "--dataloader_workers", workers]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run = ScriptRun(tmp_path / "zeroth", "train", *words, "--data_path", prepared, "--output_dir", whole)
    assert run.wait() == 0, run.text()
    words += ["--data_path", data]
    run = ScriptRun(tmp_path / "first", "train", *words, "--output_dir", folder)
    wait_until(lambda: steps_made(folder) >= 1, run)
    damage(data / SHARD)
    assert run.wait(60) == 1, run.text()
    assert "error: shard 2 of the training data, counted from 0, cannot be read any more" in run.text()
    assert SHARD in run.text() and "--resume, once it is back, goes on" in run.text() and "Traceback" not in run.text()
    made = steps_made(folder)
    shutil.copy(prepared / SHARD, data / SHARD)
    run = ScriptRun(tmp_path / "second", "train", *words, "--output_dir", folder, "--resume")
    assert run.wait() == 0, run.text()
    assert step_of(run.text()) == made  # what was learnt was saved
    assert same_weights(folder / "last", whole / "last")
