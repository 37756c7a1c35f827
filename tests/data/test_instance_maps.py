"""Folders of instance maps: of one label and several, in all encodings, and what is said of bad files."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from PIL import Image

from folders import write_json
from maskformer.data.example import BadSample
from maskformer.data.instance_maps import load_instance_maps
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared
from maskformer.data.sources import load_source
from maskformer.data.validation import inspect
from maskformer.recipes.arguments import DataArguments


def write_map(path, values: np.ndarray, mode: str):
    """A map in 8 bits, 8 bits with a palette, 16 bits, or ids spread over three channels."""
    if mode == "channels":
        values = np.stack((values % 256, values // 256 % 256, values // 65536), axis=2)  # (H, W, 3)
    picture = Image.fromarray(values.astype(np.uint16 if mode == "16-bit" else np.uint8))
    if mode == "palette":
        picture.putpalette([200, 10, 10] * 256)
    picture.save(path)


def write_instance_maps(folder, labels, *maps, mode: str = "16-bit"):
    """A folder of random photographs with these maps, each enlarged to 16 x 24 pixels."""
    (folder / "images").mkdir(parents=True)
    (folder / "instances").mkdir()
    random = np.random.default_rng(0)
    for index, rows in enumerate(maps):
        values = np.array(rows).repeat(16 // len(rows), 0).repeat(24 // len(rows[0]), 1)  # (16, 24)
        photograph = random.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(photograph).save(folder / "images" / f"cell {index}.{('jpg', 'png')[index % 2]}")
        write_map(folder / "instances" / f"cell {index}.png", values, mode)
    write_json(folder / "labels.json", labels)
    return folder


def things(*label_ids: int) -> list[dict]:
    return [{"id": number, "label_id": label, "iscrowd": 0} for number, label in enumerate(label_ids, 1)]


def small(example) -> list:
    """A map of 16 x 24 pixels that was enlarged from 2 x 4."""
    assert example["segmentation"].shape == (16, 24) and example["segmentation"].dtype == np.int32
    np.testing.assert_array_equal(example["segmentation"][::8, ::6].repeat(8, 0).repeat(6, 1), example["segmentation"])
    return example["segmentation"][::8, ::6].tolist()


@pytest.mark.parametrize("mode", ["8-bit", "palette", "16-bit", "channels"])
def test_with_one_label_every_value_but_0_is_an_instance(tmp_path, mode):
    # Instance 9 is in two pieces, 255 touches it, and the second image has none.
    folder = write_instance_maps(tmp_path, ["cell"], [[9, 255, 9, 0], [0, 255, 3, 3]], [[0]], mode=mode)
    source = load_instance_maps(folder)
    assert source.labels.names == ("cell",) and source.labels.is_thing == (True,)
    assert [row["image_id"] for row in source.rows] == ["cell 0", "cell 1"]
    assert small(source[0]) == [[2, 3, 2, 0], [0, 3, 1, 1]]
    assert source[0]["segments_info"] == things(0, 0, 0)
    assert source[1]["segments_info"] == [] and not source[1]["segmentation"].any()
    np.testing.assert_array_equal(source[1]["image"], np.array(Image.open(folder / "images" / "cell 1.png")))


@pytest.mark.parametrize("content", [["cell"], {"1": "cell"}, {"cell": 7}, [{"id": 3, "name": "cell"}]])
def test_the_value_of_the_only_label_does_not_matter(tmp_path, content):
    folder = write_instance_maps(tmp_path, content, [[1, 3, 7, 1001], [0, 0, 0, 65535]])
    example = load_instance_maps(folder)[0]
    assert small(example) == [[1, 2, 3, 4], [0, 0, 0, 5]]
    assert example["segments_info"] == things(0, 0, 0, 0, 0)


def test_three_channels_hold_more_instances_than_16_bits(tmp_path):
    folder = write_instance_maps(tmp_path, ["cell"], [[1, 65537, 0, 16777215], [1, 65537, 256, 0]], mode="channels")
    example = load_instance_maps(folder)[0]
    assert small(example) == [[1, 3, 0, 4], [1, 3, 2, 0]]


def test_a_mask_of_one_bit_is_one_instance(tmp_path):
    folder = write_instance_maps(tmp_path, ["cell"], [[0]])
    mask = np.array([[0, 1, 1, 0], [0, 0, 1, 0]], dtype=bool).repeat(8, 0).repeat(6, 1)  # (16, 24)
    Image.fromarray(mask).save(folder / "instances" / "cell 0.png")
    example = load_instance_maps(folder)[0]
    np.testing.assert_array_equal(example["segmentation"], mask)
    assert example["segments_info"] == things(0)


def test_with_several_labels_a_value_tells_label_and_instance(tmp_path):
    labels = [
        {"id": 1, "name": "sky", "isthing": 0},
        {"id": 12, "name": "car"},
        {"id": 40, "name": "person", "isthing": 1},
    ]
    # 1 and 1003 are the same sky; 12 are cars of which nobody knows how many.
    folder = write_instance_maps(tmp_path, labels, [[12000, 12, 1, 40007], [1003, 12001, 0, 12000]])
    source = load_instance_maps(folder)
    assert source.labels.is_thing == (False, True, True)
    example = source[0]
    assert small(example) == [[3, 2, 1, 5], [1, 4, 0, 3]]
    assert example["segments_info"] == [
        {"id": 1, "label_id": 0, "iscrowd": 0},
        {"id": 2, "label_id": 1, "iscrowd": 1},
        {"id": 3, "label_id": 1, "iscrowd": 0},
        {"id": 4, "label_id": 1, "iscrowd": 0},
        {"id": 5, "label_id": 2, "iscrowd": 0},
    ]


def test_random_maps_are_read_as_pixel_by_pixel(tmp_path):
    random = np.random.default_rng(1)
    label_values, thing = (2, 3, 65), (False, True, True)
    values = random.choice([0, 2, 3, *range(3000, 3020), *range(65000, 65012)], (16, 24))
    labels = [{"id": v, "name": str(v), "isthing": int(t)} for v, t in zip(label_values, thing, strict=True)]
    example = load_instance_maps(write_instance_maps(tmp_path, labels, values))[0]
    info_of = {info["id"]: info for info in example["segments_info"]}
    value_of = {}
    for value, segment in zip(values.ravel().tolist(), example["segmentation"].ravel().tolist(), strict=True):
        assert value_of.setdefault(segment, value) == value  # one value a segment, and one segment a value
        label_value = value // 1000 if value >= 1000 else value
        label = label_values.index(label_value) if value else None
        crowd = int(value == 3)
        assert info_of.get(segment) == (value and {"id": segment, "label_id": label, "iscrowd": crowd} or None)
    assert len(value_of) == len(set(values.ravel().tolist()))
    assert sorted(info_of) == list(range(1, len(info_of) + 1))


def test_sources_travel_and_prepared_data_are_the_same(tmp_path):
    maps = [[9, 255, 9, 0], [0, 255, 3, 3]], [[0]], [[1, 2]]
    folder = write_instance_maps(tmp_path / "raw", ["cell"], *maps)
    source = load_source(DataArguments(source="instance_maps", train_path=str(folder)), "train")
    source = pickle.loads(pickle.dumps(source))
    prepare([Job.of("train", source, {"source": "instance_maps"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "train")
    assert prepared.labels == source.labels and len(prepared) == 3
    for index in range(3):
        np.testing.assert_equal(prepared[index], source[index])
    report = inspect(source)
    assert report.good and report.segments == 5


SEVERAL = {"1": "cell", "2": "nucleus"}


@pytest.mark.parametrize(
    ("labels", "damage", "message"),
    [
        (["cell"], lambda f: (f / "instances" / "cell 0.png").unlink(), "instances/cell 0.png: there is no such"),
        (
            ["cell"],
            lambda f: (f / "instances" / "cell 0.png").write_bytes(b"?"),
            "instances/cell 0.png: not a readable",
        ),
        (
            ["cell"],
            lambda f: (f / "images" / "cell 0.jpg").write_bytes(b"?"),
            "images/cell 0.jpg: not a readable image",
        ),
        (
            ["cell"],
            lambda f: Image.new("L", (9, 9)).save(f / "instances" / "cell 0.png"),
            r"instances/cell 0.png: \(9, 9\) pixels, but its image has \(16, 24\)",
        ),
        (
            SEVERAL,
            lambda f: write_map(f / "instances" / "cell 0.png", np.full((16, 24), 3000), "16-bit"),
            r"instances/cell 0.png: the values \[3000\] belong to no label; .* 1 to 2, or that \* 1000 \+ number",
        ),
        (
            SEVERAL,
            lambda f: write_map(f / "instances" / "cell 0.png", np.full((16, 24), 255), "8-bit"),
            r"the values \[255\] belong to no label",
        ),
    ],
)
def test_bad_samples_are_named(tmp_path, labels, damage, message):
    folder = write_instance_maps(tmp_path, labels, [[1001, 0]])
    damage(folder)
    source = load_instance_maps(folder)
    with pytest.raises(BadSample, match=message):
        source[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cell", "nucleus"], 'the label \'cell\' has the value 0; 1 to 999 is possible, as in {"1": "cell", "2"'),
        ({"1": "cell", "1000": "nucleus"}, "the label 'nucleus' has the value 1000"),
        ([{"id": 1, "name": "cell", "isthing": 0}], "the only label, 'cell', is stuff; --source semantic_folder"),
        ([], "there are no categories"),
        ([{"id": 1}], "entry 0 has no 'name'"),
    ],
)
def test_label_names_that_values_cannot_tell_are_refused(tmp_path, labels, message):
    folder = write_instance_maps(tmp_path, labels, [[1001, 0]])
    with pytest.raises(ValueError, match=f"labels.json: .*{re.escape(message)}"):
        load_instance_maps(folder)


def test_missing_parts_of_the_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="labels.json: there is no such file"):
        load_instance_maps(tmp_path)
    write_json(tmp_path / "labels.json", ["cell"])
    for name in ("images", "instances"):
        with pytest.raises(ValueError, match=f"{name}: there is no such folder; images/NAME.jpg, instances/NAME.png"):
            load_instance_maps(tmp_path)
        (tmp_path / name).mkdir()
    (tmp_path / "images" / ".hidden").touch()
    with pytest.raises(ValueError, match="images: the dataset is empty"):
        load_instance_maps(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    folder = write_instance_maps(tmp_path, ["cell"], [[0]])
    for name in ("cell 0.png", "cell 0.m.jpg"):
        Image.new("RGB", (24, 16)).save(folder / "images" / name)
    with pytest.raises(ValueError, match="cell 0.jpg and cell 0.png have one name"):
        load_instance_maps(folder)
