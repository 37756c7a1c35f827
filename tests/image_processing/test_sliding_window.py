"""Windows that overlap against whole tensors, and against ordinary inference where one window is enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maskformer import (
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineImageProcessor,
)
from maskformer.image_processing import row_blocks, sliding_window
from maskformer.image_processing.image_prediction import image_predictions
from maskformer.image_processing.post_processing import semantic_scores
from maskformer.image_processing.sliding_window import (
    semantic_scores_by_windows,
    semantic_segmentation_by_windows,
    window_starts,
)
from query_outputs import LargestTensor, bilinear, plain_scores

SIZE = {"shortest_edge": 48, "longest_edge": 200}
BACKENDS = [MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil]


def photograph(height: int, width: int) -> np.ndarray:
    """A smooth picture, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def plain_windows(model, processor, image: np.ndarray, corners: list[tuple[int, int]], window, output_size):
    """Sums of the scores of the windows with these upper left corners, divided by how many lie on each pixel."""
    height, width = window
    total, cover = 0, torch.zeros(image.shape[:2])
    for top, left in corners:
        view = image[top : top + height, left : left + width]
        with torch.no_grad():
            outputs = model(**processor(images=view, do_resize=False, return_tensors="pt"))
        scores = plain_scores(image_predictions(outputs, [window])[0], first=False)
        whole = torch.zeros(len(scores), *image.shape[:2])
        whole[:, top : top + height, left : left + width] = scores
        total = total + whole
        cover[top : top + height, left : left + width] += 1
    return bilinear(total / cover, output_size)


CORNERS = [(top, left) for top in (0, 20, 40, 48) for left in (0, 33, 52)]  # of 52 x 60 windows on 100 x 112 pixels


@pytest.mark.parametrize("elements", [3000, 60000, 2**22])
def test_windows_are_averaged_where_they_overlap(monkeypatch, tiny_model, elements):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", elements)
    model, processor = tiny_model(), MaskFormerUniversalImageProcessorPil(do_resize=False)
    image = photograph(100, 112)
    expected = plain_windows(model, processor, image, CORNERS, (52, 60), (100, 112))
    scores = semantic_scores_by_windows(model, processor, image, (52, 60), (20, 33))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    labels = semantic_segmentation_by_windows(model, processor, image, (52, 60), (20, 33))
    assert torch.equal(labels, scores.argmax(0)) and labels.dtype == torch.int64


@pytest.mark.parametrize("output_size", [(150, 168), (37, 61), (1, 1)])
def test_scores_are_resized_to_the_answer(monkeypatch, tiny_per_pixel_model, output_size):
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 5000)
    model, processor = tiny_per_pixel_model(), PerPixelBaselineImageProcessor(do_resize=False, size_divisor=0)
    image = photograph(100, 112)
    expected = plain_windows(model, processor, image, CORNERS, (52, 60), output_size)
    scores = semantic_scores_by_windows(model, processor, image, (52, 60), (20, 33), output_size)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_lie_on_the_image_as_it_is_resized_for_the_test(tiny_model, backend):
    model, processor = tiny_model(), backend(size=SIZE)
    image = photograph(32, 80)
    resized = processor(images=image, do_rescale=False, do_normalize=False, do_pad=False)["pixel_values"][0]
    resized = np.asarray(resized).transpose(1, 2, 0).astype(np.uint8)
    assert resized.shape == (48, 120, 3)
    corners = [(0, left) for left in (0, 30, 56)]
    expected = plain_windows(model, processor, resized, corners, (48, 64), (32, 80))
    scores = semantic_scores_by_windows(model, processor, image, (64, 64), (64, 30))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_window_is_ordinary_inference(tiny_model, backend, first):
    model, processor = tiny_model(), backend(size=SIZE, resize_masks_first=first)
    image = photograph(70, 90)
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"), output_auxiliary_logits=False)
    expected = semantic_scores(image_predictions(outputs, [(70, 90)])[0], first)
    assert torch.equal(semantic_scores_by_windows(model, processor, image, (64, 64), (32, 32)), expected)
    (labels,) = processor.post_process_semantic_segmentation(outputs, [(70, 90)])
    assert torch.equal(semantic_segmentation_by_windows(model, processor, image, (500, 500), (500, 500)), labels)


@pytest.mark.parametrize(
    ("edges", "starts"),
    [
        ((100, 40, 20), [0, 20, 40, 60]),
        ((101, 40, 20), [0, 20, 40, 60, 61]),
        ((100, 40, 40), [0, 40, 60]),
        ((40, 40, 7), [0]),
        ((1, 40, 20), [0]),
    ],
)
def test_windows_cover_an_edge(edges, starts):
    assert window_starts(*edges) == starts


def test_labels_of_a_large_image_take_two_rows_of_windows_at_a_time(monkeypatch, tiny_model):
    """No tensor of all scores is made, each window is predicted once, and those that are done with are forgotten."""
    monkeypatch.setattr(row_blocks, "BLOCK_ELEMENTS", 2**14)
    model, processor = tiny_model(), MaskFormerUniversalImageProcessorPil(do_resize=False)
    predicted, kept = [], []
    predict_view, mean_scores = sliding_window.predict_view, sliding_window._Windows.mean_scores
    monkeypatch.setattr(sliding_window, "predict_view", lambda *given: predicted.append(1) or predict_view(*given))

    def spied(windows, rows):
        scores = mean_scores(windows, rows)
        kept.append(len(windows.rows))
        return scores

    monkeypatch.setattr(sliding_window._Windows, "mean_scores", spied)
    with LargestTensor() as made:
        labels = semantic_segmentation_by_windows(model, processor, photograph(320, 240), (64, 96), (48, 72))
    assert labels.shape == (320, 240)
    assert made.elements < 2 * 320 * 240  # of four labels
    assert len(predicted) == len(window_starts(320, 64, 48)) * len(window_starts(240, 96, 72))
    assert max(kept) <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 130), (130, 3)])
def test_images_of_any_shape(tiny_model, size):
    processor = MaskFormerUniversalImageProcessor(size=SIZE)
    labels = semantic_segmentation_by_windows(tiny_model(), processor, photograph(*size), (40, 40), (30, 30))
    assert labels.shape == size


def test_bad_input(tiny_model):
    model, processor = tiny_model(), MaskFormerUniversalImageProcessor(size=SIZE)
    for stride in ((0, 10), (10, 41)):
        with pytest.raises(ValueError, match=r"the stride .* must lie between 1 and the window's size \(40, 40\)"):
            semantic_scores_by_windows(model, processor, photograph(50, 50), (40, 40), stride)
    with pytest.raises(ValueError, match="holds float32"):
        semantic_scores_by_windows(model, processor, photograph(50, 50) / 255, (40, 40), (30, 30))
