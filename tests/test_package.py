"""What a user of transformers sees: Auto classes and the pipeline, without a warning."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, pipeline

import maskformer
from maskformer import registration


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A model folder, with its image processor."""
    tiny_model().save_pretrained(tmp_path)
    maskformer.MaskFormerUniversalImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0, 1]
    ).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("size", [(64, 64), (50, 117), (131, 40)])
def test_the_pipeline_answers_all_tasks_for_images_of_any_size(saved, size, quiet):
    segmenter = pipeline("image-segmentation", model=str(saved))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    for task in (None, "panoptic", "instance", "semantic"):
        for segment in segmenter(image, subtask=task, threshold=0.0):
            assert segment["mask"].size == image.size
            assert segment["label"].startswith("label ")
    assert len(segmenter([image, image], subtask="semantic")) == 2


@pytest.mark.parametrize("plus", [False, True])
def test_the_pipeline_answers_with_a_per_pixel_baseline(tiny_per_pixel_model, tmp_path, plus, quiet):
    tiny_per_pixel_model(use_transformer_decoder=plus).save_pretrained(tmp_path)
    maskformer.PerPixelBaselineImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(tmp_path)
    segmenter = pipeline("image-segmentation", model=str(tmp_path))
    assert type(segmenter.model) is maskformer.PerPixelBaselineForSemanticSegmentation
    assert type(segmenter.image_processor) is maskformer.PerPixelBaselineImageProcessor
    assert type(AutoImageProcessor.from_pretrained(tmp_path, backend="pil")) is (
        maskformer.PerPixelBaselineImageProcessorPil
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 117, 3), dtype=np.uint8))
    for task in (None, "semantic"):
        segments = segmenter(image, subtask=task)
        areas = sum(np.array(segment["mask"]).astype(bool).astype(int) for segment in segments)
        assert (areas == 1).all() and areas.shape == (50, 117)
        assert all(segment["label"].startswith("label ") for segment in segments)
    with pytest.raises(ValueError, match="panoptic is not supported"):
        segmenter(image, subtask="panoptic")


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
    registration.register()
    assert callable(maskformer.load_recipe)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskformer.nothing  # noqa: B018


def run_python(code: str) -> str:
    """What `code` prints in a new process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_loads_nothing_that_is_not_asked_for():
    heavy = ["timm", "scipy", "torchvision", "datasets", "matplotlib", "transformers.models.auto.modeling_auto"]
    assert run_python(f"import sys, maskformer; print([name for name in {heavy} if name in sys.modules])") == "[]\n"


FIRST = [
    "from maskformer.modeling.modeling_per_pixel_baseline import PerPixelBaselineModel",
    "from transformers import AutoModelForUniversalSegmentation",
    "from maskformer.modeling.modeling_maskformer import MaskFormerUniversalModel",
    "from maskformer.image_processing.image_processing_maskformer import MaskFormerUniversalImageProcessor",
    "from maskformer import MaskFormerUniversalConfig",
    "from transformers import Trainer, pipeline",
]
ORDERS = [(first, after) for after in (False, True) for first in FIRST]


@pytest.mark.parametrize(
    ("first", "after"),
    [ORDERS[0], *(pytest.param(*order, marks=pytest.mark.slow) for order in ORDERS[1:])],  # a process each
)
def test_auto_classes_know_the_models_whatever_is_imported_first(saved, first, after):
    lines = [first, "import maskformer"] if after else ["import maskformer", first]
    lines += [
        "from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation",
        f"model = AutoModelForUniversalSegmentation.from_pretrained({str(saved)!r})",
        f"print(type(model) is maskformer.MaskFormerForUniversalSegmentation,"
        f" type(AutoImageProcessor.from_pretrained({str(saved)!r})).__module__)",
    ]
    expected = "True maskformer.image_processing.image_processing_maskformer\n"
    assert run_python("\n".join(lines)) == expected


def test_parts_of_the_package_are_reached_through_it(monkeypatch):
    for name in ("convert", "metrics"):
        monkeypatch.delattr(maskformer, name, raising=False)  # as where nobody has imported it yet
    assert callable(maskformer.convert.from_official) and callable(maskformer.metrics.MeanIoU)
