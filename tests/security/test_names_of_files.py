"""No name in an annotation file, list or manifest leads out of its folder, and none of a file that is written."""

from __future__ import annotations

import csv
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coco_trees import box, write_coco_instances, write_coco_panoptic
from evaluations import LABELS, make_example, shifted_answer
from folders import edit_json, write_panoptic_folder, write_semantic_folder
from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.convert.weights import read_index
from maskformer.data.coco_instances import load_coco_instance, load_coco_instances
from maskformer.data.coco_panoptic import load_coco_panoptic
from maskformer.data.files import inside
from maskformer.data.pairs import load_pairs
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.prepared import load_prepared
from maskformer.evaluation.predictions import PredictionFolder, file_name
from script_runs import run

OUTSIDE = {  # names that lead out of a folder, on Linux or on Windows
    "up": "../x.png",
    "up and down": "a/../../x.png",
    "up from inside": "images/../../../x.png",
    "absolute": "/etc/passwd",
    "of Windows": "..\\x.png",
    "of Windows, up and down": "a\\..\\..\\x.png",
    "of both": "a\\../..\\x.png",
    "the parent": "..",
}
NO_NAMES = {"the end of a name": "0.png\0.jpg", "half a character": "\ud83d.png"}


def set_image(name: str, content: dict) -> None:
    content["images"][0]["file_name"] = name


def set_map(name: str, content: dict) -> None:
    content["annotations"][0]["file_name"] = name


def panoptic_folder(folder: Path, edit) -> None:
    write_panoptic_folder(folder, count=2)
    edit_json(folder / "panoptic.json", edit)
    load_panoptic_folder(folder)


def coco_panoptic(folder: Path, edit) -> None:
    write_coco_panoptic(folder)
    edit_json(folder / "annotations" / "panoptic_val2017.json", edit)
    load_coco_panoptic(folder, "validation")


def coco_instances(load, folder: Path, edit) -> None:
    write_coco_instances(folder, annotations=[{"segmentation": [box(1, 1, 9, 9)]}], images=2)
    edit_json(folder / "annotations" / "instances_val2017.json", edit)
    load(folder)


def pairs(column: str, kind: str, folder: Path, name: str) -> None:
    write_semantic_folder(folder)
    entry = {"image": "images/0.jpg", "label": "labels/0.png"} | {column: name}
    path = folder / f"list.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps(entry) + "\n")
    else:
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows([entry.keys(), entry.values()])
    load_pairs(path)


SOURCES = {
    "panoptic_folder, image": (panoptic_folder, set_image, "annotation 0: .*file_name of its image"),
    "panoptic_folder, map": (panoptic_folder, set_map, r"annotation 0: .*\(file_name\)"),
    "coco_panoptic, image": (coco_panoptic, set_image, "annotation 1: .*file_name of its image"),
    "coco_panoptic, map": (coco_panoptic, set_map, r"annotation 0: .*\(file_name\)"),
    "coco_instance": (
        functools.partial(coco_instances, lambda folder: load_coco_instance(folder, "validation")),
        set_image,
        r"image 0: .*\(file_name\)",
    ),
    "coco_instances": (functools.partial(coco_instances, load_coco_instances), set_image, r"image 0: .*\(file_name\)"),
}
LISTS = [(column, kind) for column in ("image", "label") for kind in ("csv", "jsonl")]


@pytest.mark.parametrize("name", [*OUTSIDE.values(), *NO_NAMES.values()], ids=[*OUTSIDE, *NO_NAMES])
@pytest.mark.parametrize("source", SOURCES)
def test_annotation_files(tmp_path, source, name):
    load, edit, message = SOURCES[source]
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "data", functools.partial(edit, name))
    assert ".json: " in str(caught.value) and re.search("lies outside of|holds a character", str(caught.value))


@pytest.mark.parametrize("name", [*OUTSIDE.values(), *NO_NAMES.values()], ids=[*OUTSIDE, *NO_NAMES])
@pytest.mark.parametrize(("column", "kind"), LISTS)
def test_lists_of_pairs(tmp_path, column, kind, name):
    where = rf"line {1 if kind == 'jsonl' else 2}: .*\({column}\)"
    if kind == "csv" and name == NO_NAMES["half a character"]:
        where = "not UTF-8"  # JSON has an escape for it, a CSV cannot be UTF-8 and hold it
    with pytest.raises(ValueError, match=f"list.{kind}: {where}"):
        pairs(column, kind, tmp_path / "data", name)


@pytest.mark.parametrize("name", ["a\\b.png", "a/./b.png", "a/../b.png", "..b.png", "c:b.png", "道 \n.png", "-rf", "~"])
def test_strange_names_within_the_folder_stay_as_they_are(tmp_path, name):
    assert inside(tmp_path, name, "entry 1") == str(tmp_path / name)


