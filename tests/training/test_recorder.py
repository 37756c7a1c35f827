"""Which checkpoints a run keeps, and what each process writes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from maskformer.training.recorder import Recorder, go_back, keep_checkpoints, products


def save(folder, step: int, count: int) -> None:
    """A checkpoint of step `step`, of which `count` are kept."""
    (folder / "last").mkdir(exist_ok=True)
    (folder / "last" / "step").unlink(missing_ok=True)
    (folder / "last" / "step").write_text(str(step))
    keep_checkpoints(folder, step, count)


def kept(folder) -> dict[str, str]:
    """The checkpoints in `folder` and the steps that they are of."""
    return {path.name: (path / "step").read_text() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_newest_checkpoints_are_kept(tmp_path, count):
    for step in range(1, 8):
        save(tmp_path, step, count)
        first = max(1, step - count + 1) if count > 1 else step + 1
        assert kept(tmp_path) == {f"checkpoint-{s:08d}": str(s) for s in range(first, step + 1)} | {"last": str(step)}


def test_going_back_leaves_nothing_of_later_steps(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, 3)
    go_back(tmp_path, tmp_path / "last", 3)
    assert len(kept(tmp_path)) == 4
    go_back(tmp_path, tmp_path / "checkpoint-00000002", 2)
    assert kept(tmp_path) == {"checkpoint-00000001": "1", "checkpoint-00000002": "2", "last": "2"}


@pytest.mark.parametrize(("processes", "name"), [(1, "not_finite.pt"), (4, "not_finite-2.pt")])
def test_each_process_has_its_own_file_of_what_was_not_finite(tmp_path, processes, name):
    accelerator = SimpleNamespace(num_processes=processes, process_index=2)
    recorder = Recorder(accelerator, None, None, None, tmp_path, False)
    recorder.not_finite.touch()
    assert [path.name for path in products(tmp_path)] == [name]
