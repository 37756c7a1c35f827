"""Training with loader processes that is killed again and again, by the clock, and is started by the same command."""

from __future__ import annotations

import random
import time

import psutil
import pytest

from fault_runs import SMALL, ScriptRun, assert_whole, same_weights, step_of, steps_made

KILLS, SAVE_STEPS = 6, 2
WORDS = [*SMALL, "--save_steps", SAVE_STEPS, "--eval_steps", 6, "--max_steps", 24, "--dataloader_workers", 2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, and that keeps all its checkpoints."""
    notes = tmp_path_factory.mktemp("whole")
    run = ScriptRun(notes, "train", *WORDS, "--keep_checkpoints", 99, "--output_dir", notes / "run")
    assert run.wait() == 0, run.text()
    return notes / "run"


def wait_for_a_moment(run: ScriptRun, folder, step: int, chance: random.Random) -> None:
    """Waits for a random moment: after `step`, or in the start where that has been made before."""
    if steps_made(folder) >= step:
        time.sleep(chance.uniform(0, 1))
        return
    while steps_made(folder) < step and run.process.exitcode is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.2))


def test_a_run_that_is_killed_at_random_times_loses_at_most_the_steps_since_its_checkpoint(whole, tmp_path):
    folder, chance, kills, made = tmp_path / "run", random.Random(5), 0, 0
    for number in range(KILLS):
        run = ScriptRun(tmp_path / f"run-{number}", "train", *WORDS, "--output_dir", folder, "--resume")
        wait_for_a_moment(run, folder, made + chance.randrange(3), chance)
        if run.process.exitcode is not None:
            break
        program = psutil.Process(run.process.pid)
        loaders = program.children()
        program.kill()
        assert run.wait() == -9
        kills += 1
        assert not psutil.wait_procs(loaders, timeout=30)[1]  # they notice that the program has gone
        assert step_of(run.text()) >= made - SAVE_STEPS or "going on after" not in run.text()
        made = steps_made(folder)
        assert_whole(folder, whole)
    assert kills >= KILLS - 2
    run = ScriptRun(tmp_path / "last", "train", *WORDS, "--output_dir", folder, "--resume")
    assert run.wait() == 0, run.text()
    assert step_of(run.text()) >= made - SAVE_STEPS
    assert same_weights(folder / "last", whole / "last")
    assert same_weights(folder / "best", whole / "best")
    assert not list(folder.glob(".*"))
