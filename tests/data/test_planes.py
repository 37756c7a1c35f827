"""Packing of masks into planes."""

from __future__ import annotations

import numpy as np
import pytest

from maskformer.data.planes import pack


def greedy(masks, shape):
    """The first plane in which every pixel is free, pixel by pixel."""
    planes = []
    for segment, mask in masks:
        pixels = [tuple(pixel) for pixel in np.argwhere(mask)]
        if not pixels:
            continue
        for plane in planes:
            if all(pixel not in plane for pixel in pixels):
                break
        else:
            plane = {}
            planes.append(plane)
        plane.update(dict.fromkeys(pixels, segment))
    maps = np.zeros((max(len(planes), 1), *shape), np.int32)
    for index, plane in enumerate(planes):
        for (y, x), segment in plane.items():
            maps[index, y, x] = segment
    return maps if len(planes) > 1 else maps[0]


def random_masks(seed: int):
    """Up to eight masks, some without a pixel, some of them rectangles and some scattered."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 9, 2))
    for segment in random.permutation(np.arange(1, 1 + random.integers(0, 9))) * 7:
        mask = random.random(shape) < random.choice([0, 0.1, 0.5, 1])
        mask[: random.integers(0, shape[0] + 1)] = False
        mask[:, : random.integers(0, shape[1] + 1)] = False
        yield int(segment), mask


@pytest.mark.parametrize("seed", range(60))
def test_each_segment_is_whole_in_the_first_plane_that_is_free(seed):
    masks = list(random_masks(seed))
    shape = masks[0][1].shape if masks else (3, 4)
    maps = pack(masks, shape)
    assert maps.dtype == np.int32
    np.testing.assert_array_equal(maps, greedy(masks, shape))
    planes = maps if maps.ndim == 3 else maps[None]
    for segment, mask in masks:
        holding = [plane == segment for plane in planes if (plane == segment).any()]
        assert len(holding) == int(mask.any())
        for held in holding:
            np.testing.assert_array_equal(held, mask)


def test_segments_that_only_touch_share_a_map_and_none_is_a_map_of_void():
    mask = np.array([[True, False], [True, False]])
    np.testing.assert_array_equal(pack([(3, mask), (1, ~mask)], (2, 2)), [[3, 1], [3, 1]])
    np.testing.assert_array_equal(pack([(3, mask), (1, mask)], (2, 2)), [[[3, 0], [3, 0]], [[1, 0], [1, 0]]])
    assert pack([], (2, 5)).shape == (2, 5) and not pack([], (2, 5)).any()
