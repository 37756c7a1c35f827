"""COCO-Stuff 10K in its official layouts: MATLAB files of two kinds, and the maps prepared from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from coco_trees import assert_same_example, write_image
from maskformer.data.coco_stuff_10k import load_coco_stuff_10k
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.label_set import load_label_set
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared

NAMES = ["COCO_train2014_000000000077", "COCO_train2014_000000000143", "COCO_train2014_000000000261"]
# 1 is unlabelled, 2 the first thing, 81 the last one, 82 the first stuff, 172 the last.
VALUES = np.array([[1, 2, 81], [82, 172, 2]], np.uint8).repeat(8, 0).repeat(8, 1)  # (16, 24)
LABELS = np.array([[255, 0, 79], [80, 170, 0]]).repeat(8, 0).repeat(8, 1)  # (16, 24)


def write_hdf5(path: Path, values: np.ndarray, names: int = 172) -> None:
    """A file as MATLAB 7.3 writes it: arrays transposed, a header of 512 bytes, cells as references."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        file["S"] = values.T
        cells = file.create_dataset("names", (1, names), dtype=h5py.ref_dtype)
        cells[:] = file["S"].ref
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0"))


def write_matlab_5(path: Path, values: np.ndarray, names: int = 172) -> None:
    """A file as MATLAB 5 to 7 write it."""
    savemat(path, {"S": values, "names": np.array(["a"] * names, dtype=object)})


def write_png(path: Path, values: np.ndarray) -> None:
    """A map as the official MaskFormer prepares it: values - 2, in 8 bits, so that 1 becomes 255."""
    Image.fromarray((values.astype(np.int64) - 2).astype(np.uint8)).save(path)


def write_tree(folder: Path, write=write_matlab_5, values: np.ndarray = VALUES) -> Path:
    """Two training images and one of the test split; the second training map is upside down."""
    for name in ("imageLists", "annotations"):
        (folder / name).mkdir(parents=True)
    (folder / "imageLists" / "train.txt").write_text("\r\n".join(NAMES[:2]) + "\r\n")
    (folder / "imageLists" / "test.txt").write_text(NAMES[2])
    for index, name in enumerate(NAMES):
        write_image(folder / "images" / f"{name}.jpg", index)
        write(folder / "annotations" / f"{name}.mat", values[::-1] if index == 1 else values)
    return folder


def write_prepared_tree(folder: Path, values: np.ndarray = VALUES) -> Path:
    """The same, as the official MaskFormer prepares it."""
    for index, name in enumerate(NAMES):
        part = "test" if index == 2 else "train"
        write_image(folder / "images_detectron2" / part / f"{name}.jpg", index)
        (folder / "annotations_detectron2" / part).mkdir(parents=True, exist_ok=True)
        write_png(folder / "annotations_detectron2" / part / f"{name}.png", values[::-1] if index == 1 else values)
    return folder


