"""Every Auto class and the pipeline give the models of a folder, with the same numbers and without a word."""

from __future__ import annotations

import functools
import http.server
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    pipeline,
)

import maskformer
from helpers import with_segments

SIZE = {"shortest_edge": 64, "longest_edge": 128}
MASKFORMER = [AutoModelForUniversalSegmentation, AutoModelForImageSegmentation, AutoModelForSemanticSegmentation]


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A MaskFormer with its image processor; labels 0 and 1 are stuff."""
    with_segments(tiny_model()).save_pretrained(tmp_path)
    maskformer.MaskFormerUniversalImageProcessor(size=SIZE, label_ids_to_fuse=[0, 1]).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def per_pixel_folder(tiny_per_pixel_model, tmp_path):
    tiny_per_pixel_model(use_transformer_decoder=True).save_pretrained(tmp_path)
    maskformer.PerPixelBaselineImageProcessor(size=SIZE).save_pretrained(tmp_path)
    return tmp_path


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder."""

    def log_message(self, *_):
        pass


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def same_answers(one: list[dict], other: list[dict]) -> bool:
    keys = [[(segment["label"], segment["score"]) for segment in answer] for answer in (one, other)]
    masks = zip(one, other, strict=True)
    return keys[0] == keys[1] and all(np.array_equal(a["mask"], b["mask"]) for a, b in masks)


def test_auto_classes_of_maskformer(folder, tiny_model):
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is maskformer.MaskFormerUniversalConfig
    pixel_values = torch.randn(1, 3, 64, 96)
    first = AutoModelForUniversalSegmentation.from_pretrained(folder)
    assert not first.training
    for auto_class in MASKFORMER:
        model = auto_class.from_pretrained(folder)
        assert type(model) is maskformer.MaskFormerForUniversalSegmentation
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in first.state_dict().items())
    bare = AutoModel.from_pretrained(folder)
    assert type(bare) is maskformer.MaskFormerUniversalModel
    with torch.no_grad():
        assert torch.equal(bare(pixel_values).pixel_embeddings, first.model(pixel_values).pixel_embeddings)
    assert type(AutoModelForUniversalSegmentation.from_config(config)) is type(first)


def test_auto_classes_of_a_per_pixel_baseline(per_pixel_folder):
    assert type(AutoConfig.from_pretrained(per_pixel_folder)) is maskformer.PerPixelBaselineConfig
    model = AutoModelForSemanticSegmentation.from_pretrained(per_pixel_folder)
    assert type(model) is maskformer.PerPixelBaselineForSemanticSegmentation
    bare = AutoModel.from_pretrained(per_pixel_folder)
    pixel_values = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(bare(pixel_values).pixel_embeddings, model.model(pixel_values).pixel_embeddings)


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_auto_image_processor(folder, backend):
    processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    suffix = {"torchvision": "", "pil": "Pil"}[backend]
    assert type(processor) is getattr(maskformer, f"MaskFormerUniversalImageProcessor{suffix}")
    assert processor.label_ids_to_fuse == [0, 1] and processor(picture(64, 96))["pixel_values"].shape[-2:] == (64, 96)


def test_the_pipeline_takes_images_paths_and_lists(folder, tmp_path):
    segmenter = pipeline("image-segmentation", model=str(folder))
    image = picture(50, 117)
    image.save(tmp_path / "image.png")
    answer = segmenter(image, threshold=0.3)
    assert answer and all(segment["mask"].size == (117, 50) for segment in answer)
    assert same_answers(segmenter(str(tmp_path / "image.png"), threshold=0.3), answer)
    several = segmenter([image, picture(80, 64, seed=1), image], threshold=0.3)
    assert len(several) == 3 and same_answers(several[0], answer) and same_answers(several[2], answer)


