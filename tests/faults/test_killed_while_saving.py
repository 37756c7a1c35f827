"""Training that is killed while it changes its folder: at counted changes of files, and in the middle of large ones."""

from __future__ import annotations

import random

import pytest

from fault_runs import SMALL, Kill, ScriptRun, assert_whole, same_weights, some_of, step_of, steps_made
from maskformer.training.model_folder import load_model_folder
from script_runs import TINY

WORDS = [*SMALL, "--save_steps", "1", "--eval_steps", "2", "--max_steps", "4", "--keep_checkpoints"]
POINTS, LARGE_POINTS = 10, 4
LARGE = ["--recipe", "shapes/demo", *TINY, "--save_steps", "1", "--eval_steps", "9", "--max_steps", "2"]  # 134 MB
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, and that keeps all its checkpoints."""
    notes = tmp_path_factory.mktemp("whole")
    run = ScriptRun(notes, "train", *WORDS, "9", "--output_dir", notes / "run")
    assert run.wait() == 0, run.text()
    return notes / "run"


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """What a run that keeps two checkpoints changes in its folder, in order."""
    notes = tmp_path_factory.mktemp("changes")
    run = ScriptRun(notes, "train", *WORDS, "2", "--output_dir", notes / "run", watched=notes / "run")
    assert run.wait() == 0, run.text()
    return run.changes()


def resumed(notes, words, folder, whole) -> None:
    """Resumes a run that was killed: it loses no more than the step after its last checkpoint, and ends the same."""
    made = steps_made(folder)
    run = ScriptRun(notes, "train", *words, "--output_dir", folder, "--resume")
    assert run.wait() == 0, run.text()
    assert step_of(run.text()) >= made - 1
    assert same_weights(folder / "last", whole / "last")
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("point", range(POINTS))
def test_a_run_that_is_killed_at_a_change_of_its_files(whole, changes, tmp_path, point):
    """In every part of a run, in each of which the change is a random one."""
    folder = tmp_path / "run"
    kill = Kill(some_of(len(changes), POINTS, seed=1)[point])
    run = ScriptRun(tmp_path / "first", "train", *WORDS, "2", "--output_dir", folder, watched=folder, kill=kill)
    assert run.wait() == -9, run.text()
    assert run.changes() == changes[: kill.event + 1]
    assert_whole(folder, whole)
    resumed(tmp_path / "second", [*WORDS, "2"], folder, whole)
    assert (folder / "best" / "metrics.json").read_text() == (whole / "best" / "metrics.json").read_text()


@pytest.mark.parametrize("kind", ["rename", "rmdir"])
@pytest.mark.parametrize("name", ["last", "best", "checkpoint"])
def test_a_run_that_is_killed_while_folders_change_places(whole, changes, tmp_path, kind, name):
    """Right before the folder in its place goes, and while what has gone is deleted."""
    folder = tmp_path / "run"
    found = [number for number, change in enumerate(changes) if change.startswith(f"os.{kind} ") and name in change]
    kill = Kill(random.Random(2).choice(found))
    run = ScriptRun(tmp_path / "first", "train", *WORDS, "2", "--output_dir", folder, watched=folder, kill=kill)
    assert run.wait() == -9, run.text()
    assert_whole(folder, whole)
    resumed(tmp_path / "second", [*WORDS, "2"], folder, whole)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run of a larger model that nothing stopped."""
    notes = tmp_path_factory.mktemp("large")
    run = ScriptRun(notes, "train", *LARGE, "--output_dir", notes / "run", watched=notes / "run")
    assert run.wait() == 0, run.text()
    return notes / "run", run.changes()


@pytest.mark.parametrize("point", range(LARGE_POINTS))
def test_a_run_that_is_killed_in_the_middle_of_a_large_file(large, tmp_path, point):
    """Some milliseconds after the file before it was begun, or itself: weights come from Rust, the state from C++."""
    whole, changes = large
    folder = tmp_path / "run"
    state = [number for number, change in enumerate(changes) if change.endswith("training_state.pt")][1]
    delay = random.Random(point).uniform(0.005, 0.05)
    kill = Kill(state, delay) if point % 2 else Kill(state - 2, delay)
    run = ScriptRun(tmp_path / "first", "train", *LARGE, "--output_dir", folder, watched=folder, kill=kill)
    assert run.wait() == -9, run.text()
    load_model_folder(folder / "last")
    resumed(tmp_path / "second", LARGE, folder, whole)
