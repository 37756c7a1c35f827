"""A disk that is soon full."""

from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """Gives a function that makes a disk of some bytes, or gives the one that there is another size."""
    place = tmp_path / "disk"

    def resize(size: int):
        there = place.is_dir()
        place.mkdir(exist_ok=True)
        options = f"remount,size={size}" if there else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            place.rmdir()
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        return place

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command, which makes a small disk")
    yield resize
    if place.is_dir():
        subprocess.run(["umount", "--lazy", place], check=True)
