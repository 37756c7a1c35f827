"""Datasets of the Hub, from local repositories with the same columns."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle

import datasets
import fsspec
import numpy as np
import pytest
import yaml
from PIL import Image

from ade20k_trees import write_ade20k
from coco_trees import SEGMENTS, assert_same_example, write_coco_panoptic
from folders import write_json
from hub_trees import (
    MAPS,
    NAMES,
    PANOPTIC,
    blocks,
    encoded,
    named,
    panoptic_rows,
    photograph,
    write_parquet,
    write_semantic,
)
from maskformer.data import hub, hub_labels
from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.hub import COPIES, HubDataset, load_hub
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.sources import load_source
from maskformer.data.streaming import StreamingExamples
from maskformer.recipes.arguments import DataArguments

pytestmark = pytest.mark.usefixtures("hub_cache")


@pytest.mark.parametrize("streaming", [False, True])
def test_images_and_label_maps(repository, streaming):
    source = load_hub(named(repository), "train", streaming)
    assert source.labels.names == ("road", "car", "sky") and source.labels.stuff_ids == [0, 1, 2]
    assert len(source) == 4
    examples = [source.decode(row) for row in source.rows]
    for index, (example, labels) in enumerate(zip(examples, MAPS, strict=True)):
        np.testing.assert_array_equal(example["image"], photograph(index))
        np.testing.assert_array_equal(semantic_map(example), labels)
        assert example["segmentation"].dtype == np.int32
    # Ids are made of the bytes, so that they are the same whichever way the rows are read.
    digests = [hashlib.sha256(encoded(photograph(index))["bytes"]).hexdigest()[:16] for index in range(4)]
    assert [example["image_id"] for example in examples] == digests
    if streaming:
        assert source.rows.num_shards == 2
        assert source.rows.info.splits["train"].shard_lengths == [2, 2]


def test_examples_are_those_of_a_semantic_folder(tmp_path):
    """Byte for byte the same files; EXIF, palettes and 16 bits included."""
    folder, exif = tmp_path / "folder", Image.Exif()
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    exif[0x0112] = 6  # to be turned to the right
    palette = Image.fromarray(blocks(0, 1, 2).astype(np.uint8), "P")
    palette.putpalette([200, 10, 10] * 256)
    Image.fromarray(photograph(0)).save(folder / "images" / "a.jpg", quality=90)
    palette.save(folder / "labels" / "a.png")
    Image.fromarray(photograph(1)).save(folder / "images" / "b.jpg", exif=exif)
    Image.fromarray(blocks(300, 2).T.astype(np.uint16).copy()).save(folder / "labels" / "b.png")
    Image.fromarray(photograph(2)[..., 0]).save(folder / "images" / "c.png")
    Image.fromarray(blocks(300).astype(np.uint16)).save(folder / "labels" / "c.png")
    write_json(folder / "labels.json", {"1": "car", "0": "road", "300": "sky"})

    rows = [
        {
            "picture": {"bytes": (folder / "images" / f"{stem}.{kind}").read_bytes(), "path": f"{stem}.{kind}"},
            "mask": {"bytes": (folder / "labels" / f"{stem}.png").read_bytes(), "path": None},
        }
        for stem, kind in (("a", "jpg"), ("b", "jpg"), ("c", "png"))
    ]
    repository = tmp_path / "repository"
    write_parquet(repository, "train", rows, {"picture": datasets.Image(), "mask": datasets.Image()})
    dataset = named(
        repository,
        image_column="picture",
        label_column="mask",
        id_column="picture",
        label_names=str(folder / "labels.json"),
        ignore_index=2,
    )
    expected = load_semantic_folder(folder, ignore_index=2)
    for streaming in (False, True):
        source = load_hub(dataset, "train", streaming)
        assert source.labels == expected.labels
        for index, row in enumerate(source.rows):
            assert_same_example(source.decode(row), expected[index])


def scene_parsing(official, folder):
    """The conversion of zhoubolei/scene_parse_150 to parquet, with both its configurations, of official files."""
    for split, part in (("train", "training"), ("validation", "validation")):
        for configuration, maps in (
            ("scene_parsing", "annotations"),
            ("instance_segmentation", "annotations_instance"),
        ):
            rows = []
            for path in sorted((official / "images" / part).glob("*.jpg")):
                label = official / maps / part / f"{path.stem}.png"
                cells = {"image": path, "annotation": label}
                rows.append({name: {"bytes": p.read_bytes(), "path": p.name} for name, p in cells.items()})
                rows[-1]["scene_category"] = 0
            features = {"image": datasets.Image(), "annotation": datasets.Image()}
            if configuration == "scene_parsing":
                features["scene_category"] = datasets.ClassLabel(names=["airport_terminal", "art_gallery"])
            write_parquet(folder, split, rows, features, data=f"{configuration}/{split}")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_ade20k_by_name_is_what_the_official_files_hold(tmp_path, monkeypatch, streaming):
    write_ade20k(tmp_path)
    folder = scene_parsing(tmp_path / "ADEChallengeData2016", tmp_path / "repository")
    monkeypatch.setitem(COPIES, "ade20k", dataclasses.replace(COPIES["ade20k"], name=str(folder)))
    for split, count in (("train", 2), ("validation", 1)):
        official = load_source(DataArguments(source="ade20k", data_path=str(tmp_path)), split)
        source = load_source(DataArguments(source="ade20k", streaming=streaming), split)
        assert source.labels == official.labels and len(source) == len(official) == count
        for index, row in enumerate(source.rows):
            assert_same_example(source.decode(row), official[index])


def test_coco_panoptic_by_name_is_validation_data(tmp_path, monkeypatch):
    write_coco_panoptic(tmp_path)
    rows = [
        {"image": path, "label": tmp_path / "annotations" / "panoptic_val2017" / f"{path.stem}.png"}
        for path in sorted((tmp_path / "val2017").glob("*.jpg"))
    ]
    rows = [{name: {"bytes": p.read_bytes(), "path": p.name} for name, p in row.items()} for row in rows]
    rows = [{**row, "segments_info": SEGMENTS} for row in rows]
    write_parquet(tmp_path / "repository", "train", rows, PANOPTIC)  # its only split is called so
    copy = dataclasses.replace(COPIES["coco_panoptic"], name=str(tmp_path / "repository"))
    monkeypatch.setitem(COPIES, "coco_panoptic", copy)
    official = load_source(DataArguments(source="coco_panoptic", data_path=str(tmp_path)), "validation")
    source = load_source(DataArguments(source="coco_panoptic"), "validation")
    assert source.labels == official.labels and len(source) == len(official) == 2
    expected = {example["image_id"]: example for example in map(official.decode, official.rows)}
    for example in map(source.decode, source.rows):
        assert_same_example(example, expected[example["image_id"]])
    with pytest.raises(ValueError, match="no train split; without --data_path, the folder that .* was unpacked into"):
        load_source(DataArguments(source="coco_panoptic"), "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_segments_that_a_column_lists(tmp_path, streaming):
    folder = tmp_path / "repository"
    write_parquet(folder, "train", panoptic_rows(), PANOPTIC)
    write_json(folder / "labels.json", [{"id": 1, "name": "person"}, {"id": 200, "name": "rug", "isthing": 0}])
    source = load_hub(named(folder, kind="panoptic"), "train", streaming)
    assert source.labels.names == ("person", "rug") and source.labels.is_thing == (True, False)
    for row in source.rows:
        example = source.decode(row)
        np.testing.assert_array_equal(example["segmentation"], blocks(0, 3, 2, 1))
        assert [info["label_id"] for info in example["segments_info"]] == [1, 0, 0]


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_in_red_and_instances_in_green(tmp_path, streaming):
    """The columns of qubvel-hf/ade20k-mini, whose label names are in a column."""
    names = {"background": 0, "car": 2, "person": 1}
    red, green = blocks(0, 1, 1, 2, 2, 1, 2, 0), blocks(0, 1, 2, 1, 3, 0, 255, 4)
    png = np.stack((red, green, 0 * red), axis=2).astype(np.uint8)  # (H, W, 3)
    rows = [{"image": encoded(photograph(0)), "annotation": encoded(png), "semantic_class_to_id": names}]
    values = {name: datasets.Value("int64") for name in names}
    features = {"image": datasets.Image(), "annotation": datasets.Image(), "semantic_class_to_id": values}
    write_parquet(tmp_path / "repository", "train", rows, features)
    dataset = named(tmp_path / "repository", kind="instance", label_column="annotation", ignore_index=0)
    source = load_hub(dataset, "train", streaming)
    assert source.labels.names == ("car", "person") and source.labels.is_thing == (True, True)  # background is void
    example = source.decode(next(iter(source.rows)))
    # One segment a pair of label and instance, by instance; void where there is no instance or no label.
    np.testing.assert_array_equal(example["segmentation"], blocks(0, 1, 3, 2, 4, 0, 5, 0))
    assert [info["label_id"] for info in example["segments_info"]] == [1, 0, 1, 0, 0]


def test_a_folder_of_images_is_a_dataset_too(tmp_path):
    folder = tmp_path / "repository" / "train"
    (folder / "masks").mkdir(parents=True)
    lines = []
    for index, values in enumerate(MAPS):
        Image.fromarray(photograph(index)).save(folder / f"{index}.png")
        Image.fromarray(values.astype(np.uint8)).save(folder / "masks" / f"{index}.png")
        lines.append(f'{{"file_name": "{index}.png", "label_file_name": "masks/{index}.png"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    write_json(tmp_path / "names.json", list(NAMES.values()))
    dataset = named(tmp_path / "repository", id_column="image", label_names=str(tmp_path / "names.json"))
    source = load_hub(dataset, "train")
    for index, labels in enumerate(MAPS):
        np.testing.assert_array_equal(semantic_map(source[index]), labels)
        assert source[index]["image_id"] == str(index)
    (folder / "masks" / "3.png").unlink()
    with pytest.raises(BadSample, match=r"row 3: label: the file .*3.png cannot be read"):
        source[3]


def test_parts_of_a_split(repository):
    dataset = named(repository, splits={"train": "train[:75%]", "validation": "train[75%:]"})
    assert [len(load_hub(dataset, split)) for split in ("train", "validation")] == [3, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_configurations_of_a_card(repository, streaming):
    """As `push_to_hub` writes them."""
    write_semantic(repository, [blocks(2)], data="small")
    files = {"large": "data/train-*", "small": "small/train-*"}
    configs = [{"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in files.items()]
    card = yaml.safe_dump({"configs": configs})
    (repository / "README.md").write_text(f"---\n{card}---\n")
    for name, count in (("large", 4), ("small", 1)):
        assert len(load_hub(named(repository, config=name), "train", streaming)) == count
    with pytest.raises(ValueError, match=r"cannot be read: Config name is missing.*\['large', 'small'\]"):
        load_hub(named(repository), "train", streaming)


def test_ids_of_a_column(tmp_path):
    folder = write_semantic(tmp_path / "repository", MAPS, file_name=list("abcd"), index=[7, 8, 9, 7])
    write_json(folder / "labels.json", list(NAMES.values()))
    assert load_hub(named(folder), "train")[2]["image_id"] == "c"
    streamed = load_hub(named(folder, id_column="index"), "train", streaming=True)
    assert [streamed.decode(row)["image_id"] for row in streamed.rows] == ["7", "8", "9", "7"]
    with pytest.raises(ValueError, match="the column 'index' holds image ids, but one of them twice"):
        load_hub(named(folder, id_column="index"), "train")


def test_a_streamed_epoch_has_the_examples_of_the_other_way(repository):
    augmentation = Augmentation(horizontal_flip=True, crop_size=[8, 8])
    whole, streamed = (load_hub(named(repository), "train", streaming) for streaming in (False, True))

    def epoch(source, readers: int) -> dict:
        examples = []
        for reader in range(readers):
            stream = StreamingExamples(source, augmentation, 0, 4 // readers, 1, 0, readers, reader)
            examples += list(stream)
        return {example["image_id"]: example for example in examples}

    expected = epoch(whole, 1)
    assert len(expected) == 4
    for readers in (1, 2):
        actual = epoch(streamed, readers)
        assert actual.keys() == expected.keys()
        for image_id, example in actual.items():
            assert_same_example(example, expected[image_id])


def test_prepared_examples_are_those_of_the_hub(repository, tmp_path):
    source = load_hub(named(repository), "train")
    prepare([Job.of("train", source, {"source": "hub"}, 2, False)], tmp_path / "out")
    result = load_prepared(tmp_path / "out", "train")
    assert result.labels == source.labels and len(result) == 4
    for index in range(4):
        assert_same_example(result[index], source[index])
    assert result.rows[1]["image"]["bytes"] == source.rows[1]["image"]["bytes"]
    assert_same_example(pickle.loads(pickle.dumps(source))[3], source[3])


def test_the_settings_of_a_recipe(tmp_path):
    folder = write_semantic(tmp_path / "repository", [blocks(0, 1, 3)], split="val")
    write_json(tmp_path / "names.json", list(NAMES.values()))
    settings = {"dataset": str(folder), "reduce_labels": True, "label_names": str(tmp_path / "names.json")}
    source = load_source(DataArguments(source="hub", validation_split="val", **settings), "validation")
    np.testing.assert_array_equal(semantic_map(source[0]), blocks(255, 0, 2))
    with pytest.raises(ValueError, match="the source 'hub' needs --dataset: a name such as OWNER/NAME"):
        load_source(DataArguments(source="hub"), "train")
    with pytest.raises(ValueError, match="the source 'hub' is told by --dataset, not by a path"):
        load_source(DataArguments(source="hub", train_path=str(folder), **settings), "train")
    with pytest.raises(ValueError, match="label_kind must be one of semantic, panoptic, instance, not 'depth'"):
        load_source(DataArguments(source="hub", label_kind="depth", **settings), "validation")


def test_files_may_be_remote(repository):
    content = (repository / "data" / "train-00000-of-00002.parquet").read_bytes()
    with fsspec.open("memory://somewhere/a.parquet", "wb") as file:
        file.write(content)
    assert hub.shard_lengths(["memory://somewhere/a.parquet"]) == [2]
    assert hub.encoded_bytes({"bytes": None, "path": "memory://somewhere/a.parquet"}, "here") == content


def test_files_of_a_repository_are_asked_for_in_its_revision(tmp_path, monkeypatch):
    """Of the Hub's own conversion, which has parquet files only, the main branch is asked."""
    write_json(tmp_path / "id2label.json", NAMES)
    asked = []

    def download(name, file, repo_type, revision):
        asked.append((name, file, repo_type, revision))
        if file == "labels.json":
            raise hub_labels.EntryNotFoundError("no such file")
        return str(tmp_path / file)

    monkeypatch.setattr(hub_labels, "hf_hub_download", download)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [], "label": []}, features=features)
    monkeypatch.setattr(hub, "read_split", lambda *_: rows)
    for revision, expected in (("v1", "v1"), (hub.CONVERTED, None)):
        source = load_hub(HubDataset("owner/name", revision=revision), "train")
        assert source.labels.names == ("road", "car", "sky")
        assert asked[-1] == ("owner/name", "id2label.json", "dataset", expected)
