"""What a user of transformers sees: Auto classes and the pipeline, without a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, pipeline
from transformers.utils import logging as transformers_logging

import maskformer


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A model folder, with its image processor."""
    tiny_model().save_pretrained(tmp_path)
    maskformer.MaskFormerUniversalImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0, 1]
    ).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def warnings_of_transformers():
    """Every record of a warning or worse that transformers logs."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    transformers_logging.add_handler(handler)
    yield records
    transformers_logging.remove_handler(handler)


@pytest.mark.parametrize("size", [(64, 64), (50, 117), (131, 40)])
def test_the_pipeline_answers_all_tasks_for_images_of_any_size(saved, size, warnings_of_transformers, recwarn):
    segmenter = pipeline("image-segmentation", model=str(saved))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    for task in (None, "panoptic", "instance", "semantic"):
        for segment in segmenter(image, subtask=task, threshold=0.0):
            assert segment["mask"].size == image.size
            assert segment["label"].startswith("label ")
    assert len(segmenter([image, image], subtask="semantic")) == 2
    assert [record.getMessage() for record in warnings_of_transformers] == []
    assert [str(warning.message) for warning in recwarn if "maskformer" in str(warning.filename)] == []


def test_auto_image_processor_gives_both_backends(saved):
    assert type(AutoImageProcessor.from_pretrained(saved)) is maskformer.MaskFormerUniversalImageProcessor
    pil = AutoImageProcessor.from_pretrained(saved, backend="pil")
    assert type(pil) is maskformer.MaskFormerUniversalImageProcessorPil
    assert pil.label_ids_to_fuse == [0, 1]


def test_a_batch_of_one_canvas_answers_as_its_images_do(saved):
    model = AutoModelForUniversalSegmentation.from_pretrained(saved)
    processor = AutoImageProcessor.from_pretrained(saved, backend="pil")
    random = np.random.default_rng(1)
    images = [random.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(3)]
    with torch.no_grad():
        together = model(**processor(images=images, return_tensors="pt"))
        for index, image in enumerate(images):
            alone = model(**processor(images=image, return_tensors="pt"))
            torch.testing.assert_close(
                alone.masks_queries_logits[0], together.masks_queries_logits[index], rtol=1e-4, atol=1e-4
            )


def test_importing_twice_is_harmless_and_unknown_names_are_refused():
    maskformer._register()
    assert callable(maskformer.load_recipe)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskformer.nothing  # noqa: B018
