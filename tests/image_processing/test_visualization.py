"""Pictures of segmentations: what is coloured, outlined, named and left alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskformer.image_processing.visualization import draw_segments, draw_semantic, side_by_side

NAMES = ["sky", "cat"]
COLORS = [(200, 30, 30), (30, 200, 30)]
GRAY = np.full((40, 60, 3), 100, np.uint8)


def scene() -> dict:
    """Sky on top, two touching cats below it, void at the bottom and the right."""
    segmentation = np.zeros((40, 60), np.int32)
    segmentation[:12] = 7
    segmentation[12:30, :20] = 3
    segmentation[12:30, 20:40] = 9
    segments = [{"id": 7, "label_id": 0}, {"id": 3, "label_id": 1}, {"id": 9, "label_id": 1, "score": 0.9}]
    return {"segmentation": segmentation, "segments_info": segments}


def drawn(image=GRAY, panoptic=None, **options) -> np.ndarray:
    options = {"colors": COLORS, "labels": False} | options
    return np.asarray(draw_segments(image, panoptic or scene(), NAMES, **options))


def test_returns_an_rgb_picture_of_the_images_size_and_leaves_the_image_alone():
    image = GRAY.copy()
    picture = draw_segments(image, scene(), NAMES)
    assert picture.mode == "RGB" and picture.size == (60, 40)
    np.testing.assert_array_equal(image, GRAY)


def test_void_shows_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    void = scene()["segmentation"] == 0
    np.testing.assert_array_equal(drawn(image)[void], image[void])


def test_the_first_segment_of_a_class_has_its_color_and_the_next_a_shade_of_it():
    picture = drawn(outlines=False, alpha=1.0)
    assert tuple(picture[5, 5]) == COLORS[0]
    assert tuple(picture[20, 5]) == COLORS[1]
    other = picture[20, 30].astype(int)
    assert np.abs(other - COLORS[1]).max() > 20, "touching instances look alike"
    assert other.argmax() == 1, "the shade is still a green"


def test_alpha_blends_color_and_image():
    assert tuple(drawn(outlines=False, alpha=0.25)[5, 5]) == (125, 82, 82)  # 100 + (color - 100) / 4, ties to even


def test_outlines_are_only_at_borders():
    changed = (drawn(outlines=True) != drawn(outlines=False)).any(axis=2)
    segmentation = scene()["segmentation"]
    padded = np.pad(segmentation, 1, mode="edge")
    shifts = [padded[i : i + 40, j : j + 60] for i in range(3) for j in range(3)]
    at_border = (np.stack(shifts) != segmentation).any(axis=0) & (segmentation > 0)
    np.testing.assert_array_equal(changed, at_border)


def test_labels_are_written_inside_large_segments_only():
    image = np.full((200, 200, 3), 100, np.uint8)
    segmentation = np.ones((200, 200), np.int32)
    segmentation[5:10, 5:10] = 2
    panoptic = {"segmentation": segmentation, "segments_info": [{"id": 1, "label_id": 0}, {"id": 2, "label_id": 1}]}
    changed = (drawn(image, panoptic, labels=True) != drawn(image, panoptic, labels=False)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 100) < 25 and abs(columns.mean() - 100) < 25
    assert changed.sum() < 0.05 * changed.size
    assert not changed[5:10, 5:10].any()


def test_labels_do_not_cover_each_other():
    image = np.full((120, 600, 3), 255, np.uint8)
    segmentation = np.repeat(np.arange(1, 7, dtype=np.int32), 100)[None].repeat(120, axis=0)  # (120, 600)
    panoptic = {"segmentation": segmentation, "segments_info": [{"id": i, "label_id": 0} for i in range(1, 7)]}
    wide = "a name wider than a segment"
    picture = np.asarray(draw_segments(image, panoptic, [wide], alpha=0, outlines=False))
    assert 80 < picture.min() < 120, "one translucent box leaves white at about 100, two at about 45"
    bare = np.asarray(draw_segments(image, panoptic, [wide * 9], alpha=0, outlines=False))
    np.testing.assert_array_equal(bare, image)


def test_the_same_input_gives_the_same_picture():
    np.testing.assert_array_equal(drawn(labels=True, colors=None), drawn(labels=True, colors=None))


def test_scale_enlarges_the_picture_and_keeps_the_outlines_thin():
    picture = drawn(scale=3, alpha=1.0)
    assert picture.shape == (120, 180, 3)
    assert tuple(picture[34, 5]) == COLORS[0] and tuple(picture[35, 5]) != COLORS[0]


@pytest.mark.parametrize(
    "image",
    [
        GRAY[..., 0],
        GRAY[..., :1],
        Image.fromarray(GRAY),
        Image.fromarray(GRAY[..., 0]),
        Image.fromarray(GRAY).quantize(),
    ],
    ids=["array", "one channel", "PIL", "PIL gray", "PIL palette"],
)
def test_takes_pictures_of_all_kinds(image):
    np.testing.assert_array_equal(drawn(image), drawn(GRAY))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_takes_torch_maps(dtype):
    panoptic = scene() | {"segmentation": torch.from_numpy(scene()["segmentation"]).to(dtype)}
    np.testing.assert_array_equal(drawn(panoptic=panoptic), drawn())


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_takes_tiny_pictures(size):
    panoptic = {"segmentation": np.ones(size, np.int32), "segments_info": [{"id": 1, "label_id": 0}]}
    picture = draw_segments(np.zeros((*size, 3), np.uint8), panoptic, NAMES)
    assert picture.size == size[::-1]


def test_a_picture_without_segments_is_the_image():
    panoptic = {"segmentation": np.full((40, 60), 5), "segments_info": []}
    np.testing.assert_array_equal(drawn(panoptic=panoptic, labels=True), GRAY)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"\(40, 60\).*\(20, 60\)"):
        drawn(GRAY[:20])
    with pytest.raises(TypeError, match="float"):
        drawn(GRAY / 255)
    with pytest.raises(TypeError, match="float"):
        drawn(panoptic=scene() | {"segmentation": np.zeros((40, 60))})
    with pytest.raises(ValueError, match="segment 7 has the label id 5"):
        drawn(panoptic=scene() | {"segments_info": [{"id": 7, "label_id": 5}]})
    with pytest.raises(ValueError, match="no name or no colour"):
        drawn(colors=COLORS[:1])


def test_semantic_maps_color_labels_and_leave_unknown_ids_void():
    label_map = np.zeros((40, 60), np.uint8)
    label_map[:, 20:40] = 1
    label_map[:, 40:] = 255
    options = {"colors": COLORS, "alpha": 1.0, "outlines": False, "labels": False}
    for names in (NAMES, dict(enumerate(NAMES))):
        picture = np.asarray(draw_semantic(GRAY, label_map, names, **options))
        assert tuple(picture[0, 0]) == COLORS[0] and tuple(picture[0, 30]) == COLORS[1]
        np.testing.assert_array_equal(picture[:, 40:], GRAY[:, 40:])
    negative = np.full((40, 60), -1)
    np.testing.assert_array_equal(np.asarray(draw_semantic(GRAY, negative, NAMES)), GRAY)


def test_grids_enlarge_small_pictures_and_fill_rows_in_order():
    red, blue = (Image.new("RGB", (16, 8), color) for color in ("red", "blue"))
    grid = np.asarray(side_by_side([red, blue, blue, red], ["left", "right"]))
    reds, blues = ((grid == color).all(axis=2) for color in ((255, 0, 0), (0, 0, 255)))
    assert reds.sum() == blues.sum() == 2 * 256 * 128
    middle = grid.shape[0] // 2, grid.shape[1] // 2
    assert reds[: middle[0] - 10, : middle[1]].any() and not reds[: middle[0] - 10, middle[1] :].any()


def test_grids_hold_pictures_of_several_shapes_and_row_captions():
    tiles = [np.zeros((10, 300, 3), np.uint8), np.zeros((30, 20), np.uint8)]
    plain = side_by_side(tiles, ["one", "two"])
    assert plain.width > 600 and plain.height > 450
    assert side_by_side(tiles, ["one", "two"], rows=["a row"]).width > plain.width


def test_grids_name_a_wrong_count():
    with pytest.raises(ValueError, match="3 pictures .* 2 columns"):
        side_by_side([GRAY] * 3, ["a", "b"])
    with pytest.raises(ValueError, match="1 row captions .* 2 rows"):
        side_by_side([GRAY] * 4, ["a", "b"], rows=["only"])
