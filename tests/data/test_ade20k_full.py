"""ADE20K-Full, from the download and from the official preparation, and what is said of bad files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from ade20k_trees import (
    assert_prepared_the_same,
    blocks,
    class_colors,
    photograph,
    save,
    write_ade20k_full,
    write_ade20k_full_prepared,
)
from maskformer.data.ade20k_full import load_ade20k_full, nearest_before, shrink
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.label_set import load_label_set

VOID = 65535
# Class numbers of the download: wall 2978, building 312, sky 2420, and the last of the 847, adding machine, 3148.
# 0 is nothing, and 5 is a class that is not among the 847.
NUMBERS = blocks([[2978, 312, 2420], [3148, 5, 0]], np.int64)
TRAIN = "training/work_place/office/ADE_train_00000002"
TREE = {
    TRAIN: NUMBERS,
    "training/cultural/apse__indoor/ADE_train_00000007": NUMBERS[:, ::-1],
    "training/street/ADE_frame_00000001": NUMBERS,
    "validation/urban/street/ADE_val_00000001": NUMBERS,
}


def test_class_numbers_become_labels_and_others_are_void(tmp_path):
    folder = write_ade20k_full(tmp_path, TREE)
    for place in (folder, folder / "ADE20K_2021_17_01"):
        source = load_ade20k_full(place, "train")
        assert source.labels == load_label_set("ade20k-full-847")
        # In the order of their paths; photographs among the masks of a photograph's objects are none of the dataset.
        stems = [source[index]["image_id"] for index in range(len(source))]
        assert stems == ["ADE_train_00000007", "ADE_frame_00000001", "ADE_train_00000002"]
        example = source[2]
        labels = blocks([[0, 1, 2], [846, VOID, VOID]], np.int64)
        np.testing.assert_array_equal(semantic_map(example, VOID), labels)
        assert example["segments_info"] == [{"id": i + 1, "label_id": i, "iscrowd": 0} for i in (0, 1, 2, 846)]
        names = [source.labels.names[info["label_id"]] for info in example["segments_info"]]
        assert names == ["wall", "building, edifice", "sky", "adding machine, totalizer, totaliser"]
        photo = Image.open(folder / "ADE20K_2021_17_01" / "images" / "ADE" / f"{TRAIN}.jpg")
        np.testing.assert_array_equal(example["image"], np.array(photo))
    source = load_ade20k_full(folder, "validation")
    assert [source[index]["image_id"] for index in range(len(source))] == ["ADE_val_00000001"]


def test_the_lower_byte_is_green_and_the_upper_one_ten_times_in_red(tmp_path):
    folder = write_ade20k_full(tmp_path, {TRAIN: NUMBERS})
    path = folder / "ADE20K_2021_17_01" / "images" / "ADE" / f"{TRAIN}_seg.png"
    seg = np.array(Image.open(path))
    assert seg[0, 0].tolist() == [110, 162, 77]  # 11 * 256 + 162 = 2978
    seg[:8] = (119, 162, 5)  # what red holds below the ten counts for nothing
    save(seg, path)
    assert (semantic_map(load_ade20k_full(folder, "train")[0], VOID)[:8] == 0).all()


@pytest.mark.parametrize(("size", "smaller"), [((520, 744), (512, 733)), ((700, 513), (699, 512))])
def test_large_photographs_are_made_smaller(tmp_path, size, smaller):
    numbers = np.random.default_rng(1).choice([2978, 312, 2420, 5], size)
    example = load_ade20k_full(write_ade20k_full(tmp_path, {TRAIN: numbers}), "train")[0]
    photo = np.array(Image.open(tmp_path / "ADE20K_2021_17_01" / "images" / "ADE" / f"{TRAIN}.jpg"))
    # Bilinear by its definition: pixel centres are at halves, and beyond the border the last pixel goes on.
    weights = []
    for old, new in zip(size, smaller, strict=True):
        position = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)  # (new,)
        weights.append((1 - abs(position[:, None] - np.arange(old))).clip(0, None))  # (new, old)
    exact = np.einsum("yh,hwc,xw->yxc", weights[0], photo.astype(float), weights[1], optimize=True)
    assert example["image"].dtype == np.uint8 and example["image"].shape == (*smaller, 3)
    assert abs(example["image"] - exact).max() <= 0.52  # positions are in single precision
    rows, columns = (np.arange(new) * old // new for old, new in zip(size, smaller, strict=True))
    labels = np.vectorize({2978: 0, 312: 1, 2420: 2, 5: VOID}.get)(numbers[rows[:, None], columns])
    np.testing.assert_array_equal(semantic_map(example, VOID), labels)


@pytest.mark.parametrize(
    ("size", "smaller"),
    [((512, 900), (512, 900)), ((900, 512), (900, 512)), ((600, 600), (512, 512)), ((1024, 1025), (512, 512))],
)
def test_sizes(size, smaller):
    image, classes = shrink(np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32))
    assert image.shape[:2] == classes.shape == smaller


def test_positions_of_a_smaller_map_are_those_of_opencv():
    # Recorded of cv2.resize with INTER_NEAREST, version 5.0.0; the true quotients are 93, 391 and 117.
    assert nearest_before(744, 512)[64] == 92
    assert nearest_before(782, 512)[256] == 390
    assert nearest_before(936, 512)[64] == 116
    assert nearest_before(1024, 512).tolist() == list(range(0, 1024, 2))


def test_files_of_the_official_preparation_come_first(tmp_path):
    folder = write_ade20k_full_prepared(write_ade20k_full(tmp_path, TREE))
    root = folder / "ADE20K_2021_17_01"
    for split, stem in (("train", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        source = load_ade20k_full(folder, split)
        assert len(source) == 1 and source[0]["image_id"] == stem
        labels = blocks([[0, 1, 255], [256, 846, VOID]], np.int64)
        np.testing.assert_array_equal(semantic_map(source[0], VOID), labels)
    path = root / "annotations_detectron2" / "validation" / "ADE_val_00000001.tif"
    assert Image.open(path).mode == "I;16"
    save(blocks([[0, 847, 65534], [1, 1, 1]], np.uint16), path)
    message = r"the values \[847, 65534\] are no labels; the 847 labels have 0 to 846, and void is 65535$"
    with pytest.raises(BadSample, match=f"ADE_val_00000001.tif: {message}"):
        load_ade20k_full(folder, "validation")[0]


@pytest.mark.parametrize("official", [False, True])
def test_prepared_examples_are_the_same(tmp_path, official):
    numbers = np.kron(NUMBERS, np.ones((33, 1), int))  # (528, 24): not large, for its short side
    tree = {**TREE, "training/large/ADE_train_00000009": np.kron(NUMBERS, np.ones((33, 24), int))}
    tree["training/tall/ADE_train_00000010"] = numbers
    folder = write_ade20k_full_prepared(tmp_path / "files") if official else write_ade20k_full(tmp_path / "files", tree)
    source = load_ade20k_full(folder, "train")
    assert len(source) == (1 if official else 5)
    assert_prepared_the_same(source, "train", tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda jpg, seg: jpg.write_bytes(b"no image"), rf"{TRAIN}.jpg: not a readable image"),
        (lambda jpg, seg: seg.unlink(), rf"{TRAIN}_seg.png: there is no such label map"),
        (lambda jpg, seg: seg.write_bytes(b"no image"), rf"{TRAIN}_seg.png: not a readable label map"),
        (
            lambda jpg, seg: save(class_colors(NUMBERS[:8]), seg),
            rf"{TRAIN}_seg.png: \(8, 24\) pixels, but its image has \(16, 24\)",
        ),
        (lambda jpg, seg: save(blocks([[1, 2]]), seg), rf"{TRAIN}_seg.png: not a label map in red, green and blue"),
    ],
)
def test_bad_samples_are_named(tmp_path, damage, message):
    folder = write_ade20k_full(tmp_path, {TRAIN: NUMBERS})
    path = folder / "ADE20K_2021_17_01" / "images" / "ADE" / TRAIN
    source = load_ade20k_full(folder, "train")
    damage(path.with_name(f"{path.name}.jpg"), path.with_name(f"{path.name}_seg.png"))
    with pytest.raises(BadSample, match=message):
        source[0]


def test_photographs_are_read_as_stored(tmp_path):
    folder = write_ade20k_full(tmp_path, {TRAIN: NUMBERS})
    path = folder / "ADE20K_2021_17_01" / "images" / "ADE" / f"{TRAIN}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn, which the official preparation does not make
    Image.open(path).save(path, exif=exif)
    source = load_ade20k_full(folder, "train")
    np.testing.assert_array_equal(source[0]["image"], np.array(Image.open(path)))
    assert_prepared_the_same(source, "train", tmp_path / "out")


def test_what_is_wrong_with_the_whole_is_named(tmp_path):
    with pytest.raises(ValueError, match="images/ADE/training: there is no such folder; .*, or .*images_detectron2"):
        load_ade20k_full(tmp_path, "train")
    folder = write_ade20k_full(tmp_path, {**TREE, "training/other/ADE_train_00000002": NUMBERS})
    with pytest.raises(ValueError, match="office/ADE_train_00000002.jpg: .*other has a photograph of this name"):
        load_ade20k_full(folder, "train")
    root = folder / "ADE20K_2021_17_01"
    shutil.rmtree(root / "images" / "ADE" / "validation" / "urban")
    with pytest.raises(ValueError, match="ADE/validation: the dataset is empty"):
        load_ade20k_full(folder, "validation")
    save(photograph(0), root / "images_detectron2" / "training" / "a.jpg")
    with pytest.raises(ValueError, match="annotations_detectron2/training: there is no such folder"):
        load_ade20k_full(folder, "train")
