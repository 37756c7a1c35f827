"""Predictions on disk, read back as their readers do."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from evaluations import LABELS, make_example, shifted_answer
from folders import write_json
from maskformer.data.example import semantic_map
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.evaluation.answers import Answer
from maskformer.evaluation.predictions import PredictionFolder


def written(tmp_path, count: int = 3):
    """Examples, their answers, and the folder of these."""
    examples = [make_example(index) | {"index": index} for index in range(count)]
    answers = [shifted_answer(example, 3) for example in examples]
    predictions = PredictionFolder(tmp_path / ".working", LABELS)
    for example, answer in reversed(list(zip(examples, answers, strict=True))):
        predictions.write(example, answer)
    predictions.finish(tmp_path / "predictions")
    return examples, answers, tmp_path / "predictions"


def test_panoptic_predictions_are_a_dataset_in_cocos_format(tmp_path):
    """Read as ground truth, they are the answers."""
    examples, answers, folder = written(tmp_path)
    content = json.loads((folder / "panoptic.json").read_text())
    assert [category["id"] for category in content["categories"]] == list(LABELS.source_ids)
    assert [annotation["image_id"] for annotation in content["annotations"]] == [0, 1, 2]
    (folder / "images").mkdir()
    for example in examples:
        Image.fromarray(example["image"]).save(folder / "images" / f"{example['image_id']}.png")
    for image in content["images"]:
        image |= {"file_name": f"{image['id']}.png", "height": 40, "width": 56}
    write_json(folder / "panoptic.json", content)
    source = load_panoptic_folder(folder)
    for index, answer in enumerate(answers):
        read, expected = source[index], {**examples[index], **answer.panoptic}
        expected["segmentation"] = expected["segmentation"].numpy()
        np.testing.assert_array_equal(semantic_map(read), semantic_map(expected))
        assert len(read["segments_info"]) == len(expected["segments_info"])
        for segment in content["annotations"][index]["segments_info"]:
            rows, columns = np.nonzero(expected["segmentation"] == segment["id"])
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() - left + 1, rows.max() - top + 1]
            assert segment["area"] == len(rows) and segment["bbox"] == box


def test_instances_are_results_that_pycocotools_loads(tmp_path):
    _, answers, folder = written(tmp_path)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": index, "height": 40, "width": 56} for index in range(3)],
        "annotations": [],
        "categories": [{"id": source} for source in LABELS.source_ids],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(str(folder / "instances.json"))
    for index, answer in enumerate(answers):
        found = results.loadAnns(results.getAnnIds(imgIds=[index]))
        infos = answer.instances["segments_info"]
        assert [each["category_id"] for each in found] == [LABELS.source_ids[info["label_id"]] for info in infos]
        assert [each["score"] for each in found] == [info["score"] for info in infos]
        for each, info in zip(found, infos, strict=True):
            mask = answer.panoptic["segmentation"].numpy() == info["id"]
            np.testing.assert_array_equal(results.annToMask(each), mask)


@pytest.mark.parametrize(
    ("name", "values"),
    [("ade20k-150", [1, 2, 150]), ("cityscapes-19", [7, 8, 33]), ("ade20k-full-847", [2978, 312, 3148])],
)
def test_label_maps_hold_what_test_servers_read(tmp_path, name, values):
    """ADE20K's server counts from 1, Cityscapes' reads labelIds; ADE20K-Full needs 16 bits."""
    labels = load_label_set(name)
    example = make_example(0) | {"index": 0}
    answer = Answer(shifted_answer(example, 0).semantic * 0)
    answer.semantic[0, 1], answer.semantic[0, 2] = 1, len(labels) - 1
    predictions = PredictionFolder(tmp_path / ".working", labels)
    predictions.write(example, answer)
    predictions.finish(tmp_path / "predictions")
    png = Image.open(tmp_path / "predictions" / "semantic" / "0.png")
    assert np.asarray(png)[0, :3].tolist() == values
    assert png.mode == ("I;16" if max(values) > 255 else "L")
    assert not (tmp_path / "predictions" / "panoptic.json").exists()


def test_labels_that_count_from_one_in_the_files_do_so_here(tmp_path):
    predictions = PredictionFolder(tmp_path, LABELS, reduce_labels=True)
    assert predictions.values.tolist() == [6, 16, 26, 36]


@pytest.mark.parametrize(("source", "reduce_labels"), [(65536, False), (65535, True), (-1, False), (70010, False)])
def test_ids_that_no_png_holds_are_refused_before_anything_is_written(tmp_path, source, reduce_labels):
    labels = LabelSet.from_categories([{"id": 3, "name": "road"}, {"id": source, "name": "far away"}])
    with pytest.raises(ValueError, match=f"the label 'far away' has the id {source}: label maps hold 0 to 65535"):
        PredictionFolder(tmp_path / ".working", labels, reduce_labels)
    assert not list(tmp_path.iterdir())


def test_predictions_replace_those_of_an_earlier_evaluation_whole(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "old.png").write_bytes(b"")
    _, _, folder = written(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["instances.json", "panoptic", "panoptic.json", "semantic"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_ids_that_are_no_file_names_lead_nowhere_else(tmp_path):
    predictions = PredictionFolder(tmp_path / ".working", LABELS)
    for index, name in enumerate(("../a", "a/b", ".a", "a b", "straße")):
        example = make_example(index) | {"index": index, "image_id": name}
        predictions.write(example, Answer(shifted_answer(example, 0).semantic))
    predictions.finish(tmp_path / "predictions")
    names = sorted(path.name for path in (tmp_path / "predictions" / "semantic").iterdir())
    assert names == ["_a_0.png", "a_2.png", "a_b_1.png", "a_b_3.png", "straße.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]
