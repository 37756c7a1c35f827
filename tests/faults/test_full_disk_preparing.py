"""A disk that is full while data are prepared: finished shards are kept, and with room the run goes on to the same."""

from __future__ import annotations

import pytest

from fault_runs import ScriptRun
from folders import write_panoptic_folder
from maskformer.data.preparation import verify
from maskformer.data.prepared import load_prepared

SHARDS = 6
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("panoptic") / "data", count=24)


def words(data, out, workers=1) -> list:
    start = ["--source", "panoptic_folder", "--input", data, "--split", "train", "--num_shards", SHARDS]
    return [*start, "--workers", workers, "--output_dir", out]


@pytest.fixture(scope="module")
def whole(panoptic, tmp_path_factory):
    """The files of a run that had room."""
    notes = tmp_path_factory.mktemp("whole")
    run = ScriptRun(notes, "prepare_dataset", *words(panoptic, notes / "out"))
    assert run.wait() == 0, run.text()
    return {path.name: path.read_bytes() for path in (notes / "out").iterdir()}


@pytest.mark.parametrize(("share", "workers"), [(0.0, 1), (0.1, 1), (0.6, 1), (0.6, 2)])
def test_a_full_disk_is_named_and_preparing_goes_on_when_there_is_room(
    panoptic, whole, small_disk, tmp_path, share, workers
):
    size = sum(len(content) for content in whole.values())
    folder = small_disk(max(4 << 10, int(share * size))) / "out"
    run = ScriptRun(tmp_path / "first", "prepare_dataset", *words(panoptic, folder, workers))
    assert run.wait() == 1, run.text()
    assert f"error: {folder}" in run.text() and ": cannot be written, the disk is full" in run.text()
    assert "Traceback" not in run.text() and run.text().count("error:") == 1
    with pytest.raises(ValueError, match=r"manifest\.json"):
        load_prepared(folder, "train")
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(done) >= int(share * SHARDS) - workers
    assert not list(folder.glob(".*.new"))
    small_disk(4 * size)
    run = ScriptRun(tmp_path / "second", "prepare_dataset", *words(panoptic, folder, workers))
    assert run.wait() == 0, run.text()
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was finished is not made again
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    verify(folder)
