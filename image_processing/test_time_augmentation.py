"""Semantic inference on several sizes of an image and their mirror images, as the official evaluation augments it.

The image, already resized for the test, is resized once more to every size, as 8-bit pixels by PIL, whatever the image
processor resizes with; the scores of all views are averaged at the size of the answer, those of mirror images mirrored
back. Every view's outputs are kept as small as the network makes them and averaged a block of rows at a time, so that
no tensor (labels, H, W) exists beside the answer: the labels of an image of any size can be had.

There is no such average for panoptic and instance answers. Queries have no order: query 7 of one size and query 7 of
another may mean different things, so the mean of their masks means nothing, and the official code has no panoptic
multi-scale inference either. To pair the queries of all views first would be another method, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .image_prediction import ImagePrediction
from .inference import eight_bit_image, predict_view
from .post_processing import elements_per_score_row, score_rows
from .preprocessing import output_size as resized_size
from .preprocessing import resize_with_pil
from .row_blocks import row_blocks

BILINEAR = Image.Resampling.BILINEAR  # as the official augmentation resizes


@torch.inference_mode()
def semantic_scores_with_tta(
    model,
    image_processor,
    image,
    shortest_edges: Sequence[int],
    longest_edge: int | None = None,
    flip: bool = True,
    output_size: tuple[int, int] | None = None,
) -> Tensor:
    """The mean score of every label at every pixel, float32 (K, H, W), of a MaskFormer or a per-pixel model.

    `image` is of any kind, 8-bit; the image processor resizes it for the test first, unless its `do_resize` is False.
    Every view then has one of `shortest_edges` as its shorter edge, in pixels, or less where the longer one would
    exceed `longest_edge`; with `flip` each is also taken mirrored. `output_size` is the (height, width) of the answer;
    None means the size of `image`. The model is to be in evaluation mode; the answer is on its device.
    Raises `ValueError` if there is no size, and for an image of floats.
    """
    blocks = _mean_score_blocks(model, image_processor, image, shortest_edges, longest_edge, flip, output_size)
    return torch.cat(list(blocks), dim=1)  # (K, H, W)


@torch.inference_mode()
def semantic_segmentation_with_tta(
    model,
    image_processor,
    image,
    shortest_edges: Sequence[int],
    longest_edge: int | None = None,
    flip: bool = True,
    output_size: tuple[int, int] | None = None,
) -> Tensor:
    """The label of every pixel, int64 (H, W): the highest of the `semantic_scores_with_tta`, which it never holds."""
    blocks = _mean_score_blocks(model, image_processor, image, shortest_edges, longest_edge, flip, output_size)
    return torch.cat([scores.argmax(0) for scores in blocks])  # (H, W)


def _mean_score_blocks(
    model, image_processor, image, shortest_edges, longest_edge, flip, output_size
) -> Iterator[Tensor]:
    """The mean scores in blocks of rows, (K, R, W) each."""
    image = eight_bit_image(image)
    size = tuple(output_size or image.shape[:2])
    views = [
        (predict_view(model, image_processor, view, size), mirrored)
        for view, mirrored in augmented_views(
            resized_for_test(image, image_processor), shortest_edges, longest_edge, flip
        )
    ]
    if not views:
        raise ValueError("test-time augmentation needs at least one shortest edge, but shortest_edges is empty")
    first = image_processor.resize_masks_first
    for rows in row_blocks(size[0], max(elements_per_score_row(prediction) for prediction, _ in views)):
        yield _mean_scores(views, rows, first)


def _mean_scores(views: list[tuple[ImagePrediction, bool]], rows: Tensor, resize_masks_first: bool) -> Tensor:
    """Rows `rows` (R,) of the mean scores of all views, (K, R, W)."""
    total = 0
    for prediction, mirrored in views:
        scores = score_rows(prediction, rows, resize_masks_first)  # (K, R, W)
        total = total + (scores.flip(-1) if mirrored else scores)
    return total / len(views)


def resized_for_test(image: np.ndarray, image_processor) -> np.ndarray:
    """`image`, uint8 (H, W, 3), as the image processor resizes it, but by PIL; as it is where `do_resize` is False."""
    if not image_processor.do_resize:
        return image
    return resize_with_pil(image, resized_size(*image.shape[:2], image_processor.size), image_processor.resample)


def augmented_views(
    image: np.ndarray, shortest_edges: Sequence[int], longest_edge: int | None, flip: bool
) -> Iterator[tuple[np.ndarray, bool]]:
    """`image`, uint8 (H, W, 3), resized to each size, and whether it is mirrored: (h, w, 3) each."""
    for edge in shortest_edges:
        size = resized_size(*image.shape[:2], {"shortest_edge": edge, "longest_edge": longest_edge})
        view = resize_with_pil(image, size, BILINEAR)
        yield view, False
        if flip:
            yield np.ascontiguousarray(view[:, ::-1]), True
