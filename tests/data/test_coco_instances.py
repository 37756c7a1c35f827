"""Instances in COCO's format: the official layout, and what annotation tools export."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from coco_trees import SIZE, assert_same_example, box, box_mask, run_lengths, write_coco_instances, write_image
from folders import edit_json, write_json
from maskformer.data.coco_instances import load_coco_instance, load_coco_instances
from maskformer.data.example import BadSample
from maskformer.data.label_set import load_label_set
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared

JSON = "annotations/instances_val2017.json"


def compressed(mask: np.ndarray) -> dict:
    """The RLE of a mask, as text."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict:
    """The RLE of a mask, as a list of runs."""
    return {"size": list(mask.shape), "counts": run_lengths(mask)}


def masks_of(example) -> dict[int, np.ndarray]:
    """Segment id to mask, with each id in one map only."""
    maps = example["segmentation"] if example["segmentation"].ndim == 3 else example["segmentation"][None]
    masks = {}
    for info in example["segments_info"]:
        holding = [ids == info["id"] for ids in maps if (ids == info["id"]).any()]
        assert len(holding) == 1
        masks[info["id"]] = holding[0]
    assert set(np.unique(maps)) - {0} == masks.keys()
    return masks


def test_polygons_and_both_kinds_of_run_lengths_overlap(tmp_path):
    person = np.random.default_rng(0).random(SIZE) < 0.3
    crowd = box_mask(0, 0, 9, 24) & ~person
    annotations = [
        {"segmentation": [box(2, 3, 8, 12), box(10, 3, 12, 5)]},
        {"segmentation": compressed(person), "category_id": 1},
        {"segmentation": uncompressed(crowd), "category_id": 1, "iscrowd": 1},
    ]
    source = load_coco_instance(write_coco_instances(tmp_path, annotations=annotations), "validation")
    labels = load_label_set("coco-instance-80")
    example = source[0]
    assert source.labels == labels and example["image_id"] == "1"
    assert example["segmentation"].dtype == np.int32 and example["segmentation"].shape == (2, *SIZE)
    assert [(i["id"], labels.names[i["label_id"]], i["iscrowd"]) for i in example["segments_info"]] == [
        (1, "car", 0),
        (2, "person", 0),
        (3, "person", 1),
    ]
    masks = masks_of(example)
    np.testing.assert_array_equal(masks[1], box_mask(2, 3, 8, 12) | box_mask(10, 3, 12, 5))
    np.testing.assert_array_equal(masks[2], person)
    np.testing.assert_array_equal(masks[3], crowd)
    photograph = np.array(Image.open(tmp_path / "val2017" / "000000000001.jpg"))
    np.testing.assert_array_equal(example["image"], photograph)


def test_instances_that_do_not_overlap_are_one_map_and_those_without_a_pixel_are_left_out(tmp_path):
    annotations = [
        {"segmentation": compressed(np.zeros(SIZE, bool))},
        {"segmentation": [box(2, 3, 8, 12)]},
        {"segmentation": [box(8, 3, 9, 12)], "category_id": 1},
    ]
    example = load_coco_instance(write_coco_instances(tmp_path, annotations=annotations), "validation")[0]
    expected = box_mask(2, 3, 8, 12) * 1 + box_mask(8, 3, 9, 12) * 2
    np.testing.assert_array_equal(example["segmentation"], expected)
    assert example["segments_info"] == [{"id": 1, "label_id": 2, "iscrowd": 0}, {"id": 2, "label_id": 0, "iscrowd": 0}]


def test_training_leaves_out_images_without_an_object_and_validation_does_not(tmp_path):
    annotations = [
        {"segmentation": [box(2, 3, 8, 12)], "image_id": 4},
        {"segmentation": compressed(box_mask(0, 0, 3, 3)), "image_id": 2, "iscrowd": 1},
        {"segmentation": [[1, 1, 5, 5]], "image_id": 3},  # a polygon that is none, which detectron2 leaves out too
        {"segmentation": [[1, 1, 5, 5], box(3, 3, 8, 8)], "image_id": 4},
    ]
    for split in ("train2017", "val2017"):
        write_coco_instances(tmp_path / split, split, annotations, images=4)
    train = load_coco_instance(tmp_path / "train2017", "train")
    assert [example["image_id"] for example in map(train.__getitem__, range(len(train)))] == ["4"]
    validation = load_coco_instance(tmp_path / "val2017", "validation")
    segments = {validation[i]["image_id"]: len(validation[i]["segments_info"]) for i in range(len(validation))}
    assert segments == {"1": 0, "2": 1, "3": 0, "4": 2}
    assert not validation[0]["segmentation"].any() and validation[0]["segmentation"].shape == SIZE
    np.testing.assert_array_equal(masks_of(validation[3])[2], box_mask(3, 3, 8, 8))


