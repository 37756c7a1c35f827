"""Datasets of the Hub: what is said of settings, rows and files that do not fit."""

from __future__ import annotations

import dataclasses
import hashlib

import datasets
import numpy as np
import pytest
from PIL import Image

from folders import write_json
from hub_trees import (
    MAPS,
    NAMES,
    PANOPTIC,
    SIZE,
    blocks,
    encoded,
    named,
    panoptic_rows,
    photograph,
    write_parquet,
    write_semantic,
)
from maskformer.data.example import BadSample
from maskformer.data.hub import load_hub
from maskformer.data.validation import inspect

pytestmark = pytest.mark.usefixtures("hub_cache")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "nobody/nothing"}, "the split 'train' of the dataset 'nobody/nothing' cannot be read: .*Hub"),
        ({"config": "small"}, "cannot be read: .*'small' not found"),
        ({"splits": {"train": "training"}}, "the split 'training' of the dataset .* cannot be read: Unknown split"),
        (
            {"image_column": "pixel_values"},
            "no column 'pixel_values'; the columns of .* are image, label, name; .*--",
        ),
        ({"label_column": "annotation"}, "no column 'annotation'; the columns .*; is it another. --label_column names"),
        ({"kind": "panoptic"}, "no column 'segments_info'; .* --segments_column names it"),
        ({"id_column": "key"}, "no column 'key'; .*--id_column names it"),
        ({"id_column": "label"}, "the column 'label' holds no ids, but Image"),
        ({"label_column": "name"}, "the column 'name' holds no images, but Value"),
        ({"label_names": "ade20k"}, "no label set 'ade20k'; there are ade20k-150"),
        ({"label_names": "names.json"}, "names.json: there is no such file; it holds the label names"),
    ],
)
def test_settings_that_do_not_fit_the_dataset_are_named(tmp_path, settings, message):
    folder = write_semantic(tmp_path / "repository", MAPS[:1], name=["a"])
    write_json(folder / "labels.json", list(NAMES.values()))
    with pytest.raises(ValueError, match=message):
        load_hub(dataclasses.replace(named(folder), **settings), "train")


def test_a_dataset_without_label_names_is_refused(tmp_path):
    folder = write_semantic(tmp_path / "repository", MAPS[:1])
    with pytest.raises(ValueError, match=r"has no labels.json or id2label.json, .* --label_names FILE.json names them"):
        load_hub(named(folder), "train")
    write_json(folder / "id2label.json", {"road": "a"})
    with pytest.raises(ValueError, match="repository/id2label.json: 'road' is no pixel value"):
        load_hub(named(folder), "train")


def test_only_parquet_files_are_streamed(tmp_path):
    folder = tmp_path / "repository" / "train"
    folder.mkdir(parents=True)
    Image.fromarray(photograph(0)).save(folder / "0.png")
    with pytest.raises(ValueError, match="only parquet files can be streamed"):
        load_hub(named(tmp_path / "repository"), "train", streaming=True)


def edited(row: dict, **changes) -> dict:
    return {**row, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": {"bytes": b"no image", "path": None}}, "row 0, image '.*': image: not a readable image"),
        ({"label": {"bytes": b"no image", "path": None}}, "row 0, image '.*': label: not a readable panoptic PNG"),
        ({"label": None}, r"repository \(train\), row 0: label: the cell is empty"),
        (
            {"label": encoded(np.zeros((9, 9, 3), np.uint8))},
            r"row 0, image '.*': label: \(9, 9\) pixels, but its image has \(16, 24\)",
        ),
        ({"segments_info": []}, r"label: the segment ids \[9, 258, 70000\] are in the map, but not in segments_info"),
        (
            {"segments_info": [{"id": 9, "category_id": 3, "iscrowd": 0, "bbox": [], "area": 0}]},
            "label: the segment .*'category_id': 3.* needs an id and a category_id of the labels",
        ),
        ({"segments_info": panoptic_rows()[0]["segments_info"] * 2}, "label: segments_info has an id twice"),
    ],
)
def test_bad_panoptic_rows_are_named(tmp_path, change, message):
    folder = tmp_path / "repository"
    write_parquet(folder, "train", [edited(panoptic_rows()[0], **change)], PANOPTIC)
    write_json(folder / "labels.json", {"1": "person", "200": "rug"})
    with pytest.raises(BadSample, match=message):
        load_hub(named(folder, kind="panoptic"), "train")[0]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((*SIZE, 3), (9, 1, 0), np.uint8), r"label: the values \[9\] are no labels; .* Did you mean"),
        (np.zeros(SIZE, np.uint8), "label: not a label map in red, green and blue"),
        (np.zeros((9, 9, 3), np.uint8), r"label: \(9, 9\) pixels, but its image has \(16, 24\)"),
    ],
)
def test_bad_instance_rows_are_named(tmp_path, pixels, message):
    folder = tmp_path / "repository"
    rows = [{"image": encoded(photograph(0)), "label": encoded(pixels)}]
    write_parquet(folder, "train", rows, {"image": datasets.Image(), "label": datasets.Image()})
    write_json(folder / "labels.json", NAMES)
    with pytest.raises(BadSample, match=message):
        load_hub(named(folder, kind="instance"), "train")[0]


def test_values_that_are_no_labels_are_named(tmp_path):
    folder = write_semantic(tmp_path / "repository", [blocks(0, 3)])
    write_json(folder / "labels.json", NAMES)
    with pytest.raises(BadSample, match=r"row 0, .*label: the values \[3\] are no labels; .* mean reduce_labels"):
        load_hub(named(folder), "train")[0]


def test_the_first_pass_says_which_setting_would_fit(tmp_path):
    folder = write_semantic(tmp_path / "repository", [blocks(0, 1, 3), blocks(255), blocks(2)])
    write_json(folder / "labels.json", NAMES)
    report = inspect(load_hub(named(folder), "train"), ignore_index=255, reduce_labels=False)
    assert report.mistakes == [
        "label maps hold values of 0 to 3, but the 3 labels have 0 to 2: did you mean --reduce_labels true?"
    ]
    assert report.problems.count == 1
    digest = hashlib.sha256(encoded(photograph(1))["bytes"]).hexdigest()[:16]
    assert f"image {digest}: the whole image is void" in report.warnings.first
