"""Augmentation against its definition."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from maskformer.data.augmentation import PADDING, Augmentation, largest_share
from maskformer.data.color import jitter_color, scale_and_shift, shift_hue_and_saturation


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


def hues_and_saturations(rgb: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """`rgb` (N, 3) with scaled saturation and turned hue, colour by colour in floating point."""
    out = []
    for color in rgb / 255:
        h, s, v = colorsys.rgb_to_hsv(*color)
        out.append(colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), v))
    return 255 * np.array(out)


@pytest.mark.parametrize(("saturation", "hue"), [(1.0, 0.1), (1.0, -0.1), (0.5, 0.0), (1.5, 0.0), (0.8, 0.07)])
def test_hue_and_saturation_change_as_the_colour_circle_says(saturation, hue):
    colors = np.random.default_rng(0).integers(0, 256, (400, 3)).astype(np.uint8)
    actual = shift_hue_and_saturation(colors[:, None], saturation, hue)[:, 0].astype(float)
    error = np.abs(actual - hues_and_saturations(colors, saturation, hue))
    # One of 256 steps of hue changes a saturated channel by 6; the official conversion has 180 steps.
    assert error.mean() < 1.5 and error.max() < 9, (error.mean(), error.max())


def test_brightness_and_contrast_are_linear_and_clipped():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for scale, shift in ((1.0, 20.5), (1.0, -31.2), (0.5, 0.0), (1.43, 0.0)):
        expected = np.clip(values.astype(np.float64) * scale + shift, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(scale_and_shift(values, scale, shift), expected)


def test_colour_jitter_draws_every_operation_half_of_the_time_within_its_bounds():
    grey = np.full((1, 1, 3), 100, np.uint8)
    values = np.array([jitter_color(grey, np.random.default_rng(seed))[0, 0] for seed in range(2000)])
    assert (values.max(1) - values.min(1) <= 1).all()  # grey has no hue to turn
    assert values.min() >= int((100 - 32) * 0.5) - 1 and values.max() <= (100 + 32) * 1.5 + 1
    assert abs((values[:, 0] == 100).mean() - 0.25) < 0.04  # neither brightness nor contrast
    saturated = np.array([[[130, 80, 80]]], np.uint8)  # nothing is clipped, which would turn its hue
    hues = []
    for seed in range(2000):
        red, green, blue = jitter_color(saturated, np.random.default_rng(seed))[0, 0] / 255
        hues.append((colorsys.rgb_to_hsv(red, green, blue)[0] + 0.5) % 1 - 0.5)
    assert abs((np.abs(hues) < 0.01).mean() - 0.5 - 0.5 * 0.1) < 0.05  # hue turned half of the time, uniformly
    assert 0.09 < max(hues) < 0.115 and -0.115 < min(hues) < -0.09, (max(hues), min(hues))  # by at most 18 of 180


def test_stray_light_is_a_smooth_patch_added_half_of_the_time():
    dark = np.full((40, 60, 3), 10, np.uint8)
    augmentation = Augmentation(horizontal_flip=False, stray_light=True)
    example = {"image": dark, "segmentation": np.zeros((40, 60), np.int32), "segments_info": []}
    added = [augmentation(example, np.random.default_rng(seed))["image"].astype(int) - 10 for seed in range(1500)]
    lit = [light for light in added if light.any()]
    assert 0.45 < len(lit) / len(added) < 0.53
    assert max(light.max() for light in lit) <= 64 and min(light.min() for light in lit) >= 0
    assert max(np.abs(np.diff(light[..., 0], axis=axis)).max() for light in lit for axis in (0, 1)) <= 4  # smooth
    assert all((light == light[..., :1]).all() for light in lit)  # white
    brightest = [np.unravel_index(light[..., 0].argmax(), (40, 60)) for light in lit]
    assert len(set(brightest)) > 50
    saturated = np.full((40, 60, 3), 250, np.uint8)
    out = augmentation({**example, "image": saturated}, np.random.default_rng(1))["image"]
    assert out.min() >= 250  # nothing wraps around


def test_the_same_random_numbers_give_the_same_example():
    augmentation = Augmentation(shortest_edges=[16, 24], crop_size=[16, 16], color_jitter=True, stray_light=True)
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


def as_planes(example: dict) -> dict:
    """The same segments in three maps of their own."""
    planes = [np.where(example["segmentation"] == i, i, 0).astype(np.int32) for i in (1, 2, 3)]
    return {**example, "segmentation": np.stack(planes)}  # (3, H, W)


@pytest.mark.parametrize("seed", range(12))
def test_segments_that_overlap_are_augmented_like_those_that_do_not(seed):
    augmentation = Augmentation(
        detr_crop=[8, 12], shortest_edges=[16, 24], crop_size=[20, 20], vertical_flip=True, rotate=True,
        color_jitter=True, stray_light=True, single_category_max_area=0.6,
    )  # fmt: skip
    example = make_example()
    flat = augmentation(example, np.random.default_rng(seed))
    planes = augmentation(as_planes(example), np.random.default_rng(seed))
    np.testing.assert_array_equal(planes["image"], flat["image"])
    assert planes["segmentation"].shape == (3, 20, 20)
    np.testing.assert_array_equal(planes["segmentation"].sum(0), flat["segmentation"])


def test_the_original_is_left_as_it_was():
    example = make_example()
    before = {key: example[key].copy() for key in ("image", "segmentation")}
    light = {"color_jitter": True, "stray_light": True}
    augmentation = Augmentation(shortest_edges=[10], crop_size=[64, 64], rotate=True, **light)
    augmentation(example, np.random.default_rng(0))
    for key, value in before.items():
        np.testing.assert_array_equal(example[key], value)


def test_detrs_crop_is_taken_half_of_the_time_from_resized_images():
    random = np.random.default_rng(3)
    height, width = 250, 300
    column, row = np.meshgrid(np.arange(width) * 255 // width, np.arange(height) * 255 // height)
    image = np.stack((column, row, row * 0), axis=2).astype(np.uint8)  # says where it has been
    example = {"image": image, "segmentation": np.zeros((height, width), np.int32), "segments_info": [], "image_id": ""}
    augmentation = Augmentation(detr_crop=[384, 600], horizontal_flip=False)
    sizes, scales = [], set()
    for _ in range(400):
        out = augmentation(example, random)["image"]
        if out.shape == image.shape:
            np.testing.assert_array_equal(out, image)
            continue
        sizes.append(out.shape[:2])
        # The slope of the column channel tells the scale at which the image was cut.
        slope = (float(out[5, -10, 0]) - float(out[5, 10, 0])) / (out.shape[1] - 20)
        scales.add(round(255 / width / slope * height / 100))
    assert abs(len(sizes) / 400 - 0.5) < 0.08
    assert scales == {4, 5, 6}  # shortest edges of 400, 500, 600
    heights, widths = np.array(sizes).T
    assert heights.min() >= 384 and heights.max() <= 600 and heights.max() > 580
    assert widths.min() >= 384 and widths.max() <= 600 and widths.max() > 580


def test_detrs_crop_is_cut_before_the_image_gets_its_size_and_small_images_are_taken_whole():
    augmentation = Augmentation(detr_crop=[384, 600], shortest_edges=[32], longest_edge=64)
    sizes = {augmentation(make_example(), np.random.default_rng(seed))["image"].shape[:2] for seed in range(60)}
    assert (32, 48) in sizes and len(sizes) > 5
    assert all(min(size) == 32 or max(size) == 64 for size in sizes)


def test_the_share_of_a_label_is_counted_over_its_segments_and_void_is_left_out():
    segmentation = np.array([[1, 1, 2, 0], [3, 3, 3, 0]])
    infos = [{"id": 1, "label_id": 5}, {"id": 2, "label_id": 6}, {"id": 3, "label_id": 5}, {"id": 9, "label_id": 7}]
    assert largest_share(segmentation, infos) == 5 / 6
    assert largest_share(np.where(segmentation == 2, 0, segmentation), infos) == 1.0  # one label only
    assert largest_share(np.zeros((2, 2), int), infos) == 1.0
