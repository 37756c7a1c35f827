"""Mapillary Vistas: what is read of a tree in the official layout, and what is said of bad files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from ade20k_trees import assert_prepared_the_same, blocks, save, write_mapillary_vistas
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.label_set import load_label_set
from maskformer.data.mapillary_vistas import load_mapillary_vistas

NAMES = ["-1JEyeOYVPUTdAhP5u9uJw", "b2 _x"]


@pytest.mark.parametrize("labels", ["labels", "v1.2/labels"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_palette_indices_are_labels_and_65_is_void(tmp_path, split, labels):
    write_mapillary_vistas(tmp_path / "mapillary_vistas", labels)
    for folder in (tmp_path, tmp_path / "mapillary_vistas"):
        source = load_mapillary_vistas(folder, split)
        assert source.labels == load_label_set("mapillary-vistas-65")
        assert [source[index]["image_id"] for index in range(len(source))] == NAMES
        example = source[0]
        np.testing.assert_array_equal(semantic_map(example), blocks([[0, 1, 30], [55, 64, 255]]))
        assert example["segments_info"] == [{"id": i + 1, "label_id": i, "iscrowd": 0} for i in (0, 1, 30, 55, 64)]
        part = {"train": "training"}.get(split, split)
        photo = Image.open(tmp_path / "mapillary_vistas" / part / "images" / f"{NAMES[0]}.jpg")
        np.testing.assert_array_equal(example["image"], np.array(photo))


def test_prepared_examples_are_the_same(tmp_path):
    source = load_mapillary_vistas(write_mapillary_vistas(tmp_path / "files"), "validation")
    assert_prepared_the_same(source, "validation", tmp_path / "out")


def test_labels_of_version_2_are_refused(tmp_path):
    folder = write_mapillary_vistas(tmp_path)
    save(blocks([[0, 66, 123], [0, 0, 0]]), folder / "training" / "labels" / f"{NAMES[0]}.png")
    message = r"the values \[66, 123\] are no labels; the 65 labels have 0 to 64, and void is 65. .* use those of v1.2"
    with pytest.raises(BadSample, match=f"labels/{NAMES[0]}.png: {message}"):
        load_mapillary_vistas(folder, "train")[0]


def test_files_that_are_missing_are_named(tmp_path):
    folder = write_mapillary_vistas(tmp_path)
    (folder / "training" / "labels" / f"{NAMES[0]}.png").unlink()
    with pytest.raises(BadSample, match=f"labels/{NAMES[0]}.png: there is no such label map"):
        load_mapillary_vistas(folder, "train")[0]
    shutil.rmtree(folder / "training" / "labels")
    with pytest.raises(ValueError, match="training/labels: there is no such folder; expected are training/ and"):
        load_mapillary_vistas(folder, "train")
    with pytest.raises(ValueError, match="elsewhere/validation/images: there is no such folder"):
        load_mapillary_vistas(tmp_path / "elsewhere", "validation")
