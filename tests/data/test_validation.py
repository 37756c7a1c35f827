"""What the first pass over a dataset counts, and what it says of bad files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from folders import edit_json, write_json, write_panoptic_folder, write_semantic_folder
from helpers import ROOT
from maskformer.data.example import Example, Source
from maskformer.data.label_set import LabelSet
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.sources import SOURCES
from maskformer.data.validation import inspect, map_in_threads

LABELS = LabelSet.from_categories([{"id": 7, "name": "cell"}, {"id": 9, "name": "ground", "isthing": 0}])


def source_of(*examples: dict) -> Source:
    """A source of examples in memory; each is a segmentation, its segments as (id, label id) and maybe an image."""

    def decode(row: dict) -> Example:
        segmentation = np.array(row["map"], dtype=np.int32)
        image = np.zeros((*row.get("size", segmentation.shape[-2:]), 3), dtype=np.uint8)
        infos = [{"id": segment, "label_id": label, "iscrowd": 0} for segment, label in row["segments"]]
        return Example(image=image, segmentation=segmentation, segments_info=infos, image_id=row["image_id"])

    return Source([{"image_id": str(index), **row} for index, row in enumerate(examples)], LABELS, decode)


def test_counts_worked_out_by_hand():
    report = inspect(
        source_of(
            {"map": [[1, 1, 0], [2, 3, 3]], "segments": [(1, 0), (2, 0), (3, 1)]},
            {"map": [[1, 1]], "segments": [(1, 1)]},
            # Two maps that overlap in one pixel: one pixel is void, one counts for both segments.
            {"map": [[[1, 1, 0]], [[0, 2, 0]]], "segments": [(1, 0), (2, 0)]},
        )
    )
    assert (report.images, report.usable, report.segments) == (3, 3, 6)
    assert report.images_per_label.tolist() == [2, 2]
    assert report.segments_per_label.tolist() == [4, 2]
    assert report.pixels_per_label.tolist() == [2 + 1 + 2 + 1, 2 + 2]
    assert (report.pixels, report.void_pixels) == (6 + 2 + 3, 1 + 1)
    assert report.sizes == {(2, 3): 1, (1, 2): 1, (1, 3): 1}
    assert report.things == {2: 2, 0: 1}
    assert report.areas == {0: 2, 1: 4}  # of one pixel, of two or three
    assert report.problems.count == report.warnings.count == 0


def test_a_good_folder_has_no_problems_and_counts_as_its_examples_do(tmp_path):
    source = load_panoptic_folder(write_panoptic_folder(tmp_path))
    report = inspect(source)
    examples = [source[index] for index in range(4)]
    assert report.good
    for label in range(len(source.labels)):
        infos = [[i for i in e["segments_info"] if i["label_id"] == label] for e in examples]
        assert report.images_per_label[label] == sum(map(bool, infos))
        assert report.segments_per_label[label] == sum(map(len, infos))
        masks = [np.isin(e["segmentation"], [i["id"] for i in x]) for e, x in zip(examples, infos, strict=True)]
        assert report.pixels_per_label[label] == sum(mask.sum() for mask in masks)
    assert report.void_pixels == sum((example["segmentation"] == 0).sum() for example in examples)
    assert inspect(source, limit=2).images == 2


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"map": [[1]], "segments": [(1, 2)]}, "label id 2 is outside of the 2 labels, which are 0 to 1"),
        ({"map": [[1]], "segments": [(1, -1)]}, "label id -1 is outside"),
        ({"map": [[1, 5]], "segments": [(1, 0)]}, r"ids \[5\] are in the map, but not in segments_info"),
        ({"map": [[1, 1]], "segments": [(1, 0), (4, 0)]}, r"ids \[4\] are in segments_info, but not in the map"),
        ({"map": [[1]], "segments": [(1, 0), (1, 1)]}, "segments_info has an id twice"),
        ({"map": [[-1]], "segments": []}, "holds the segment id -1"),
        ({"map": [[1]], "segments": [(1, 0)], "size": (2, 2)}, r"\(1, 1\) pixels, but the image \(2, 2\)"),
    ],
)
def test_examples_that_contradict_themselves_are_named(example, message):
    report = inspect(source_of({"map": [[1]], "segments": [(1, 0)]}, example))
    assert (report.images, report.usable) == (2, 1)
    (problem,) = report.problems.first
    assert problem.startswith("image 1: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem)


def test_image_ids_that_occur_twice_are_a_problem():
    row = {"map": [[1]], "segments": [(1, 0)], "image_id": "a"}
    assert inspect(source_of(row, row)).problems.first == ["image a: the image id 'a' occurs twice"]


def test_void_images_and_absent_labels_are_warnings_until_all_are_void():
    void, full = {"map": [[0, 0]], "segments": []}, {"map": [[1, 1]], "segments": [(1, 0)]}
    report = inspect(source_of(full, void))
    assert report.problems.count == 0
    assert report.warnings.first == ["image 1: the whole image is void", "1 of 2 labels never occur: ground"]
    report = inspect(source_of(void, void))
    assert report.mistakes == ["all 2 images are void: not one segment is labelled"] and not report.good


def test_damaged_files_are_reported_and_the_rest_is_counted(tmp_path):
    folder = write_panoptic_folder(tmp_path, count=6)
    (folder / "images" / "0.png").write_bytes(b"no image")
    (folder / "panoptic" / "1.png").unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "panoptic" / "2.png")

    def edit(content):
        content["annotations"][3]["segments_info"].pop()  # a segment of the map without an entry
        content["annotations"][4]["segments_info"].append({"id": 77, "category_id": 10})  # an entry without pixels

    edit_json(folder / "panoptic.json", edit)
    report = inspect(load_panoptic_folder(folder))
    assert (report.images, report.usable, report.problems.count) == (6, 2, 4)
    for problem, name in zip(
        report.problems.first, ("images/0", "panoptic/1", "panoptic/2", "panoptic/3"), strict=True
    ):
        assert f"{name}.png: " in problem
    count = len(json.loads((folder / "panoptic.json").read_text())["annotations"][4]["segments_info"])
    assert report.warnings.first[0] == f"{folder}/panoptic/4.png: 1 of its {count} segments have no pixel"


def write_values(folder, *maps):
    """Replaces the label maps of a semantic folder of three labels by rows of these values."""
    for index, values in enumerate(maps):
        array = np.resize(np.array(values, dtype=np.uint16 if max(values) > 255 else np.uint8), (40, 56))
        Image.fromarray(array).save(folder / "labels" / f"{index}.png")


@pytest.mark.parametrize(
    ("maps", "settings", "expected"),
    [
        (
            [[0, 1, 2, 255], [3, 1, 0]],
            {},
            "values of 0 to 3, but the 3 labels have 0 to 2: did you mean --reduce_labels true?",
        ),
        ([[0, 1], [65535, 2]], {}, "is 65535 void? Then --ignore_index 65535 is right"),
        ([[0, 254, 1], [2, 254]], {}, "is 254 void? Then --ignore_index 254 is right"),
        (
            [[0, 17, 1], [2, 90]],
            {},
            "values of 0 to 90, but the 3 labels have 0 to 2: labels.json must name every value",
        ),
        ([[0, 1], [2, 2]], {"ignore_index": 0}, "ignore_index 0 is the value of the label 'road' too"),
    ],
)
def test_wrong_settings_of_label_maps_are_explained(tmp_path, maps, settings, expected):
    folder = write_semantic_folder(tmp_path, count=2)
    write_values(folder, *maps)
    settings = {"ignore_index": 255, "reduce_labels": False} | settings
    report = inspect(load_semantic_folder(folder, **settings), **settings)
    (mistake,) = report.mistakes
    assert expected in mistake and not report.good
    # The files that cannot be used are named too.
    assert len([problem for problem in report.problems.first if ".png: " in problem]) == 2 - report.usable


def test_the_setting_that_the_advice_names_is_right(tmp_path):
    folder = write_semantic_folder(tmp_path, count=2)
    write_values(folder, [0, 1, 2, 3], [3, 1, 0])
    settings = {"ignore_index": 255, "reduce_labels": True}
    report = inspect(load_semantic_folder(folder, **settings), **settings)
    assert report.good and report.warnings.count == 0
    assert report.images_per_label.tolist() == [2, 1, 2]


def test_reduced_labels_that_need_not_be_are_suspected(tmp_path):
    folder = write_semantic_folder(tmp_path, count=2)
    write_values(folder, [0, 1, 2], [1, 2])
    settings = {"ignore_index": 255, "reduce_labels": True}
    report = inspect(load_semantic_folder(folder, **settings), **settings)
    assert any("--reduce_labels false is right" in warning for warning in report.warnings.first)


def test_messages_are_all_counted_but_not_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("maskformer.data.validation.KEPT", 3)
    folder = write_semantic_folder(tmp_path, count=5)
    write_json(folder / "labels.json", ["road"])
    problems = inspect(load_semantic_folder(folder)).problems
    assert problems.count == 5 and len(problems.first) == 3


def test_threads_keep_the_order_and_read_only_a_little_ahead():
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_threads(lambda number: number * number, numbers(), threads=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) <= 12
    assert list(results) == [number * number for number in range(5, 100)]


@pytest.mark.parametrize(("column", "settings"), [(1, {}), (2, {"reduce_labels": True}), (3, {"ignore_index": 0})])
def test_the_worked_table_of_the_documentation_is_true(tmp_path, column, settings):
    lines = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 5
    folder = write_semantic_folder(tmp_path, count=1)
    write_json(folder / "labels.json", ["wall", "building", "sky"])
    for row in rows:
        write_values(folder, [int(row[0])])
        source = load_semantic_folder(folder, **settings)
        if row[column] == "error":
            assert inspect(source).usable == 0
        else:
            names = [source.labels.names[info["label_id"]] for info in source[0]["segments_info"]]
            assert names == ([] if row[column] == "void" else [row[column]])


def test_the_documentation_names_every_source():
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert [name for name in SOURCES if f"`{name}`" not in text and f"--source {name}" not in text] == []
