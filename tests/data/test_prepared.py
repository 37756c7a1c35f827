"""Prepared data: what comes back is what was put in, and what is said of damaged folders."""

from __future__ import annotations

import functools
import io
import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from folders import edit_json, write_panoptic_folder, write_semantic_folder
from maskformer.data.example import BadSample, Example, Source
from maskformer.data.label_set import LabelSet
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.preparation import Job, prepare, verify
from maskformer.data.prepared import decode_prepared, encode_example, load_prepared
from maskformer.data.semantic_folder import load_semantic_folder

LABELS = LabelSet.from_categories(
    [{"id": 7, "name": "cell", "color": [1, 2, 3]}, {"id": 3, "name": "sky", "isthing": 0}]
)


def assert_same_example(actual: Example, expected: Example):
    assert actual.keys() == expected.keys()
    for key in ("image", "segmentation"):
        assert actual[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(actual[key], expected[key])
    assert actual["segments_info"] == expected["segments_info"]
    assert actual["image_id"] == expected["image_id"]


def given(maps: np.ndarray, row: dict) -> Example:
    """An example with these maps; ids are numbered, and every second segment is a crowd."""
    image = np.random.default_rng(row["index"]).integers(0, 256, (*maps.shape[-2:], 3), dtype=np.uint8)
    infos = [{"id": i, "label_id": i % 2, "iscrowd": (i + 1) % 2} for i in range(1, int(maps.max(initial=0)) + 1)]
    return Example(image=image, segmentation=maps, segments_info=infos, image_id=f"é {row['index']}")


def source_of(maps: np.ndarray, count: int = 1) -> Source:
    rows = datasets.Dataset.from_dict({"index": list(range(count))})
    return Source(rows, LABELS, functools.partial(given, maps.astype(np.int32)))


def prepared(source: Source, folder, num_shards: int = 1, split: str = "train"):
    prepare([Job.of(split, source, {"source": "test"}, num_shards, skip_bad=False)], folder)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["panoptic", "semantic"])
def test_prepared_examples_are_those_of_the_folder(tmp_path, kind, streaming):
    write, load = {
        "panoptic": (functools.partial(write_panoptic_folder, count=5, size=48), load_panoptic_folder),
        "semantic": (functools.partial(write_semantic_folder, count=5), load_semantic_folder),
    }[kind]
    source = load(write(tmp_path / "folder"))
    result = load_prepared(prepared(source, tmp_path / "out", num_shards=2), "train", streaming)
    assert result.labels == source.labels
    examples = [result.decode(row) for row in result.rows]
    assert len(examples) == 5
    for index, example in enumerate(examples):
        assert_same_example(example, source[index])
    if streaming:
        assert result.rows.num_shards == 2
        assert result.rows.info.splits["train"].shard_lengths == [2, 3]
    else:
        assert len(result) == 5


@pytest.mark.parametrize(
    "maps",
    [
        np.zeros((4, 6)),
        np.arange(24).reshape(4, 6),
        np.arange(300).reshape(15, 20),
        np.arange(12).reshape(1, 3, 4),
        np.array([[[1, 1], [0, 0]], [[2, 0], [2, 0]], [[0, 0], [0, 300]]]),
        np.zeros((0, 5, 3)),
    ],
    ids=["void", "8-bit", "16-bit", "stack of one", "overlapping", "stack of none"],
)
def test_every_form_of_map_comes_back(tmp_path, maps):
    source = source_of(maps)
    assert_same_example(load_prepared(prepared(source, tmp_path / "out"), "train")[0], source[0])


def test_maps_take_8_bits_where_their_ids_fit():
    modes = []
    for largest in (255, 256):
        row = encode_example(source_of(np.full((2, 2), largest)), 0)
        modes.append(Image.open(io.BytesIO(row["segmentation"][0]["bytes"])).mode)
    assert modes == ["L", "I;16"]
    with pytest.raises(BadSample, match="70000 does not fit"):
        encode_example(Source(source_of(np.zeros((2, 2))).rows, LABELS, too_many_segments), 0)


def too_many_segments(row: dict) -> Example:
    return Example(
        image=np.zeros((2, 2, 3), np.uint8), segmentation=np.full((2, 2), 70000), segments_info=[], image_id="a"
    )


def test_original_files_are_kept_and_other_pixels_become_a_png(tmp_path):
    folder = write_semantic_folder(tmp_path / "folder", count=1)
    path = folder / "images" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.open(path).save(path, exif=exif)
    source = load_semantic_folder(folder)
    row = encode_example(source, 0)
    assert row["image"]["bytes"] == path.read_bytes()
    assert_same_example(decode_prepared(row), source[0])

    halved = Source(source.rows, source.labels, functools.partial(half_as_bright, source.decode))
    row = encode_example(halved, 0)
    assert Image.open(io.BytesIO(row["image"]["bytes"])).format == "PNG"
    assert_same_example(decode_prepared(row), halved[0])