def test_training_images_without_any_object_are_an_empty_dataset(tmp_path):
    with pytest.raises(ValueError, match="instances_train2017.json: the dataset is empty"):
        load_coco_instance(write_coco_instances(tmp_path, "train2017"), "train")


def test_prepared_examples_are_the_same_and_sources_are_pickled(tmp_path):
    annotations = [
        {"segmentation": [box(2, 3, 8, 12)]},
        {"segmentation": compressed(box_mask(4, 4, 9, 24)), "iscrowd": 1},
        {"segmentation": [box(0, 0, 5, 5)], "image_id": 3},
    ]
    source = load_coco_instance(
        write_coco_instances(tmp_path / "coco", annotations=annotations, images=3), "validation"
    )
    source = pickle.loads(pickle.dumps(source))
    prepare([Job.of("validation", source, {"source": "coco_instance"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "validation")
    assert prepared.labels == source.labels and len(prepared) == len(source) == 3
    for index in range(3):
        assert_same_example(prepared[index], source[index])


def write_export(folder: Path, annotation_file: str, images: str, file_name: str = "a b.png") -> Path:
    """One image with a cat, and one without anything; category ids have gaps, the first has no annotations."""
    for index, name in enumerate((file_name.replace("\\", "/"), "empty.png")):
        write_image(folder / images / name, index)
    content = {
        "images": [
            {"id": 7, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]},
            {"id": "e", "file_name": "empty.png"},  # some tools give no sizes
        ],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 9, "segmentation": [box(1, 2, 6, 8)]}],
        "categories": [
            {"id": 0, "name": "animals", "supercategory": "none"},
            {"id": 9, "name": "cat", "supercategory": "animals", "isthing": 0},
        ],
    }
    (folder / annotation_file).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / annotation_file, content)
    return folder


@pytest.mark.parametrize(
    ("annotation_file", "images", "file_name", "path"),
    [
        ("_annotations.coco.json", "", "a b.png", ""),  # Roboflow
        ("result.json", "", "images/a b.png", ""),  # Label Studio
        ("result.json", "images", "a b.png", "result.json"),
        ("annotations/instances_default.json", "images", "a b.png", ""),  # CVAT
        ("annotations/instances_train.json", "images/train", "a b.png", ""),
        ("annotations/instances_train2017.json", "train2017", "a b.png", "annotations/instances_train2017.json"),
        ("annotations/instances_default.json", "images", "sub/a b.png", "annotations/instances_default.json"),
        ("result.json", "", "images\\a b.png", ""),  # Label Studio on Windows
    ],
)
def test_exports_of_annotation_tools(tmp_path, annotation_file, images, file_name, path):
    write_export(tmp_path, annotation_file, images, file_name)
    source = load_coco_instances(tmp_path / path)
    assert source.labels.names == ("animals", "cat") and source.labels.is_thing == (True, True)
    assert source.labels.source_ids == (0, 9)
    np.testing.assert_array_equal(source[0]["segmentation"], box_mask(1, 2, 6, 8))
    assert source[0]["segments_info"] == [{"id": 1, "label_id": 1, "iscrowd": 0}]
    assert source[1]["image_id"] == "e" and source[1]["segments_info"] == []


def test_other_json_files_beside_it_are_passed_over_and_two_annotation_files_are_not(tmp_path):
    write_export(tmp_path, "a.json", "")
    write_json(tmp_path / "labels.json", ["animals", "cat"])
    assert len(load_coco_instances(tmp_path)) == 2
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    with pytest.raises(ValueError, match=r"holds a.json, b.json; needed is a folder with one annotation file"):
        load_coco_instances(tmp_path)
    assert len(load_coco_instances(tmp_path / "b.json")) == 2


