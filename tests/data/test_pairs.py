"""Lists of pairs: CSV, TSV and JSONL as programs write them, and what is said of bad lines."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from folders import write_json, write_semantic_folder
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.pairs import load_pairs
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.sources import load_source
from maskformer.data.validation import inspect
from maskformer.recipes.arguments import DataArguments

PAIRS = [(f"images/{index}.jpg", f"labels/{index}.png") for index in range(3)]


def write_list(folder, name: str, content: str | bytes):
    """A semantic folder of three images with a list of that content."""
    write_semantic_folder(folder)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def csv_of(*pairs, end: str = "\n", delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + end for row in (("image", "label"), *pairs))


FILES = {
    "plain": ("list.csv", csv_of(*PAIRS)),
    "byte order mark and CRLF": ("list.csv", b"\xef\xbb\xbf" + csv_of(*PAIRS, end="\r\n").encode()),
    "quotes": ("list.csv", '"image","label"\n' + "".join(f'"{image}","{label}"\n' for image, label in PAIRS)),
    "spaces after commas": ("list.csv", csv_of(*PAIRS, delimiter=", ")),
    "blank lines and no last end": ("list.csv", "\n" + csv_of(*PAIRS, end="\n\n").strip()),
    "other order, other columns": ("LIST.CSV", "width,label,image\n" + "".join(f"56,{b},{a}\n" for a, b in PAIRS)),
    "tabs": ("list.tsv", csv_of(*PAIRS, delimiter="\t")),
    "JSON lines": ("list.jsonl", "".join(json.dumps({"image": a, "label": b, "n": 1}) + "\n" for a, b in PAIRS)),
    "JSON lines from elsewhere": (
        "list.jsonl",
        b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps({"label": b, "image": a}) for a, b in PAIRS).encode(),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_lists_read_as_the_folder_they_name(tmp_path, kind):
    source = load_pairs(write_list(tmp_path, *FILES[kind]))
    folder = load_semantic_folder(tmp_path)
    assert source.labels == folder.labels
    assert [row["image_id"] for row in source.rows] == [image for image, _ in PAIRS]
    for index in range(3):
        np.testing.assert_equal(source[index], folder[index] | {"image_id": f"images/{index}.jpg"})


def test_pairs_need_not_share_a_name_nor_come_in_order(tmp_path):
    (tmp_path / "labels, old").mkdir()
    values = np.array([[0, 1], [2, 255]], np.uint8).repeat(20, 0).repeat(28, 1)
    Image.fromarray(values).save(tmp_path / "labels, old" / "first.png")
    (tmp_path / "a").mkdir()
    content = 'image,label,image_id\nimages/2.jpg,labels/2.png,\n./images/0.jpg,"labels, old/first.png",b\n'
    write_list(tmp_path / "a", "train.csv", content)
    (tmp_path / "labels, old").rename(tmp_path / "a" / "labels, old")
    source = load_pairs(tmp_path / "a" / "train.csv")
    assert [row["image_id"] for row in source.rows] == ["images/2.jpg", "b"]
    np.testing.assert_array_equal(semantic_map(source[1]), values)
    np.testing.assert_array_equal(source[1]["image"], np.array(Image.open(tmp_path / "a" / "images" / "0.jpg")))


def test_absolute_paths_inside_of_the_folder_and_numbers_as_image_ids(tmp_path, monkeypatch):
    image, label = (str(tmp_path / name) for name in PAIRS[0])
    lines = [{"image": image, "label": label}, {"image": PAIRS[1][0], "label": PAIRS[1][1], "image_id": 7}]
    path = write_list(tmp_path, "list.jsonl", "\n".join(map(json.dumps, lines)))
    assert [row["image_id"] for row in load_pairs(path).rows] == ["images/0.jpg", "7"]
    monkeypatch.chdir(tmp_path)
    assert [row["image_id"] for row in load_pairs("list.jsonl").rows] == ["images/0.jpg", "7"]


def test_ignore_index_and_reduce_labels_are_settings(tmp_path):
    path = write_list(tmp_path, "list.csv", csv_of(PAIRS[0]))
    values = np.array([[0, 1, 2, 3], [9, 3, 2, 1]], np.uint8).repeat(20, 0).repeat(14, 1)
    Image.fromarray(values).save(tmp_path / "labels" / "0.png")
    expected = np.array([[255, 0, 1, 2], [255, 2, 1, 0]]).repeat(20, 0).repeat(14, 1)
    data = DataArguments(source="pairs", validation_path=str(path), ignore_index=9, reduce_labels=True)
    np.testing.assert_array_equal(semantic_map(load_source(data, "validation")[0]), expected)
    with pytest.raises(BadSample, match=r"labels/0.png: the values \[3, 9\] are no labels.*reduce_labels"):
        load_pairs(path)[0]
    report = inspect(load_pairs(path), ignore_index=255, reduce_labels=False)
    assert "values of 0 to 9, but the 3 labels have 0 to 2" in report.mistakes[0]


def test_sources_travel_and_prepared_data_are_the_same(tmp_path):
    source = pickle.loads(pickle.dumps(load_pairs(write_list(tmp_path / "raw", *FILES["plain"]))))
    prepare([Job.of("train", source, {"source": "pairs"}, 1, False)], tmp_path / "out")
    prepared = load_prepared(tmp_path / "out", "train")
    assert prepared.labels == source.labels and len(prepared) == 3
    for index in range(3):
        np.testing.assert_equal(prepared[index], source[index])


LINE = "images/0.jpg,labels/0.png\n"
OBJECT = '{"image": "images/0.jpg", "label": "labels/0.png"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,mask\n" + LINE, r"a.csv: line 1: there is no column 'label', but \['image', 'mask'\]"),
        ("a.csv", "image;label\n", r"a.csv: line 1: there is no column 'image', but \['image;label'\]"),
        ("a.csv", LINE, r"a.csv: line 1: there is no column 'image', but \['images/0.jpg', 'labels/0.png'\]"),
        ("a.csv", "", "a.csv: the dataset is empty"),
        ("a.csv", "image,label\n", "a.csv: the dataset is empty; the file lists no pair"),
        ("a.csv", "image,label\n" + LINE + "images/1.jpg,\n", "a.csv: line 3: 'label' is ''; a path is needed"),
        ("a.csv", "image,label\n" + LINE + "images/1.jpg\n", "a.csv: line 3: 'label' is None; a path is needed"),
        ("a.csv", "image,label\n" + LINE + "\n , x.png\n", "a.csv: line 4: 'image' is ''"),
        ("a.csv", "image,label\nimages/0, new.jpg,labels/0.png\n", "a.csv: line 2: 3 cells, but 2 columns"),
        ("a.csv", 'image,label\n"images/0.jpg,labels/0.png\n', "a.csv: line 2 is not a row of cells"),
        ("a.csv", "image,label\n" + LINE + LINE, "a.csv: line 3: line 2 has the image_id 'images/0.jpg' too"),
        (
            "a.csv",
            "image,label,image_id\nimages/0.jpg,labels/0.png,x\nimages/1.jpg,labels/1.png,x\n",
            "a.csv: line 3: line 2 has the image_id 'x' too",
        ),
        ("a.csv", "image,label\n../b.jpg,labels/0.png\n", "a.csv: line 2: the file '../b.jpg' lies outside of"),
        ("a.csv", "image,label\nimages/0.jpg,/etc/b.png\n", "a.csv: line 2: the file '/etc/b.png' lies outside of"),
        ("a.csv", b"image,label\nimages/\xff.jpg,labels/0.png\n", "a.csv: not UTF-8"),
        ("a.jsonl", "", "a.jsonl: the dataset is empty"),
        ("a.jsonl", OBJECT + "\n{\n", "a.jsonl: line 3: not valid JSON"),
        ("a.jsonl", OBJECT + "[1]\n", r"a.jsonl: line 2: \[1\] is no mapping"),
        ("a.jsonl", '{"image": "images/0.jpg"}', "a.jsonl: line 1: 'label' is None; a path is needed"),
        ("a.jsonl", '{"image": 3, "label": "x"}', "a.jsonl: line 1: 'image' is 3; a path is needed"),
        ("a.jsonl", OBJECT + OBJECT, "a.jsonl: line 2: line 1 has the image_id"),
        ("a.jsonl", b'{"image": "\xff"}', "a.jsonl: not UTF-8"),
        ("a.txt", LINE, "a.txt: a list of pairs is a .csv, .tsv or .jsonl file"),
    ],
)
def test_bad_lines_are_named(tmp_path, name, content, message):
    path = write_list(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        load_pairs(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="list.csv: there is no such file"):
        load_pairs(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text(csv_of(PAIRS[0]))
    with pytest.raises(ValueError, match="labels.json: there is no such file"):
        load_pairs(tmp_path / "list.csv")
    write_json(tmp_path / "labels.json", ["road"])
    source = load_pairs(tmp_path / "list.csv")
    with pytest.raises(BadSample, match="images/0.jpg: there is no such image"):
        source[0]
