"""A loader's process that is killed in the middle of an epoch, as the kernel does when memory ends."""

from __future__ import annotations

import pytest

from fault_runs import SMALL, ScriptRun, kill_a_loader, same_weights, step_of, steps_made, wait_until

WORDS = ["--save_steps", "2", "--eval_steps", "100", "--max_steps", "16", "--dataloader_workers", "2"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("streaming", [False, True])
def test_a_loader_that_dies_ends_the_run_with_one_line_and_it_goes_on(prepared, tmp_path, streaming):
    words = [*SMALL, *WORDS]
    if streaming:
        words += ["--source", "prepared", "--data_path", prepared, "--streaming", "true"]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run = ScriptRun(tmp_path / "first", "train", *words, "--output_dir", whole)
    assert run.wait() == 0, run.text()
    run = ScriptRun(tmp_path / "second", "train", *words, "--output_dir", folder)
    wait_until(lambda: steps_made(folder) >= 3, run)
    process = kill_a_loader(run)
    assert run.wait(60) == 1, run.text()
    assert "error: a loader's process has died" in run.text() and str(process) in run.text()
    assert "--resume goes on from the last checkpoint" in run.text() and "Traceback" not in run.text()
    made = steps_made(folder)
    assert made < 16
    run = ScriptRun(tmp_path / "third", "train", *words, "--output_dir", folder, "--resume")
    assert run.wait() == 0, run.text()
    assert step_of(run.text()) >= made - 2
    assert same_weights(folder / "last", whole / "last")