def write_both(folder: Path) -> Path:
    """Prepared maps beside the original images and lists; the MATLAB files are gone."""
    write_tree(folder, write=lambda path, values: None)
    (folder / "annotations").rmdir()
    write_prepared_tree(folder)
    for path in sorted((folder / "images_detectron2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "images_detectron2").rmdir()
    return folder


TREES = {
    "MATLAB 7.3": lambda folder: write_tree(folder, write_hdf5),
    "MATLAB 5": write_tree,
    "prepared": write_prepared_tree,
    "prepared beside the images": write_both,
}


@pytest.mark.parametrize("tree", TREES)
def test_values_are_labels(tmp_path, tree):
    source = load_coco_stuff_10k(TREES[tree](tmp_path), "train")
    labels = load_label_set("coco-stuff-10k-171")
    assert source.labels == labels and len(source) == 2
    assert [labels.names[index] for index in (0, 79, 80, 170)] == ["person", "toothbrush", "banner", "wood"]
    for index, expected in enumerate((LABELS, LABELS[::-1])):
        np.testing.assert_array_equal(semantic_map(source[index]), expected)
        assert [info["label_id"] for info in source[index]["segments_info"]] == [0, 79, 80, 170]
        assert source[index]["image_id"] == NAMES[index]
    validation = load_coco_stuff_10k(tmp_path, "validation")
    assert [row["image_id"] for row in validation.rows] == NAMES[2:]
    np.testing.assert_array_equal(semantic_map(validation[0]), LABELS)


def test_every_value_is_one_label(tmp_path):
    values = np.full((16, 24), 1, np.uint8)
    values.ravel()[:172] = np.arange(1, 173)
    for write in (write_tree, write_prepared_tree):
        example = load_coco_stuff_10k(write(tmp_path / write.__name__, values=values), "validation")[0]
        expected = np.full(16 * 24, 255)
        expected[1:172] = np.arange(171)
        np.testing.assert_array_equal(semantic_map(example).ravel(), expected)


@pytest.mark.parametrize("inner", ["coco_stuff_10k", "coco/coco_stuff_10k"])
def test_folders_that_hold_it_are_read_too(tmp_path, inner):
    write_tree(tmp_path / inner)
    assert len(load_coco_stuff_10k(tmp_path, "train")) == 2


def test_prepared_examples_are_the_same(tmp_path):
    source = load_coco_stuff_10k(write_tree(tmp_path / "files"), "train")
    prepare([Job.of("train", source, {"source": "coco_stuff_10k"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "train")
    assert prepared.labels == source.labels and len(prepared) == 2
    for index in range(2):
        assert_same_example(prepared[index], source[index])


def test_what_is_missing_is_named_with_the_layout(tmp_path):
    with pytest.raises(ValueError, match=r"annotations: there is no such folder; COCO-Stuff 10K v1.0 is images/"):
        load_coco_stuff_10k(tmp_path, "train")
    write_tree(tmp_path)
    lists = tmp_path / "imageLists"
    (lists / "test.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="test.txt: the dataset is empty"):
        load_coco_stuff_10k(tmp_path, "validation")
    (lists / "test.txt").unlink()
    with pytest.raises(ValueError, match="test.txt: there is no such file; COCO-Stuff 10K v1.0 is"):
        load_coco_stuff_10k(tmp_path, "validation")
    for content, message in (("a\nb\n a\n", "line 3 is 'a', which line 1 is already"), ("../../b", "lies outside of")):
        (lists / "train.txt").write_text(content)
        with pytest.raises(ValueError, match=f"train.txt: .*{message}"):
            load_coco_stuff_10k(tmp_path, "train")


def test_h5py_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    write_tree(tmp_path / "new", write_hdf5)
    write_tree(tmp_path / "old")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "h5py" else found(name, *rest))
    with pytest.raises(ValueError, match=r"077.mat: a file of MATLAB 7.3, which only h5py reads; .* pip install h5py"):
        load_coco_stuff_10k(tmp_path / "new", "train")
    assert len(load_coco_stuff_10k(tmp_path / "old", "train")) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no such label map"),
        (lambda path: path.write_bytes(b"MATLAB"), "not a MATLAB file with a label map 'S'"),
        (lambda path: savemat(path, {"T": VALUES}), "not a MATLAB file with a label map 'S' .*S"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" * 90), "not a MATLAB file with a label map 'S'"),
        (lambda path: savemat(path, {"S": VALUES + 0.5}), r"'S' is float64 \(16, 24\), not a map of whole numbers"),
        (lambda path: savemat(path, {"S": VALUES.T}), r"\(24, 16\) pixels, but its image has \(16, 24\)"),
        (
            lambda path: write_matlab_5(path, VALUES + 1),
            r"the values \[173\] are no labels; the 171 labels have 2 to 172, and void is 1. v1.1 .* counts otherwise",
        ),
        (lambda path: write_matlab_5(path, VALUES - 1), r"the values \[0\] are no labels"),
        (lambda path: write_matlab_5(path, VALUES, 183), "its list of names has 183, not the 172 of v1.0"),
        (lambda path: write_hdf5(path, VALUES, 183), "its list of names has 183, not the 172 of v1.0"),
    ],
)
def test_bad_maps_are_bad_samples(tmp_path, damage, message):
    write_tree(tmp_path)
    damage(tmp_path / "annotations" / f"{NAMES[0]}.mat")
    source = load_coco_stuff_10k(tmp_path, "train")
    with pytest.raises(BadSample, match=f"{NAMES[0]}.mat: {message}"):
        source[0]
    assert len(source[1]["segments_info"]) == 4


def test_numbers_of_matlab_are_often_floats(tmp_path):
    write_tree(tmp_path, values=VALUES.astype(np.float64))
    np.testing.assert_array_equal(semantic_map(load_coco_stuff_10k(tmp_path, "train")[0]), LABELS)
