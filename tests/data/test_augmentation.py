"""Augmentation against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskformer.data.augmentation import PADDING, Augmentation
from maskformer.data.color import jitter_color, shift_hue_and_saturation


def make_example(height: int = 20, width: int = 30) -> dict:
    """An image whose red channel repeats the segment ids, so that the two can be compared after any geometry."""
    random = np.random.default_rng(0)
    segmentation = random.integers(0, 4, (height // 5, width // 5)).repeat(5, 0).repeat(5, 1).astype(np.int32)
    image = np.stack((segmentation * 50, segmentation * 0 + 7, segmentation * 0 + 9), axis=2).astype(np.uint8)
    infos = [{"id": i, "label_id": i - 1, "iscrowd": 0} for i in (1, 2, 3)]
    return {"image": image, "segmentation": segmentation, "segments_info": infos, "image_id": "0"}


@pytest.mark.parametrize("seed", range(20))
def test_image_and_segments_move_together(seed):
    augmentation = Augmentation(crop_size=[16, 16], vertical_flip=True, rotate=True)
    out = augmentation(make_example(), np.random.default_rng(seed))
    assert out["image"].shape == (16, 16, 3) and out["segmentation"].shape == (16, 16)
    np.testing.assert_array_equal(out["image"][..., 0], out["segmentation"] * 50)


def test_every_flip_and_turn_occurs_and_nothing_else():
    augmentation = Augmentation(vertical_flip=True, rotate=True)
    example = make_example(20, 20)
    seen = {augmentation(example, np.random.default_rng(seed))["segmentation"].tobytes() for seed in range(200)}
    turned = [np.rot90(example["segmentation"], turns) for turns in range(4)]
    assert seen == {view.tobytes() for turn in turned for view in (turn, turn[:, ::-1])}


def test_small_images_are_padded_with_grey_and_void():
    out = Augmentation(crop_size=[32, 40], horizontal_flip=False)(make_example(), np.random.default_rng(0))
    assert (out["image"][20:] == PADDING).all() and (out["image"][:, 30:] == PADDING).all()
    assert not out["segmentation"][20:].any() and not out["segmentation"][:, 30:].any()


def test_the_shortest_edge_is_one_of_the_given():
    augmentation = Augmentation(shortest_edges=[10, 40], longest_edge=50)
    sizes = {augmentation(make_example(), np.random.default_rng(seed))["segmentation"].shape for seed in range(20)}
    assert sizes == {(10, 15), (33, 50)}


def test_crops_avoid_a_single_label_where_they_can():
    example = make_example(40, 40)
    example["segmentation"] = np.ones((40, 40), np.int32)
    example["segmentation"][:, 30:] = 2
    augmentation = Augmentation(crop_size=[20, 20], single_category_max_area=0.75, horizontal_flip=False)
    shares = []
    for seed in range(30):
        crop = augmentation(example, np.random.default_rng(seed))["segmentation"]
        shares.append(max((crop == 1).mean(), (crop == 2).mean()))
    assert np.mean(np.array(shares) < 0.75) > 0.9


def test_colour_jitter_changes_colours_within_its_bounds_only():
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = np.array([jitter_color(grey, np.random.default_rng(seed))[0, 0] for seed in range(300)])
    assert (values.max(1) - values.min(1) <= 1).all()  # grey has no hue to turn
    assert values.min() >= int((100 - 32) * 0.5) - 1 and values.max() <= (100 + 32) * 1.5 + 1
    assert len(np.unique(values[:, 0])) > 50
    red = np.array([[[255, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(shift_hue_and_saturation(red, 1.0, 1 / 3), [[[0, 255, 0]]])
    np.testing.assert_array_equal(shift_hue_and_saturation(red, 0.0, 0.0), [[[255, 255, 255]]])


def test_the_same_random_numbers_give_the_same_example():
    augmentation = Augmentation(shortest_edges=[16, 24], crop_size=[16, 16], color_jitter=True)
    first, second = (augmentation(make_example(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first["image"], second["image"])


@pytest.mark.parametrize("seed", range(12))
def test_crops_that_are_no_square_turn_by_half_turns_only(seed):
    augmentation = Augmentation(crop_size=[15, 25], horizontal_flip=False, rotate=True)
    out = augmentation(make_example(15, 25), np.random.default_rng(seed))
    original = make_example(15, 25)["segmentation"]
    assert any(np.array_equal(out["segmentation"], view) for view in (original, np.rot90(original, 2)))
    np.testing.assert_array_equal(out["image"][..., 0], out["segmentation"] * 50)


@pytest.mark.parametrize("size", [(1, 20), (20, 1), (1, 1)])
def test_images_of_one_pixel_in_an_edge_stay_fit_for_pytorch(size):
    example = make_example(20, 20)
    example |= {key: example[key][: size[0], : size[1]] for key in ("image", "segmentation")}
    for seed in range(8):
        out = Augmentation(vertical_flip=True, rotate=True)(example, np.random.default_rng(seed))
        assert sorted(torch.from_numpy(out["segmentation"]).shape) == sorted(size)
        assert torch.from_numpy(out["image"]).shape[:2] == out["segmentation"].shape