def half_as_bright(decode, row: dict) -> Example:
    example = decode(row)
    return {**example, "image": example["image"] // 2}


def test_images_of_the_hub_are_kept_too():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (9, 8, 7)).save(buffer, "WEBP", lossless=True)
    rows = datasets.Dataset.from_dict({"image": [{"bytes": buffer.getvalue(), "path": None}], "index": [0]})
    row = encode_example(Source(rows, LABELS, one_color), 0)
    assert row["image"]["bytes"] == buffer.getvalue()


def one_color(row: dict) -> Example:
    image = np.full((2, 2, 3), (9, 8, 7), np.uint8)
    return Example(image=image, segmentation=np.zeros((2, 2), np.int32), segments_info=[], image_id="a")


def test_categories_are_those_of_coco_under_the_ids_of_the_source(tmp_path):
    folder = prepared(source_of(np.zeros((2, 2))), tmp_path / "out")
    categories = json.loads((folder / "labels.json").read_text())
    assert categories[0] == {"id": 7, "name": "cell", "isthing": 1, "color": [1, 2, 3]}
    assert (categories[1]["id"], categories[1]["name"], categories[1]["isthing"]) == (3, "sky", 0)
    assert load_prepared(folder, "train").labels == LABELS


def test_shards_are_parquet_that_datasets_reads_by_itself(tmp_path):
    folder = prepared(source_of(np.ones((4, 6)), count=3), tmp_path / "out", num_shards=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "labels.json",
        "manifest.json",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    rows = datasets.Dataset.from_parquet(str(folder / "train-00001-of-00002.parquet"))
    assert rows[0]["image"].size == rows[0]["segmentation"][0].size == (6, 4)
    assert pq.read_metadata(folder / "train-00000-of-00002.parquet").num_rows == 1


def test_data_that_were_made_anew_are_not_read_from_the_cache(tmp_path):
    for value in (1, 2):
        source = source_of(np.full((4, 6), value))
        folder = prepared(source, tmp_path / f"out{value}")
        (tmp_path / "data").mkdir(exist_ok=True)
        for path in folder.iterdir():
            (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
        assert load_prepared(tmp_path / "data", "train")[0]["segmentation"].max() == value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest.json: there is no such file; .*prepare_dataset"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json: not a manifest of prepared data"),
        (
            lambda f: edit_json(f / "manifest.json", lambda c: c["splits"]["train"]["shards"][1].pop("bytes")),
            "manifest.json: shard 1 of train has no 'bytes'",
        ),
        (
            lambda f: edit_json(f / "manifest.json", lambda c: c["splits"]["train"].pop("shards")),
            "manifest.json: the split 'train' has no list 'shards'",
        ),
        (lambda f: (f / "labels.json").unlink(), "labels.json: there is no such file"),
        (lambda f: (f / "train-00001-of-00002.parquet").unlink(), "train-00001-of-00002.parquet: the shard is missing"),
        (
            lambda f: (f / "train-00000-of-00002.parquet").write_bytes(b"PAR1"),
            r"train-00000-of-00002.parquet: 4 bytes, but the manifest says \d+",
        ),
        (
            lambda f: edit_json(f / "manifest.json", lambda c: c["splits"]["train"]["shards"][0].update(file="../x")),
            r"manifest.json: shard 0 of train: the file '../x' lies outside",
        ),
    ],
)
def test_damaged_folders_are_named(tmp_path, damage, message):
    folder = prepared(source_of(np.ones((4, 6)), count=2), tmp_path / "out", num_shards=2)
    damage(folder)
    for read in (functools.partial(load_prepared, split="train"), verify):
        with pytest.raises(ValueError, match=message):
            read(folder)


def test_splits_that_are_not_there_are_named(tmp_path):
    folder = prepared(source_of(np.ones((4, 6))), tmp_path / "out")
    with pytest.raises(ValueError, match="no split 'validation'; there is train"):
        load_prepared(folder, "validation")


def test_a_damaged_image_is_named():
    row = encode_example(source_of(np.ones((4, 6))), 0)
    row["image"]["bytes"] = row["image"]["bytes"][:40]
    with pytest.raises(BadSample, match="image 'é 0' of the prepared data: damaged"):
        decode_prepared(row)


def test_verify_finds_changed_bytes_and_shards_that_are_not_listed(tmp_path):
    folder = prepared(source_of(np.ones((4, 6)), count=2), tmp_path / "out", num_shards=2)
    assert verify(folder)["splits"]["train"]["examples"] == 2
    path = folder / "train-00001-of-00002.parquet"
    content = bytearray(path.read_bytes())
    (folder / "train-00000-of-00003.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="train-00000-of-00003.parquet: the shard is not in the manifest"):
        verify(folder)
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="train-00001-of-00002.parquet: its SHA-256"):
        verify(folder)
