"""Pairs of values at the same pixels, against a dictionary filled pixel by pixel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from maskformer.metrics import pixel_pairs as module
from maskformer.metrics.pixel_pairs import pixel_pairs


def counted(predicted: np.ndarray, true: np.ndarray) -> Counter:
    total = Counter()
    for one, other, pixels in zip(*(x.tolist() for x in pixel_pairs(predicted, true, "it")), strict=True):
        total[one, other] += pixels
    return total


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, bool])
@pytest.mark.parametrize("block", [1, 16])
def test_noise_and_large_areas_of_all_types(monkeypatch, dtype, block):
    draw = np.random.default_rng(block)
    maps = [draw.integers(0, 2 if dtype is bool else 200, (4, 6)).repeat(block, 0).repeat(block, 1) for _ in range(2)]
    maps = [labels.astype(dtype) for labels in maps]
    expected = Counter(zip(*(labels.ravel().tolist() for labels in maps), strict=True))
    paths = []
    for name in ("_counted_cells", "_runs"):
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *maps, name=name, run=run: paths.append(name) or run(*maps))
    assert counted(*maps) == expected
    assert paths == ["_counted_cells" if block == 1 else "_runs"]


@pytest.mark.parametrize("strange", [-5, 2**40])
def test_noise_with_values_that_no_table_holds(strange):
    draw = np.random.default_rng(0)
    predicted, true = draw.integers(0, 9, (2, 20, 30))
    predicted[7, 3] = strange
    assert counted(predicted, true) == Counter(zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True))


def test_maps_of_one_pixel_and_of_none():
    assert counted(np.array([[3]]), np.array([[4]])) == {(3, 4): 1}
    assert counted(np.zeros((0, 5), int), np.zeros((0, 5), int)) == {}


def test_transposed_maps():
    draw = np.random.default_rng(1)
    predicted, true = draw.integers(0, 9, (2, 20, 30))
    assert counted(predicted.T, true.T) == counted(predicted, true)