def test_the_pipeline_takes_a_url(folder, tmp_path):
    image = picture(50, 117)
    image.save(tmp_path / "image.png")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        segmenter = pipeline("image-segmentation", model=str(folder))
        answer = segmenter(f"http://127.0.0.1:{server.server_port}/image.png", threshold=0.3)
        server.shutdown()
    assert answer and same_answers(answer, segmenter(image, threshold=0.3))


@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
def test_batches_of_the_pipeline_answer_as_single_images(folder, subtask):
    images = [picture(64, 96, seed) for seed in range(5)]
    single = pipeline("image-segmentation", model=str(folder))(images, subtask=subtask, threshold=0.2)
    batched = pipeline(
        "image-segmentation", model=str(folder), batch_size=4, model_kwargs={"output_auxiliary_logits": False}
    )(images, subtask=subtask, threshold=0.2)
    assert len(batched) == 5
    for one, other in zip(single, batched, strict=True):
        assert [segment["label"] for segment in one] == [segment["label"] for segment in other]
        for a, b in zip(one, other, strict=True):
            assert np.mean(np.array(a["mask"]) != np.array(b["mask"])) < 1e-3


def test_options_of_the_pipeline_reach_the_answer(folder):
    segmenter = pipeline("image-segmentation", model=str(folder))
    image = picture(64, 96)
    every = segmenter(image, subtask="panoptic", threshold=0.0, overlap_mask_area_threshold=0.0)
    scores = sorted(segment["score"] for segment in every)
    assert len(scores) > 1
    middle = (scores[0] + scores[-1]) / 2
    some = segmenter(image, subtask="panoptic", threshold=middle, overlap_mask_area_threshold=0.0)
    assert 0 < len(some) < len(every) and all(segment["score"] > middle for segment in some)
    assert segmenter(image, subtask="panoptic", threshold=1.0) == []
    strict = segmenter(image, subtask="instance", threshold=0.0, mask_threshold=0.6)
    lax = segmenter(image, subtask="instance", threshold=0.0, mask_threshold=0.4)
    assert sum(np.array(s["mask"]).astype(bool).sum() for s in strict) < sum(
        np.array(s["mask"]).astype(bool).sum() for s in lax
    )


def test_the_pipeline_gives_the_answers_of_the_image_processor(folder):
    image = picture(50, 117)
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    expected = processor.post_process_panoptic_segmentation(
        outputs, threshold=0.2, overlap_mask_area_threshold=0.5, target_sizes=[(50, 117)]
    )[0]
    answer = pipeline("image-segmentation", model=str(folder))(image, subtask="panoptic", threshold=0.2)
    assert len(answer) == len(expected["segments_info"]) > 0
    for segment, info in zip(answer, expected["segments_info"], strict=True):
        assert segment["label"] == f"label {info['label_id']}" and segment["score"] == info["score"]
        assert np.array_equal(np.array(segment["mask"]) > 0, expected["segmentation"] == info["id"])


def test_half_precision_in_the_pipeline(folder):
    segmenter = pipeline("image-segmentation", model=str(folder), dtype=torch.bfloat16)
    assert segmenter.model.dtype == torch.bfloat16
    areas = sum(np.array(s["mask"]).astype(bool).astype(int) for s in segmenter(picture(64, 96), subtask="semantic"))
    assert (areas == 1).all()


def test_a_per_pixel_model_answers_semantic_by_itself(per_pixel_folder):
    segmenter = pipeline("image-segmentation", model=str(per_pixel_folder), batch_size=2)
    for answer in segmenter([picture(64, 96, seed) for seed in range(3)]):
        areas = sum(np.array(segment["mask"]).astype(bool).astype(int) for segment in answer)
        assert (areas == 1).all() and areas.shape == (64, 96)


def test_a_class_of_ones_own_leaves_the_auto_classes_as_they_are(folder):
    class Mine(maskformer.MaskFormerForUniversalSegmentation):
        pass

    assert type(Mine.from_pretrained(folder)) is Mine
    assert type(AutoModelForUniversalSegmentation.from_pretrained(folder)) is (
        maskformer.MaskFormerForUniversalSegmentation
    )
