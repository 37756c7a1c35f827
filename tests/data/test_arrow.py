"""Rows that are mapped from disk."""

from __future__ import annotations

import datasets
import pytest

from maskformer.data.arrow import map_rows

FEATURES = datasets.Features({"name": datasets.Value("string"), "ids": datasets.List(datasets.Value("int64"))})
ROWS = [{"name": f"row {index}", "ids": list(range(index))} for index in range(5)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "maskformer"


def test_rows_come_back_from_a_file_on_disk(cache):
    dataset = map_rows(iter(ROWS), FEATURES)
    assert list(dataset) == ROWS and dataset.features == FEATURES
    assert [entry["filename"] for entry in dataset.cache_files] == [str(path) for path in cache.iterdir()]
    assert list(dataset.to_iterable_dataset(num_shards=2)) == ROWS


def test_the_same_rows_are_kept_once_and_others_apart(cache):
    first, again, other = (map_rows(rows, FEATURES) for rows in (ROWS, ROWS, ROWS[::-1]))
    assert len(list(cache.iterdir())) == 2
    assert list(first) == list(again) == ROWS and list(other) == ROWS[::-1]


def test_an_error_among_the_rows_is_raised_and_leaves_nothing(cache):
    def broken():
        yield ROWS[0]
        raise ValueError("annotation 1 has no 'image_id'")

    with pytest.raises(ValueError, match="annotation 1"):
        map_rows(broken(), FEATURES)
    assert not list(cache.iterdir())