def test_folders_without_annotations_or_images_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: there is no such folder or file; needed is"):
        load_coco_instances(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no \*.json; needed is"):
        load_coco_instances(tmp_path)
    write_export(tmp_path, "a.json", "elsewhere")
    with pytest.raises(ValueError, match=r"a.json: none of its images, such as 'a b.png', is in .*/images or "):
        load_coco_instances(tmp_path)
    edit_json(tmp_path / "a.json", lambda c: c.update(images=[], annotations=[]))
    with pytest.raises(ValueError, match="a.json: the dataset is empty"):
        load_coco_instances(tmp_path)
    (tmp_path / "a.json").write_text("[}")
    with pytest.raises(ValueError, match="a.json: not valid JSON"):
        load_coco_instances(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("categories"), "the list 'categories' is missing"),
        (lambda c: c["categories"][1].pop("name"), "categories: entry 1 has no 'name'"),
        (lambda c: c["categories"].insert(0, "cat"), "categories: entry 0 is no mapping"),
        (lambda c: c["images"].append(c["images"][0]), "image 2: an earlier image has the id 7 already"),
        (lambda c: c["images"][1].pop("file_name"), "image 1 has no 'file_name'"),
        (lambda c: c["images"][1].update(file_name="../b.png"), "image 1: the file '../b.png' lies outside of"),
        (lambda c: c["images"][1].update(file_name="..\\b.png"), "image 1: the file '../b.png' lies outside of"),
        (lambda c: c["images"][1].update(file_name="/etc/b.png"), "image 1: the file '/etc/b.png' lies outside of"),
        (lambda c: c["annotations"].append(5), "annotation 1 is 5, not a mapping"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotation 1: the id 1 is that of an earlier one"),
        (lambda c: c["annotations"][0].pop("segmentation"), "annotation 0 has no 'segmentation'"),
        (lambda c: c["annotations"][0].update(image_id=8), "annotation 0: image_id 8 is not among the images"),
        (lambda c: c["annotations"][0].update(image_id=[7]), r"annotation 0: image_id \[7\] is not among the images"),
        (
            lambda c: c["annotations"][0].update(category_id=1),
            "annotation 0: category_id 1 is not among the categories",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[1, 2]), "annotation 0: its segmentation is neither"),
        (lambda c: c["annotations"][0].update(segmentation=[["1"]]), "annotation 0: its segmentation is neither"),
        (lambda c: c["annotations"][0].update(segmentation={"counts": [1.5]}), "annotation 0: an RLE needs 'counts'"),
        (lambda c: c["annotations"][0].update(segmentation={"counts": "a"}), "annotation 0: an RLE needs 'counts'"),
    ],
)
def test_what_is_wrong_with_the_annotation_file_is_named(tmp_path, damage, message):
    folder = write_export(tmp_path, "a.json", "")
    edit_json(folder / "a.json", damage)
    with pytest.raises(ValueError, match=f"a.json: {message}"):
        load_coco_instances(folder / "a.json")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5]], "polygon 0 has 4 numbers; a polygon is x and y of at least three points"),
        ([], "its segmentation is empty; masks are needed"),
        ({"size": [24, 16], "counts": [384]}, r"its RLE has the size \[24, 16\], but the image has \[16, 24\]"),
        ({"size": list(SIZE), "counts": [5]}, "its RLE does not decode: the runs must fill the 384 pixels"),
        ({"size": list(SIZE), "counts": "!"}, "its RLE does not decode: '!' cannot stand there"),
    ],
)
def test_bad_masks_are_bad_samples(tmp_path, segmentation, message):
    folder = write_export(tmp_path, "a.json", "")
    edit_json(folder / "a.json", lambda c: c["annotations"][0].update(segmentation=segmentation))
    source = load_coco_instances(folder)
    with pytest.raises(BadSample, match=f"a.json: annotation id 1 of .*a b.png: {message}"):
        source[0]
    assert source[1]["segments_info"] == []


def test_bad_images_are_bad_samples(tmp_path):
    folder = write_export(tmp_path, "a.json", "")
    (folder / "empty.png").write_bytes(b"")
    write_image(folder / "a b.png", size=(24, 16))
    source = load_coco_instances(folder)
    with pytest.raises(BadSample, match=r"a.json: image 7 \(.*a b.png\): \(16, 24\) pixels, but its image has \(24"):
        source[0]
    with pytest.raises(BadSample, match="empty.png: not a readable image"):
        source[1]


def test_official_categories_and_layout_are_checked(tmp_path):
    folder = write_coco_instances(tmp_path / "coco", annotations=[{"segmentation": [box(2, 3, 8, 12)]}])
    assert len(load_coco_instance(tmp_path, "validation")) == 1
    with pytest.raises(ValueError, match=r"train2017: there is no such folder; COCO is {train,val}2017"):
        load_coco_instance(folder, "train")
    edit_json(folder / JSON, lambda c: c["categories"][1].update(name="boat"))
    with pytest.raises(ValueError, match=f"{JSON}: categories: entry 1: the id 3 is 'boat', but in COCO .* 'car'"):
        load_coco_instance(folder, "validation")
    (folder / JSON).unlink()
    with pytest.raises(ValueError, match=f"{JSON}: there is no such file; COCO is"):
        load_coco_instance(folder, "validation")
