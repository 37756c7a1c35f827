"""Cityscapes in the layout of its archives: what is read, and what is said of bad files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from cityscapes_trees import NAMES, STUFF, THINGS, write_cityscapes
from maskformer.data.cityscapes import load_cityscapes, load_cityscapes_panoptic
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared
from maskformer.data.sources import load_source
from maskformer.recipes.arguments import DataArguments

NAME = NAMES["val"][0]
LABEL_IDS = f"gtFine/val/munster/{NAME}_gtFine_labelIds.png"
INSTANCE_IDS = f"gtFine/val/munster/{NAME}_gtFine_instanceIds.png"
# Train ids, as the official label list gives them.
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 21: 8, 23: 10, 24: 11, 26: 13, 33: 18}
LOADERS = pytest.mark.parametrize("load", [load_cityscapes, load_cityscapes_panoptic])


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


def write_map(path, *rows):
    """Replaces a map of 16 x 24 pixels by bands of these values."""
    values = np.array(rows, dtype=np.uint16 if np.max(rows) > 255 else np.uint8)
    Image.fromarray(np.kron(values, np.ones((16 // len(rows), 24 // len(rows[0])), values.dtype))).save(path)


@pytest.mark.parametrize(("split", "official"), [("train", "train"), ("validation", "val")])
def test_label_ids_become_train_ids_and_the_rest_is_void(tmp_path, split, official):
    source = load_cityscapes(write_cityscapes(tmp_path), split)
    assert source.labels.names[10:14] == ("sky", "person", "rider", "car")
    assert [row["image_id"] for row in source.rows] == list(NAMES[official])
    for index, name in enumerate(NAMES[official]):
        example, city = source[index], name.split("_")[0]
        image = read(tmp_path / "leftImg8bit" / official / city / f"{name}_leftImg8bit.png")
        np.testing.assert_array_equal(example["image"], image)
        ids = read(tmp_path / "gtFine" / official / city / f"{name}_gtFine_labelIds.png")
        expected = [[TRAIN_IDS.get(value, 255) for value in row] for row in ids.tolist()]
        np.testing.assert_array_equal(semantic_map(example), expected)


def test_all_official_ids_are_known(tmp_path):
    write_cityscapes(tmp_path)
    values = np.resize(np.array([*range(34), 255], np.uint8), (16, 24))
    Image.fromarray(values).save(tmp_path / LABEL_IDS)
    assert len(load_cityscapes(tmp_path, "validation")[0]["segments_info"]) == 19
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / INSTANCE_IDS)
    segments = load_cityscapes_panoptic(tmp_path, "validation")[0]["segments_info"]
    assert [(info["label_id"], info["iscrowd"]) for info in segments] == [(i, int(i >= 11)) for i in range(19)]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_instances_groups_and_stuff_are_the_segments_of_a_brute_force_reading(tmp_path, split):
    source = load_cityscapes_panoptic(write_cityscapes(tmp_path), split)
    official = "val" if split == "validation" else "train"
    kinds = set()
    for index, name in enumerate(NAMES[official]):
        values = read(tmp_path / "gtFine" / official / name.split("_")[0] / f"{name}_gtFine_instanceIds.png")
        expected, segments = np.zeros((16, 24), np.int32), []
        for value in sorted(set(values.ravel().tolist())):
            kind = value // 1000 if value >= 1000 else value
            if kind in STUFF or kind in THINGS:
                crowd = int(kind in THINGS and value < 1000)
                segments.append({"id": len(segments) + 1, "label_id": TRAIN_IDS[kind], "iscrowd": crowd})
                expected[values == value] = len(segments)
                kinds.add((kind in THINGS, crowd))
        example = source[index]
        assert example["segmentation"].dtype == np.int32
        np.testing.assert_array_equal(example["segmentation"], expected)
        assert example["segments_info"] == segments
    assert kinds == {(False, 0), (True, 0), (True, 1)}


def test_stuff_is_one_segment_whatever_its_numbers_and_caravans_are_void(tmp_path):
    write_cityscapes(tmp_path)
    write_map(tmp_path / INSTANCE_IDS, [7, 7001, 26000, 29000], [26001, 26, 0, 1000])
    example = load_cityscapes_panoptic(tmp_path, "validation")[0]
    np.testing.assert_array_equal(example["segmentation"][::8, ::6], [[1, 1, 3, 0], [4, 2, 0, 0]])
    assert example["segments_info"] == [
        {"id": 1, "label_id": 0, "iscrowd": 0},
        {"id": 2, "label_id": 13, "iscrowd": 1},
        {"id": 3, "label_id": 13, "iscrowd": 0},
        {"id": 4, "label_id": 13, "iscrowd": 0},
    ]


def test_a_folder_that_contains_cityscapes_is_taken_too(tmp_path):
    write_cityscapes(tmp_path / "cityscapes")
    for source in ("cityscapes", "cityscapes_panoptic"):
        arguments = DataArguments(source=source, data_path=str(tmp_path))
        assert load_source(arguments, "train").rows.num_rows == 3


@LOADERS
def test_sources_travel_and_prepared_data_are_the_same(tmp_path, load):
    source = pickle.loads(pickle.dumps(load(write_cityscapes(tmp_path / "raw"), "train")))
    prepare([Job.of("train", source, {"source": "cityscapes"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "train")
    assert prepared.labels == source.labels and len(prepared) == 3
    for index in range(3):
        np.testing.assert_equal(prepared[index], source[index])


@LOADERS
def test_missing_folders_are_named_with_the_layout(tmp_path, load):
    with pytest.raises(ValueError, match=r"leftImg8bit/val: there is no .*_leftImg8bit.png of leftImg8bit_t"):
        load(tmp_path, "validation")
    (tmp_path / "leftImg8bit" / "val" / "munster").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"gtFine/val: there is no .*_gtFine_(labelIds|instanceIds).png of gtFine_t"):
        load(tmp_path, "validation")
    (tmp_path / "gtFine" / "val").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"leftImg8bit/val: the dataset is empty"):
        load(tmp_path, "validation")


@LOADERS
def test_a_name_in_two_cities_is_refused(tmp_path, load):
    write_cityscapes(tmp_path)
    path = tmp_path / "leftImg8bit" / "val" / "ulm" / f"{NAME}_leftImg8bit.png"
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"ulm/{NAME}_leftImg8bit.png: the folder of munster has an image of this"):
        load(tmp_path, "validation")


@pytest.mark.parametrize(
    ("load", "damage", "message"),
    [
        (load_cityscapes, lambda f: (f / LABEL_IDS).unlink(), "labelIds.png: there is no such"),
        (load_cityscapes, lambda f: write_map(f / LABEL_IDS, [7, 34]), r"labelIds.png: the values \[34\]"),
        (load_cityscapes, lambda f: Image.new("L", (9, 9)).save(f / LABEL_IDS), r"labelIds.png: \(9, 9\) pixels"),
        (load_cityscapes, lambda f: (f / LABEL_IDS).write_bytes(b""), "labelIds.png: not a readable"),
        (load_cityscapes_panoptic, lambda f: (f / INSTANCE_IDS).unlink(), "instanceIds.png: there is no such"),
        (
            load_cityscapes_panoptic,
            lambda f: write_map(f / INSTANCE_IDS, [7, 34, 35002]),
            r"instanceIds.png: the values \[34, 35002\] belong to no label; .* 7 to 33",
        ),
        (load_cityscapes_panoptic, lambda f: Image.new("L", (9, 9)).save(f / INSTANCE_IDS), r"\(9, 9\) pixels"),
        (load_cityscapes_panoptic, lambda f: (f / INSTANCE_IDS).write_bytes(b""), "instanceIds.png: not a readable"),
    ],
)
def test_bad_samples_are_named(tmp_path, load, damage, message):
    damage(write_cityscapes(tmp_path))
    source = load(tmp_path, "validation")
    with pytest.raises(BadSample, match=message):
        source[0]


@LOADERS
def test_a_damaged_photograph_is_named(tmp_path, load):
    path = write_cityscapes(tmp_path) / "leftImg8bit" / "val" / "munster" / f"{NAME}_leftImg8bit.png"
    source = load(tmp_path, "validation")
    path.write_bytes(b"no image")
    with pytest.raises(BadSample, match="_leftImg8bit.png: not a readable image"):
        source[0]
