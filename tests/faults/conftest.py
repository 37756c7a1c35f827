"""A disk that is soon full, and prepared data."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from script_runs import run


@pytest.fixture
def small_disk(tmp_path):
    """Gives a function that makes a disk of some bytes, or gives the one that there is another size."""
    place = tmp_path / "disk"

    def resize(size: int):
        there = place.is_dir()
        place.mkdir(exist_ok=True)
        options = f"remount,size={size}" if there else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode and re.search("permission denied|not permitted|superuser", done.stderr):
            place.rmdir()
            pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr  # anything else is no reason to skip
        return place

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command, which makes a small disk")
    yield resize
    if place.is_dir():
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Prepared scenes in four shards, of which a run can read shard by shard; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared") / "out"
    sizes = ["--train_scenes", 12, "--validation_scenes", 1, "--scene_size", 64]
    run("prepare_dataset", "--source", "shapes", *sizes, "--num_shards", 4, "--output_dir", folder)
    return folder
