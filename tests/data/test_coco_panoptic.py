"""COCO panoptic in its official layout."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from coco_trees import assert_same_example, write_coco_panoptic, write_image
from folders import edit_json
from maskformer.data.coco_panoptic import load_coco_panoptic
from maskformer.data.example import BadSample
from maskformer.data.label_set import load_label_set
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared

JSON = "annotations/panoptic_val2017.json"


@pytest.mark.parametrize("maps", ["annotations/panoptic_val2017", "panoptic_val2017"])
def test_segments_are_those_of_the_stripes(tmp_path, maps):
    source = load_coco_panoptic(write_coco_panoptic(tmp_path, maps), "validation")
    labels = load_label_set("coco-panoptic-133")
    assert source.labels == labels
    # In the order of the annotations, and each with its own image.
    assert [source[index]["image_id"] for index in range(2)] == ["285", "139"]
    stripes = np.repeat([2, 1, 3, 0], 4)[:, None].repeat(24, axis=1)  # ids in their order: crowd 300, car, road
    for index, expected in ((1, stripes), (0, stripes[::-1])):
        example = source[index]
        np.testing.assert_array_equal(example["segmentation"], expected)
        assert [(labels.names[info["label_id"]], info["id"], info["iscrowd"]) for info in example["segments_info"]] == [
            ("person", 1, 1),
            ("car", 2, 0),
            ("road", 3, 0),
        ]
        photograph = Image.open(tmp_path / "val2017" / f"{int(example['image_id']):012d}.jpg")
        np.testing.assert_array_equal(example["image"], np.array(photograph))


def test_a_folder_that_holds_coco_is_read_too_and_sources_are_pickled(tmp_path):
    write_coco_panoptic(tmp_path / "coco")
    source = load_coco_panoptic(tmp_path, "validation")
    assert_same_example(pickle.loads(pickle.dumps(source))[0], load_coco_panoptic(tmp_path / "coco", "validation")[0])


def test_prepared_examples_are_the_same(tmp_path):
    source = load_coco_panoptic(write_coco_panoptic(tmp_path / "coco"), "validation")
    prepare([Job.of("validation", source, {"source": "coco_panoptic"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "validation")
    assert prepared.labels == source.labels and len(prepared) == 2
    for index in range(2):
        assert_same_example(prepared[index], source[index])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c["categories"][1].update(id=2), "entry 1: the id 2 is 'car', but in COCO 2017 it is 'bicycle'"),
        (lambda c: c["categories"][1].update(id=12), "entry 1: the id 12 is 'car', but in COCO 2017 it is 'no label'"),
        (lambda c: c["categories"][2].pop("name"), "categories: entry 2 has no 'name'"),
        (lambda c: c["images"].append(c["images"][0]), "image 2: an earlier image has the id 139 already"),
        (
            lambda c: c["images"][0].update(file_name="../../a.jpg"),
            r"annotation 1: the file '../../a.jpg' lies outside",
        ),
        (lambda c: c["annotations"][1].update(image_id=285), "annotation 1: image_id 285 has an annotation already"),
        (lambda c: c["annotations"].clear(), "the dataset is empty"),
        (lambda c: c.pop("annotations"), "the list 'annotations' is missing"),
    ],
)
def test_what_is_wrong_with_the_annotation_file_is_named(tmp_path, damage, message):
    folder = write_coco_panoptic(tmp_path)
    edit_json(folder / JSON, damage)
    with pytest.raises(ValueError, match=f"{JSON}: .*{message}"):
        load_coco_panoptic(folder, "validation")


def test_missing_folders_and_files_are_named_with_the_layout(tmp_path):
    folder = write_coco_panoptic(tmp_path)
    with pytest.raises(ValueError, match=r"train2017: there is no such folder; COCO panoptic is .*2017\.zip"):
        load_coco_panoptic(folder, "train")
    (folder / "annotations" / "panoptic_val2017").rename(folder / "elsewhere")
    with pytest.raises(ValueError, match=r"annotations/panoptic_val2017: there is no such folder; COCO panoptic is"):
        load_coco_panoptic(folder, "validation")
    (folder / JSON).unlink()
    with pytest.raises(ValueError, match=f"{JSON}: there is no such file; COCO panoptic is"):
        load_coco_panoptic(folder, "validation")
    (folder / JSON).write_text("{")
    with pytest.raises(ValueError, match=f"{JSON}: not valid JSON"):
        load_coco_panoptic(folder, "validation")


def test_one_bad_image_is_a_bad_sample(tmp_path):
    folder = write_coco_panoptic(tmp_path)
    (folder / "annotations" / "panoptic_val2017" / "000000000285.png").unlink()
    write_image(folder / "val2017" / "000000000139.jpg", size=(8, 8))
    source = load_coco_panoptic(folder, "validation")
    with pytest.raises(BadSample, match="000000000285.png: there is no such panoptic PNG"):
        source[0]
    with pytest.raises(BadSample, match=r"000000000139.png: \(16, 24\) pixels, but its image has \(8, 8\)"):
        source[1]
