"""Multi-scale and mirrored inference against whole tensors, and against the official code's recorded scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import fixture
from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineForSemanticSegmentation,
    PerPixelBaselineImageProcessor,
    PerPixelBaselineImageProcessorPil,
)
from maskformer.image_processing import row_blocks
from maskformer.image_processing.image_prediction import image_predictions
from maskformer.image_processing.test_time_augmentation import (
    semantic_scores_with_tta,
    semantic_segmentation_with_tta,
)
from maskformer.recipes import load_recipe
from official_runs import fill_with_official_weights
from query_outputs import LargestTensor, plain_scores
from reference_inputs import blocky_image

SIZE = {"shortest_edge": 48, "longest_edge": 80}


def photograph(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def pil_resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def plain_view_scores(model, processor, view: np.ndarray, output_size: tuple[int, int]) -> torch.Tensor:
    """The scores of an image that is not to be resized, by whole tensors."""
    inputs = processor(images=view, do_resize=False, return_tensors="pt")
    with torch.no_grad():
        (prediction,) = image_predictions(model(**inputs), [output_size])
    return plain_scores(prediction, processor.resize_masks_first)


def plain_tta(model, processor, image: np.ndarray, sizes: list[tuple[int, int]], output_size) -> torch.Tensor:
    """The mean over both directions of the views of these sizes, written out."""
    scores = []
    for size in sizes:
        view = pil_resized(image, *size)
        scores.append(plain_view_scores(model, processor, view, output_size))
        scores.append(plain_view_scores(model, processor, view[:, ::-1].copy(), output_size).flip(-1))
    return torch.stack(scores).mean(0)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("backend", [MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil])
def test_it_is_the_mean_of_views_of_the_resized_image(monkeypatch, tiny_model, backend, first):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 6000)
    model, processor = tiny_model(), backend(size=SIZE, resize_masks_first=first)
    image = photograph()
    for_test = pil_resized(image, 48, 72)
    # A shortest edge of 64 makes 64 x 96, and the longest may be 90: 60 x 90.
    expected = plain_tta(model, processor, for_test, [(32, 48), (60, 90)], (40, 60))
    scores = semantic_scores_with_tta(model, processor, image, [32, 64], longest_edge=90)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    labels = semantic_segmentation_with_tta(model, processor, image, [32, 64], longest_edge=90)
    assert torch.equal(labels, scores.argmax(0)) and labels.dtype == torch.int64


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("backend", [PerPixelBaselineImageProcessor, PerPixelBaselineImageProcessorPil])
def test_per_pixel_models(monkeypatch, tiny_per_pixel_model, backend, plus):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 6000)
    model, processor = tiny_per_pixel_model(use_transformer_decoder=plus), backend(do_resize=False, size_divisor=0)
    image = photograph(33, 47)
    expected = plain_tta(model, processor, image, [(30, 43), (50, 71)], (50, 60))
    scores = semantic_scores_with_tta(model, processor, image, [30, 50], output_size=(50, 60))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_the_size_of_the_test_alone_is_ordinary_inference(tiny_model, first):
    model, processor = tiny_model(), MaskFormerUniversalImageProcessorPil(size=SIZE, resize_masks_first=first)
    image = photograph()
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(outputs, [(40, 60)])
    assert torch.equal(semantic_segmentation_with_tta(model, processor, image, [48], flip=False), expected)


def test_a_mirrored_image_gets_the_mirrored_answer(tiny_model):
    model, processor = tiny_model(), MaskFormerUniversalImageProcessorPil(do_resize=False)
    image = photograph(32, 64)
    one = semantic_scores_with_tta(model, processor, image, [32, 64])
    other = semantic_scores_with_tta(model, processor, Image.fromarray(image[:, ::-1]), [32, 64])
    torch.testing.assert_close(other.flip(-1), one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (90, 3)])
def test_images_of_any_shape(tiny_model, size):
    processor = MaskFormerUniversalImageProcessor(size=SIZE)
    labels = semantic_segmentation_with_tta(tiny_model(), processor, photograph(*size), [48, 64], 90)
    assert labels.shape == size


def test_labels_of_a_large_image_are_had_without_its_scores(monkeypatch, tiny_model):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 2**15)
    model, processor = tiny_model(), MaskFormerUniversalImageProcessor(size=SIZE)
    with LargestTensor() as made:
        semantic_segmentation_with_tta(model, processor, photograph(), [48], output_size=(700, 900))
    assert made.elements <= 700 * 900


def test_bad_input(tiny_model):
    model, processor = tiny_model(), MaskFormerUniversalImageProcessor(size=SIZE)
    with pytest.raises(ValueError, match="shortest_edges is empty"):
        semantic_scores_with_tta(model, processor, photograph(), [])
    with pytest.raises(ValueError, match="holds float32"):
        semantic_scores_with_tta(model, processor, photograph() / 255, [32])


@pytest.mark.parity
@pytest.mark.parametrize("case", fixture("tta")["cases"], ids=lambda case: case["recipe"])
def test_official_scores(case):
    """Within 2e-4 of the largest score; labels to 0.2% of the pixels."""
    recipe = load_recipe(case["recipe"])
    per_pixel = recipe.model_type == "per_pixel_baseline"
    kind = PerPixelBaselineForSemanticSegmentation if per_pixel else MaskFormerForUniversalSegmentation
    model = kind(recipe.build_config()).eval()
    fill_with_official_weights(model)
    processor = recipe.build_image_processor()
    processor.do_resize = False  # the recorded image is already resized for the test
    image = blocky_image(*case["image"]).transpose(1, 2, 0)
    scores = semantic_scores_with_tta(
        model, processor, image, case["min_sizes"], case["max_size"], case["flip"], case["output_size"]
    )
    assert list(scores.shape) == case["shape"]
    tolerance = 2e-4 * scores.abs().max().item()
    assert np.abs(scores[:4, 5:8, 5:8].numpy() - np.array(case["corner"])).max() < tolerance
    assert abs(scores.mean().item() - case["mean"]) < tolerance
    assert abs(scores.std().item() - case["std"]) < tolerance
    counts = torch.bincount(scores.argmax(0).flatten(), minlength=len(scores))
    wanted = torch.zeros_like(counts)
    for label, count in case["argmax_histogram"].items():
        wanted[int(label)] = count
    assert (counts - wanted).abs().max() <= 0.002 * counts.sum()
