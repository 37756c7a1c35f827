"""A disk that is full in the middle of a training: one line says where, and nothing that was saved before is lost."""

from __future__ import annotations

import pytest

from fault_runs import SMALL, ScriptRun, assert_whole, complete_rows, same_weights, step_of, steps_made

# `last` has 5.8 MB and `best` 2.1; while one is replaced, it is there twice.
WORDS = [*SMALL, "--save_steps", "1", "--eval_steps", "3", "--max_steps", "4"]
ROOM = 64 << 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that had room, and kept all its checkpoints."""
    notes = tmp_path_factory.mktemp("whole")
    run = ScriptRun(notes, "train", *WORDS, "--keep_checkpoints", "9", "--output_dir", notes / "run")
    assert run.wait() == 0, run.text()
    return notes / "run"


@pytest.mark.parametrize(
    ("size", "name", "step"),
    [
        (4 << 10, "history.jsonl", 0),
        (1 << 20, "last", 0),  # no room for the weights
        (4 << 20, "last", 0),  # nor for the state of the optimiser
        (8 << 20, "last", 1),  # nor for another checkpoint beside the first
        (13 << 20, "last", 3),  # nor for another one beside it and the best model
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(whole, small_disk, tmp_path, size, name, step):
    folder = small_disk(size) / "run"
    run = ScriptRun(tmp_path / "first", "train", *WORDS, "--output_dir", folder)
    assert run.wait() == 1, run.text()
    assert f"error: {folder / name}: cannot be written, the disk is full" in run.text()
    assert "Traceback" not in run.text() and run.text().count("error:") == 1
    assert not list(folder.glob(".*"))  # what was half written takes no room
    assert_whole(folder, whole)
    made = steps_made(folder)
    small_disk(ROOM)
    run = ScriptRun(tmp_path / "second", "train", *WORDS, "--output_dir", folder, "--resume")
    assert run.wait() == 0, run.text()
    assert step_of(run.text()) == step >= made - 1
    assert same_weights(folder / "last", whole / "last")
    assert [row["step"] for row in complete_rows(folder / "history.jsonl") if "loss" in row][-4 + step :] == list(
        range(step + 1, 5)
    )


def test_a_disk_that_is_full_from_the_start(small_disk, tmp_path):
    folder = small_disk(4 << 10)
    (folder / "other").write_bytes(bytes(4 << 10))
    run = ScriptRun(tmp_path / "first", "train", *WORDS, "--output_dir", folder / "run")
    assert run.wait() == 2, run.text()
    assert "recipe.yaml: cannot be written, the disk is full; make room: 0.0 MB are free" in run.text()
    assert "Traceback" not in run.text()
