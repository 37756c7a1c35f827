"""Answers of what the network said once."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from maskformer.demo.answers import Answer, Thresholds, answer
from maskformer.demo.downloads import answer_archive
from maskformer.demo.viewer import draw

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3)).astype(np.uint8)


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_answers_are_those_of_the_image_processor(network, task):
    network = network()
    thresholds = Thresholds(0.3, 0.4, 0.1)
    prediction = network.predict(IMAGE)
    found = answer(network, prediction, task, thresholds)
    with torch.no_grad():
        outputs = network.model(**network.image_processor(images=IMAGE, return_tensors="pt"))
    settings = {} if task == "semantic" else vars(thresholds)
    post_process = getattr(network.image_processor, f"post_process_{task}_segmentation")
    (expected,) = post_process(outputs, target_sizes=[(48, 80)], **settings)
    assert found.segments
    if task == "semantic":
        np.testing.assert_array_equal(found.segmentation, expected + 1)
        assert all("score" not in segment for segment in found.segments)
    else:
        np.testing.assert_array_equal(found.segmentation, expected["segmentation"])
        scores = [info["score"] for info in expected["segments_info"]]
        assert [segment["score"] for segment in found.segments] == pytest.approx(scores, abs=1e-6)
    for segment in found.segments:
        assert segment["area"] == (found.segmentation == segment["id"]).sum()
        assert segment["label"] == f"label {segment['label_id']}"


def test_tasks_and_thresholds_need_no_forward_pass(network, monkeypatch):
    network = network()
    prediction = network.predict(IMAGE)
    monkeypatch.setattr(network.model, "forward", None)
    counts = [len(answer(network, prediction, "panoptic", Thresholds(t)).segments) for t in (0.0, 0.5, 1.0)]
    assert counts[0] >= counts[1] > counts[2] == 0
    assert all(answer(network, prediction, task, Thresholds()) for task in network.tasks)


def test_the_test_protocol_gives_the_first_thresholds_and_the_method(network):
    network = network()
    network.image_processor.test_protocol = {"threshold": 0.2, "method": "detr"}
    assert Thresholds.of(network.image_processor) == Thresholds(0.2, 0.5, 0.8)
    prediction = network.predict(IMAGE)
    found = answer(network, prediction, "panoptic", Thresholds(0.2))
    (expected,) = network.image_processor.post_process_panoptic_segmentation(
        prediction, threshold=0.2, method="detr", target_sizes=[(48, 80)]
    )
    np.testing.assert_array_equal(found.segmentation, expected["segmentation"])


def test_a_per_pixel_baseline_answers_semantic_segmentation_only(per_pixel_network):
    assert per_pixel_network.tasks == ["semantic"]
    found = answer(per_pixel_network, per_pixel_network.predict(IMAGE), "semantic", Thresholds())
    assert found.segmentation.shape == (48, 80) and found.segments


def test_classes_that_are_switched_off_are_void():
    segmentation = np.array([[1, 2], [3, 0]], np.int32)
    segments = [{"id": i, "label_id": label, "label": "a", "area": 1} for i, label in ((1, 0), (2, 1), (3, 0))]
    shown = Answer(segmentation, segments).without(frozenset({0}))
    assert shown.segmentation.tolist() == [[0, 2], [0, 0]] and [s["id"] for s in shown.segments] == [2]


def test_the_archive_holds_ids_masks_and_the_picture(network):
    network = network()
    found = answer(network, network.predict(IMAGE), "panoptic", Thresholds(0.1, 0.5, 0.1))
    picture = draw(IMAGE, found, network.label_names, network.label_colors)
    with zipfile.ZipFile(io.BytesIO(answer_archive(found, "panoptic", picture))) as files:
        assert files.namelist() == ["segments.png", "segments.json", "overlay.png"]
        ids = np.array(Image.open(files.open("segments.png")))
        content = json.loads(files.read("segments.json"))
        np.testing.assert_array_equal(np.array(Image.open(files.open("overlay.png"))), np.array(picture))
    np.testing.assert_array_equal(ids, found.segmentation)
    assert (content["task"], content["height"], content["width"]) == ("panoptic", 48, 80)
    for segment in content["segments"]:
        assert {"id", "label", "score", "area"} <= segment.keys()
        np.testing.assert_array_equal(coco_mask.decode(segment["rle"]), ids == segment["id"])


def test_more_than_255_ids_are_written_in_16_bits():
    many = Answer(np.arange(300, dtype=np.int32).reshape(10, 30), [])
    with zipfile.ZipFile(io.BytesIO(answer_archive(many, "instance", Image.new("RGB", (30, 10))))) as files:
        np.testing.assert_array_equal(np.array(Image.open(files.open("segments.png"))), many.segmentation)
