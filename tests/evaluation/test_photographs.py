"""Answers to photographs: consistent ids, areas and masks; COCO files that COCO reads; batches that shrink."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.evaluation.coco_file import CocoFile
from maskformer.evaluation.photographs import STYLES, answer_photographs, draw_answer, in_smaller_batches, smallest

SIZES = [(50, 70), (64, 64)]


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def model(tiny_model):
    with torch.no_grad():
        return with_segments(tiny_model())


@pytest.fixture
def answers(model, images):
    """Makes the answers of a task."""
    processor = MaskFormerUniversalImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    )

    def make(task, threshold=0.1):
        return answer_photographs(
            model, processor, SIZES, processor(images=images, return_tensors="pt"), task, threshold, True
        )

    return make


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_ids_areas_and_masks_agree(answers, task):
    found = answers(task)
    assert any(answer.segments for answer in found)
    for answer, size in zip(found, SIZES, strict=True):
        assert answer.segmentation.shape == size and len(answer.segments) == len(answer.rles)
        for segment, rle in zip(answer.segments, answer.rles, strict=True):
            visible = answer.segmentation == segment["id"]
            mask = coco_mask.decode(rle).astype(bool)
            assert visible.sum() == segment["area"] > 0 and mask[visible].all()
            assert task == "instance" or np.array_equal(mask, visible)
            assert rle == json.loads(json.dumps(rle))
        nothing = -1 if task == "semantic" else 0
        assert set(np.unique(answer.segmentation)) - {nothing} == {segment["id"] for segment in answer.segments}
        assert (
            np.array_equal(smallest(answer.segmentation), answer.segmentation)
            and smallest(answer.segmentation).dtype == np.uint8
        )


def test_a_threshold_that_nothing_reaches(answers):
    assert all(not answer.segments and not answer.segmentation.any() for answer in answers("panoptic", threshold=1.0))


def test_coco_reads_what_was_written(answers, model, tmp_path):
    file = CocoFile(model.config.id2label)
    found = answers("instance")
    for name, answer in zip("ab", found, strict=True):
        file.add(f"{name}.png", answer)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(file.content()))
    coco = COCO(path)
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.png"]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == sum(len(answer.segments) for answer in found) > 0
    for annotation in annotations:
        mask = coco.annToMask(annotation).astype(bool)
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation["bbox"]
        assert (left, top, left + width, top + height) == (
            *(columns.min(), rows.min()),
            *(columns.max() + 1, rows.max() + 1),
        )
        assert annotation["area"] == mask.sum() and 0 < annotation["score"] <= 1
        assert coco.cats[annotation["category_id"]]["name"] == model.config.id2label[annotation["category_id"]]


def test_a_batch_that_memory_does_not_hold_is_halved():
    inputs = {"pixel_values": torch.arange(5)}
    calls = []

    def answer(examples, inputs):
        calls.append(len(examples))
        if len(examples) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [(example, value) for example, value in zip(examples, inputs["pixel_values"].tolist(), strict=True)]

    assert in_smaller_batches(answer, list("abcde"), inputs) == list(zip("abcde", range(5), strict=True))
    assert calls == [5, 2, 3, 1, 2]


@pytest.mark.parametrize(("count", "message"), [(1, "CUDA out of memory."), (4, "something else")])
def test_other_errors_and_those_of_one_image_are_raised(count, message):
    def answer(examples, inputs):
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=message):
        in_smaller_batches(answer, ["image"] * count, {"pixel_values": torch.zeros(count)})


def test_styles_and_legend_of_the_picture(answers, model, images):
    (answer, _) = answers("semantic")
    image = images[0]
    pictures = {style: draw_answer(image, answer, model.config, style, legend=False) for style in STYLES}
    assert pictures["both"].size == pictures["fill"].size == pictures["outline"].size == (70, 50)
    assert pictures["side_by_side"].width > 2 * 70
    changed = {style: (np.asarray(pictures[style]) != image).any(-1).mean() for style in ("both", "fill", "outline")}
    assert changed["both"] > 0.9 and changed["fill"] > 0.9 and changed["outline"] < changed["both"]
    legend = draw_answer(image, answer, model.config, "both", legend=True)
    assert legend.width > 70 and np.array_equal(np.asarray(legend)[:50, :70], np.asarray(pictures["both"]))
    assert isinstance(legend, Image.Image)