@pytest.mark.parametrize("what", ["the file", "a folder on the way"])
def test_links_do_not_lead_out_but_to_the_cache_of_the_hub(tmp_path, what):
    folder, private = tmp_path / "data" / "images", tmp_path / "private"
    for path in (folder, private, tmp_path / "blobs"):
        path.mkdir(parents=True)
        (path / "x.png").touch()
    if what == "the file":
        (folder / "a.png").symlink_to(private / "x.png")
        (folder / "b.png").symlink_to(tmp_path / "blobs" / "x.png")
        (folder / "c.png").symlink_to("x.png")
        assert inside(folder, "b.png", "here") and inside(folder, "c.png", "here")
        name = "a.png"
    else:
        (folder / "sub").symlink_to(private)
        name = "sub/x.png"
    with pytest.raises(ValueError, match=f"here: the file '{name}' is a link to .*private/x.png, outside of .*images"):
        inside(folder, name, "here")
    (tmp_path / "whole").symlink_to(folder)
    assert inside(tmp_path / "whole", "x.png", "here") == str(tmp_path / "whole" / "x.png")


def test_a_link_in_the_middle_of_a_name_is_followed_before_it_climbs(tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    with pytest.raises(ValueError, match="lies outside of"):
        inside(tmp_path / "data", "sub/link/../secret.png", "entry 1")


def test_parts_of_a_model_are_files_beside_their_index(tmp_path):
    names = ["../../etc/passwd", "/etc/shadow", "a/b.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("abc", names, strict=True))}))
    assert read_index(index) == ["b.safetensors", "passwd", "shadow"]


HOSTILE_IDS = ["../../x", "/etc/x", "a/b", "..", ".", "", "a\\b", "a\0b", "a\nb", ".hidden", "x" * 300, "道" * 200, "~"]


def test_predictions_stay_in_their_folder_whatever_images_are_called(tmp_path):
    folder = PredictionFolder(tmp_path / "out" / "working", LABELS)
    for index, image_id in enumerate(HOSTILE_IDS):
        example = make_example(index, size=(16, 24)) | {"image_id": image_id, "index": index}
        folder.write(example, shifted_answer(example, 2))
        assert folder.holds(index, image_id)
    folder.finish(tmp_path / "out" / "predictions")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions"]
    written = tmp_path / "out" / "predictions"
    assert len(list((written / "semantic").iterdir())) == len(HOSTILE_IDS)
    annotations = json.loads((written / "panoptic.json").read_text())["annotations"]
    assert [annotation["image_id"] for annotation in annotations] == HOSTILE_IDS
    for annotation in annotations:
        assert (written / "panoptic" / annotation["file_name"]).parent == written / "panoptic"
        assert np.array(Image.open(written / "panoptic" / annotation["file_name"])).shape == (16, 24, 3)


def test_plain_ids_are_the_names_of_their_files():
    for image_id in ("000000000139", "aachen_000000_000019", "a.b-c", "道"):
        assert file_name({"image_id": image_id, "index": 3}) == image_id


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """The folder of a model."""
    with_segments(tiny_model()).save_pretrained(tmp_path / "model")
    MaskFormerUniversalImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


@pytest.mark.slow
def test_answers_of_the_prediction_script_stay_in_their_folder(model, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    names = ["...png", "x\\..\\y.png", "a\nb.png", "-rf.png", "%2e%2e%2fx.png", "~.png", "<b>.png"]
    for index, name in enumerate(names):
        Image.new("RGB", (40, 30), (index, 0, 0)).save(images / name, format="PNG")
    with pytest.raises(SystemExit) as stop:
        run(
            "predict",
            images,
            images / "...png",
            "--model",
            model,
            "--output_dir",
            tmp_path / "out",
            "--json",
            "--save_masks",
        )
    assert stop.value.code == 0
    stems = [Path(name).stem for name in names]
    expected = {f"{stem}{ending}" for stem in stems for ending in (".json", ".png", "_mask.png")} | {"coco.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert {path.name for path in tmp_path.iterdir()} == {"images", "model", "out"}
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert {image["file_name"] for image in coco["images"]} == {str(images / name) for name in names}


@pytest.mark.slow
def test_prepared_data_stay_in_their_folder(tmp_path):
    data = write_panoptic_folder(tmp_path / "data", count=2)
    hostile = "../../" * 9 + "etc/x\0.parquet"

    def rename(content: dict) -> None:
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = hostile
        content["categories"][0]["name"] = "../../x"

    edit_json(data / "panoptic.json", rename)
    words = ("--source", "panoptic_folder", "--input", data, "--split", "train", "--output_dir", tmp_path / "out")
    run("prepare_dataset", *words)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}
    written = {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert written == {"train-00000-of-00001.parquet", "labels.json", "manifest.json"}
    source = load_prepared(tmp_path / "out", "train")
    assert [source[index]["image_id"] for index in range(2)] == [hostile, "1"]
