"""Fixtures of the tests of datasets of the Hub."""

from __future__ import annotations

import datasets
import pytest

from folders import write_json
from hub_trees import MAPS, NAMES, write_semantic


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The caches of `datasets`, of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "cache" / "downloads"))
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", str(tmp_path / "cache" / "extracted"))
    datasets.disable_progress_bars()


@pytest.fixture
def repository(tmp_path):
    """A repository with four images and label maps, in two files, and an `id2label.json`."""
    folder = write_semantic(tmp_path / "repository", MAPS, files=2)
    write_json(folder / "id2label.json", NAMES)
    return folder
