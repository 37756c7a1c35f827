"""ADE20K, semantic and panoptic: what is read of a tree in the official layout, and what is said of bad files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from ade20k_trees import INSTANCE_GREEN, INSTANCE_RED, assert_prepared_the_same, blocks, colors, save, write_ade20k
from maskformer.data.ade20k import load_ade20k, load_ade20k_panoptic
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.label_set import load_label_set

FIRST = "ADE_train_00000001"


@pytest.fixture
def root(tmp_path):
    return write_ade20k(tmp_path) / "ADEChallengeData2016"


def test_values_count_from_one_and_zero_is_void(root):
    source = load_ade20k(root.parent, "train")
    assert source.labels == load_label_set("ade20k-150")
    assert [source[index]["image_id"] for index in range(len(source))] == [FIRST, "ADE_train_00000002"]
    example = source[1]
    np.testing.assert_array_equal(semantic_map(example), blocks([[255, 7, 7], [12, 2, 149]]))
    assert example["segments_info"] == [{"id": i + 1, "label_id": i, "iscrowd": 0} for i in (2, 7, 12, 149)]
    photo = Image.open(root / "images" / "training" / "ADE_train_00000002.jpg")
    np.testing.assert_array_equal(example["image"], np.array(photo))


@pytest.mark.parametrize("load", [load_ade20k, load_ade20k_panoptic])
def test_the_folder_itself_or_the_one_that_holds_it(root, load):
    for folder in (root, root.parent, str(root)):
        source = load(folder, "validation")
        assert [source[index]["image_id"] for index in range(len(source))] == ["ADE_val_00000001"]


def test_instances_lie_over_the_stuff_and_things_without_one_are_void(root):
    # Blocks: wall, window twice, person, sky, flag; instances: none, window 3 and 1, then persons 9 and 2 and flag 255.
    source = load_ade20k_panoptic(root, "train")
    assert source.labels == load_label_set("ade20k-150")
    example = source[0]
    # Sky is hidden by person 2. Stuff comes first, then the instances by their number.
    expected = [(1, 0), (2, 7), (3, 12), (4, 7), (5, 12), (6, 149)]
    np.testing.assert_array_equal(example["segmentation"], blocks([[1, 4, 2], [5, 3, 6]]))
    assert example["segmentation"].dtype == np.int32
    assert [(info["id"], info["label_id"], info["iscrowd"]) for info in example["segments_info"]] == [
        (segment, label, 0) for segment, label in expected
    ]
    # Without its instances 3 and 255, a window and the flag are void; red without green is no instance.
    green = np.where(np.isin(INSTANCE_GREEN, (3, 255)), 0, INSTANCE_GREEN)
    instances = colors(blocks(INSTANCE_RED), blocks(green))
    save(instances, root / "annotations_instance" / "training" / f"{FIRST}.png")
    np.testing.assert_array_equal(
        load_ade20k_panoptic(root, "train")[0]["segmentation"], blocks([[1, 0, 2], [4, 3, 0]])
    )


def test_every_class_of_the_instances_is_its_thing(root):
    labels = load_label_set("ade20k-150")
    numbers = np.zeros((16, 24), int)
    numbers.ravel()[:100] = np.arange(1, 101)
    save(colors(numbers, numbers), root / "annotations_instance" / "training" / f"{FIRST}.png")
    save(np.zeros((16, 24), np.uint8), root / "annotations" / "training" / f"{FIRST}.png")
    infos = load_ade20k_panoptic(root, "train")[0]["segments_info"]
    names = [labels.names[info["label_id"]] for info in infos]
    # The official table of instance classes says 1 8, 2 9, 3 11, 4 13, 5 15, 6 16, 7 19, 8 20 ... 100 150, from 1.
    assert [info["label_id"] + 1 for info in infos][:8] == [8, 9, 11, 13, 15, 16, 19, 20]
    assert (names[0], names[3], names[99]) == ("bed", "person", "flag") and len(set(names)) == 100


@pytest.mark.parametrize("load", [load_ade20k, load_ade20k_panoptic])
def test_prepared_examples_are_the_same(root, tmp_path, load):
    assert_prepared_the_same(load(root, "train"), "train", tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "images/training" / f"{FIRST}.jpg").write_bytes(b"x"), rf"{FIRST}.jpg: not a readable image"),
        (lambda f: (f / "annotations/training" / f"{FIRST}.png").unlink(), rf"{FIRST}.png: there is no such label map"),
        (
            lambda f: save(blocks([[1, 151, 255]]), f / "annotations/training" / f"{FIRST}.png"),
            rf"annotations/training/{FIRST}.png: \(8, 24\) pixels, but its image has \(16, 24\)",
        ),
        (
            lambda f: save(blocks([[1, 151, 1], [255, 1, 1]]), f / "annotations/training" / f"{FIRST}.png"),
            rf"{FIRST}.png: the values \[151, 255\] are no labels; the 150 labels have 1 to 150, and void is 0$",
        ),
    ],
)
@pytest.mark.parametrize("load", [load_ade20k, load_ade20k_panoptic])
def test_bad_samples_are_named(root, load, damage, message):
    damage(root)
    with pytest.raises(BadSample, match=message):
        load(root, "train")[0]


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (None, "there is no such label map"),
        (blocks([[1, 1, 1], [1, 1, 1]]), r"not a label map in red, green and blue of 8 bits, but uint8 \(16, 24\)"),
        (colors(blocks([[1, 1]]), blocks([[1, 1]])), r"\(8, 16\) pixels, but its image has \(16, 24\)"),
        (
            colors(blocks(INSTANCE_RED), blocks([[5, 3, 1], [9, 2, 255]])),
            "instance 5 has the class 0 in red; classes are 1 to 100",
        ),
        (
            colors(blocks([[0, 1, 1], [4, 4, 101]]), blocks(INSTANCE_GREEN)),
            "instance 255 has the class 101 in red; classes are 1 to 100",
        ),
        (
            colors(blocks(INSTANCE_RED), blocks([[0, 3, 1], [3, 2, 255]])),
            r"instance 3 has the classes 1 and 4 in red; it must have one",
        ),
    ],
)
def test_bad_instances_are_named(root, instances, message):
    path = root / "annotations_instance" / "training" / f"{FIRST}.png"
    path.unlink()
    if instances is not None:
        save(instances, path)
    with pytest.raises(BadSample, match=f"annotations_instance/training/{FIRST}.png: {message}"):
        load_ade20k_panoptic(root, "train")[0]


def test_folders_that_are_missing_or_empty_are_named(root, tmp_path):
    shutil.rmtree(root / "annotations_instance")
    load_ade20k(root, "train")
    with pytest.raises(ValueError, match="annotations_instance/training: there is no such folder; .*of its own"):
        load_ade20k_panoptic(root, "train")
    shutil.rmtree(root / "annotations" / "validation")
    with pytest.raises(ValueError, match="annotations/validation: there is no such folder; .*annotations/, each with"):
        load_ade20k(root, "validation")
    for path in (root / "images" / "training").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="images/training: the dataset is empty"):
        load_ade20k(root, "train")
    with pytest.raises(ValueError, match="images/training: there is no such folder; expected are ADEChallengeData2016"):
        load_ade20k(tmp_path / "elsewhere", "train")
