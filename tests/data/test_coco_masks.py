"""Polygons and run lengths, against pycocotools' own encoder and pixels worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from coco_trees import run_lengths
from maskformer.data.coco_masks import polygons_mask, read_run_lengths, run_lengths_mask


@pytest.mark.parametrize("seed", range(30))
def test_run_lengths_of_random_masks_come_back(seed):
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 60, 2).tolist())
    mask = random.random(shape) < random.choice([0, 0.01, 0.5, 0.99, 1])
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    counts = run_lengths(mask)
    assert read_run_lengths(text) == counts
    np.testing.assert_array_equal(run_lengths_mask(counts, shape, shape), mask)


def test_run_lengths_go_down_the_columns():
    expected = [[0, 1, 0], [1, 0, 0]]  # one pixel outside, two inside, three outside
    np.testing.assert_array_equal(run_lengths_mask([1, 2, 3], [2, 3], (2, 3)), expected)


@pytest.mark.parametrize("text", ["é", "0 1", "\x00", "P", "PPPPPPPPPP0", "~~~~"])
def test_text_that_is_no_rle_is_refused(text):
    with pytest.raises(ValueError, match="does not decode"):
        read_run_lengths(text)


@pytest.mark.parametrize("counts", [[], [5], [7], [3, 4], [-1, 7], [2**62, 2**62, 2**62, 2**62, 6]])
def test_runs_that_do_not_fill_the_image_are_refused(counts):
    with pytest.raises(ValueError, match=r"does not decode: the runs must fill the 6 pixels of \[2, 3\]"):
        run_lengths_mask(counts, [2, 3], (2, 3))


def test_an_rle_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"size \[3, 2\], but the image has \[2, 3\]; both are height, width"):
        run_lengths_mask([6], [3, 2], (2, 3))


def test_polygons_are_filled_and_united():
    mask = polygons_mask([[1, 0, 4, 0, 4, 2, 1, 2], [3, 1, 5, 1, 5, 3, 3, 3]], (4, 6))
    expected = np.zeros((4, 6), bool)
    expected[0:2, 1:4] = True
    expected[1:3, 3:5] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([[1, 1, 5, 1]], "polygon 0 has 4 numbers; .* at least three points"),
        ([[0, 0, 5, 0, 5, 5], [1, 1, 2, 2, 3, 3, 4]], "polygon 1 has 7 numbers"),
        ([[]], "polygon 0 has 0 numbers"),
        ([[0, 0, 1e9, 0, 5, 5]], r"polygon 0 reaches from \(0.0, 0.0\) to \(1000000000.0, 5.0\), outside of the image"),
        ([[0, 0, float("nan"), 0, 5, 5]], "polygon 0 reaches from"),
        ([[0.1, 0.1, 0.7, 0.1, 0.7, 0.9]], "no coordinate is above 1; they must be pixels, not fractions"),
    ],
)
def test_polygons_that_are_none_are_refused(polygons, message):
    with pytest.raises(ValueError, match=message):
        polygons_mask(polygons, (6, 8))


def test_polygons_that_reach_a_little_over_the_edge_are_cut_off():
    mask = polygons_mask([[-3, -3, 2, -3, 2, 9, -3, 9]], (5, 4))
    np.testing.assert_array_equal(mask, np.arange(4) < np.full((5, 1), 2))
