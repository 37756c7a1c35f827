"""`scripts/prepare_dataset.py`, killed at counted changes of its files and at random times, with several processes."""

from __future__ import annotations

import contextlib
import random
import time

import psutil
import pytest

from fault_runs import Kill, ScriptRun, some_of
from folders import write_panoptic_folder
from maskformer.data.preparation import verify
from maskformer.data.prepared import load_prepared

POINTS, TIMES, COUNT = 8, 3, 12
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("panoptic") / "data", count=COUNT)


def words(data, out, *more) -> list:
    start = ["--source", "panoptic_folder", "--input", data, "--split", "train", "--num_shards", 4]
    return [*start, "--output_dir", out, *more]


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(panoptic, tmp_path_factory):
    """The files of a run that nothing stopped, what it changed in its folder, and how long it took."""
    notes = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    run = ScriptRun(notes, "prepare_dataset", *words(panoptic, notes / "out"), watched=notes / "out")
    assert run.wait() == 0, run.text()
    return contents(notes / "out"), run.changes(), time.monotonic() - began


def assert_whole_or_refused(folder) -> None:
    """Data are there with their manifest, and then all of them, or are refused."""
    if (folder / "manifest.json").exists():
        verify(folder)
        assert len(load_prepared(folder, "train")) == COUNT
    else:
        with pytest.raises(ValueError, match=r"manifest\.json: there is no such file"):
            load_prepared(folder, "train")


@pytest.mark.parametrize("point", range(POINTS))
def test_a_run_that_is_killed_at_a_change_of_its_files(panoptic, whole, tmp_path, point):
    expected, changes, _ = whole
    folder, kill = tmp_path / "out", Kill(some_of(len(changes), POINTS, seed=3)[point])
    run = ScriptRun(tmp_path / "first", "prepare_dataset", *words(panoptic, folder), watched=folder, kill=kill)
    assert run.wait() == -9, run.text()
    assert run.changes() == changes[: kill.event + 1]
    assert_whole_or_refused(folder)
    run = ScriptRun(tmp_path / "second", "prepare_dataset", *words(panoptic, folder))
    assert run.wait() == 0, run.text()
    assert contents(folder) == expected


def test_a_run_that_is_killed_at_random_times_with_its_processes_left_behind(panoptic, whole, tmp_path):
    """Only the program is killed; its processes must end by themselves, or they would write into the next run's."""
    folder, chance = tmp_path / "out", random.Random(4)
    for number in range(TIMES):
        run = ScriptRun(tmp_path / f"run-{number}", "prepare_dataset", *words(panoptic, folder, "--workers", 2))
        time.sleep(chance.uniform(0, 1 + 2 * number))
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            program = psutil.Process(run.process.pid)
            children = program.children(recursive=True)
            program.kill()
        run.wait()
        assert not psutil.wait_procs(children, timeout=30)[1]
        if folder.exists():
            assert_whole_or_refused(folder)
    run = ScriptRun(tmp_path / "last", "prepare_dataset", *words(panoptic, folder, "--workers", 2))
    assert run.wait() == 0, run.text()
    assert contents(folder) == whole[0]
