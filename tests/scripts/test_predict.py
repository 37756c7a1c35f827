"""What the prediction script writes besides pictures, and how it answers mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil
from script_runs import fails, run


@pytest.fixture
def folder(tiny_model, tmp_path):
    """Three images, two of one size, beside a model."""
    with_segments(tiny_model()).save_pretrained(tmp_path / "model")
    MaskFormerUniversalImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    ).save_pretrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a", (50, 70, 3)), ("b", (50, 70, 3)), ("c", (90, 40, 3))):
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_masks_coco_and_legend(folder, task):
    words = ["--model", folder / "model", "--task", task, "--threshold", "0.1"]
    for name, more in (("one", []), ("two", ["--batch_size", "2", "--json", "--save_masks", "--legend"])):
        with pytest.raises(SystemExit) as stop:
            run("predict", folder / "images", *words, "--output_dir", folder / name, *more)
        assert stop.value.code == 0
    plain, rich = folder / "one", folder / "two"
    coco = json.loads((rich / "coco.json").read_text())
    found = 0
    for name in "abc":
        one, two = (json.loads((place / f"{name}.json").read_text()) for place in (plain, rich))
        ids = np.array(Image.open(rich / f"{name}_mask.png"))
        assert ids.shape == (two["height"], two["width"])
        for segment in two["segments"]:
            mask = coco_mask.decode(segment.pop("segmentation"))
            assert np.array_equal(mask.astype(bool), ids == segment["id"])
        assert [s["label"] for s in two["segments"]] == [s["label"] for s in one["segments"]]
        found += len(two["segments"])
        assert Image.open(rich / f"{name}.png").width >= two["width"] == Image.open(plain / f"{name}.png").width
    assert found == len(coco["annotations"]) > 0
    assert [image["file_name"].rsplit("/", 1)[-1] for image in coco["images"]] == ["a.png", "b.png", "c.png"]
    assert sorted(path.suffix for path in plain.iterdir()) == [".json"] * 3 + [".png"] * 3


def test_mistakes_are_answered_with_the_nearest_that_exists(folder, capsys):
    out = ["--output_dir", folder / "out"]
    assert "did you mean" in fails(capsys, "predict", folder / "imagse", "--model", folder / "model", *out)
    assert "did you mean" in fails(capsys, "predict", folder / "images", "--model", folder / "modle", *out)
    message = fails(capsys, "predict", folder / "images", "--model", folder / "model", *out, "--save_mask")
    assert "did you mean '--save_masks'?" in message
    message = fails(capsys, "predict", folder / "images", "--model", folder / "model", *out, "--batch_size", "0")
    assert "--batch_size 0: it must be at least 1" in message
    words = [folder / "images", "--model", folder / "model"]
    assert "scores lie between 0 and 1" in fails(capsys, "predict", *words, *out, "--threshold", "50")
    assert "is a file" in fails(capsys, "predict", *words, "--output_dir", folder / "images" / "a.png")
    assert "no image in this folder itself" in fails(capsys, "predict", folder, *words[1:], *out)
    assert "did you mean '--limit'?" in fails(capsys, "inspect_dataset", "--limt", "3")
    assert not (folder / "out").exists()


def test_answers_that_would_have_one_name(folder, capsys):
    Image.new("RGB", (20, 20)).save(folder / "images" / "a_mask.png")
    words = ["predict", folder / "images", "--model", folder / "model", "--output_dir", folder / "out"]
    assert "a_mask.png would be written twice" in fails(capsys, *words, "--save_masks")
