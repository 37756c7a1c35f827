"""Semantic inference on large images by windows that overlap, whose scores are averaged where they do.

Windows are cut from the image as it is resized for the test, row by row; those of a row of windows are kept, as small
as the network makes their outputs, for as long as pixels need them. Neither the scores of the whole image nor all
windows ever exist together, so the labels of an image of any size can be had.

There is no such average for panoptic and instance answers. Every window has queries of its own, so that an object on a
border is found twice, in parts: to join the parts takes rules that are another method, not the paper's. Larger images
get panoptic answers whole; their cost in memory is that of the network alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .image_prediction import ImagePrediction
from .inference import eight_bit_image, predict_view
from .post_processing import elements_per_score_row, score_rows
from .row_blocks import resized_rows, row_blocks


@torch.inference_mode()
def semantic_scores_by_windows(
    model,
    image_processor,
    image,
    window_size: tuple[int, int],
    stride: tuple[int, int],
    output_size: tuple[int, int] | None = None,
) -> Tensor:
    """The score of every label at every pixel, float32 (K, H, W), of a MaskFormer or a per-pixel model.

    `image` is of any kind, 8-bit; the image processor resizes it for the test first, unless its `do_resize` is False.
    `window_size` and `stride` are (height, width) in pixels of the resized image; a window that would reach beyond the
    image is moved back into it. Scores are averaged at the resized image's size and then resized to `output_size`
    (height, width), None meaning the size of `image`; a window that holds the whole image gives the answer of ordinary
    inference. The model is to be in evaluation mode; the answer is on its device.
    Raises `ValueError` for a stride that leaves gaps, edges below one pixel, and an image of floats.
    """
    blocks = _score_blocks(model, image_processor, image, window_size, stride, output_size)
    return torch.cat(list(blocks), dim=1)  # (K, H, W)


@torch.inference_mode()
def semantic_segmentation_by_windows(
    model,
    image_processor,
    image,
    window_size: tuple[int, int],
    stride: tuple[int, int],
    output_size: tuple[int, int] | None = None,
) -> Tensor:
    """The label of every pixel, int64 (H, W): the highest of the `semantic_scores_by_windows`, which it never holds."""
    blocks = _score_blocks(model, image_processor, image, window_size, stride, output_size)
    return torch.cat([scores.argmax(0) for scores in blocks])  # (H, W)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an edge of `length` pixels, so that they cover it; the last one is moved back."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _score_blocks(model, image_processor, image, window_size, stride, output_size) -> Iterator[Tensor]:
    """The scores in blocks of rows, (K, R, W) each."""
    if any(not 1 <= step <= edge for step, edge in zip(stride, window_size, strict=True)):
        raise ValueError(f"the stride {tuple(stride)} must lie between 1 and the window's size {tuple(window_size)}")
    image = eight_bit_image(image)
    size = tuple(output_size or image.shape[:2])
    image = _resized(image, image_processor)
    first = image_processor.resize_masks_first
    windows = _Windows(model, image_processor, image, window_size, stride)
    if windows.is_one:  # the official order of resizing and combining, whichever it is
        prediction = predict_view(model, image_processor, image, size)
        for rows in row_blocks(size[0], elements_per_score_row(prediction)):
            yield score_rows(prediction, rows, first)
        return
    for rows in row_blocks(size[0], windows.channels * max(size[1], image.shape[1])):
        yield resized_rows(windows.mean_scores, image.shape[0], size, rows)  # (K, R, W)


def _resized(image: np.ndarray, image_processor) -> np.ndarray:
    """`image`, uint8 (H, W, 3), as the image processor resizes it."""
    if not image_processor.do_resize:
        return image
    settings = {"do_rescale": False, "do_normalize": False, "do_pad": False, "input_data_format": "channels_last"}
    (pixels,) = image_processor(images=image, **settings)["pixel_values"]
    return np.asarray(pixels).astype(np.uint8).transpose(1, 2, 0)  # (h, w, 3)


class _Windows:
    """The windows of an image, uint8 (H, W, 3), predicted when rows of scores need them, and forgotten after.

    Rows are to be asked for from top to bottom.
    """

    def __init__(self, model, image_processor, image: np.ndarray, window_size, stride):
        self.model, self.image_processor, self.image = model, image_processor, image
        self.size = tuple(min(edges) for edges in zip(window_size, image.shape[:2], strict=True))
        self.tops, self.lefts = (
            window_starts(*edges) for edges in zip(image.shape[:2], self.size, stride, strict=True)
        )
        self.rows: dict[int, list[ImagePrediction]] = {}  # by top edge, from left to right
        # How many windows lie on every row and column of the image.
        self.row_cover, self.column_cover = (
            _cover(length, starts, window)
            for length, starts, window in zip(image.shape[:2], (self.tops, self.lefts), self.size, strict=True)
        )

    @property
    def is_one(self) -> bool:
        """Whether one window holds the whole image."""
        return len(self.tops) == len(self.lefts) == 1

    @property
    def channels(self) -> int:
        """The labels, or the queries where they are more."""
        prediction = self._predicted(self.tops[0])[0]
        return elements_per_score_row(prediction) // prediction.elements_per_row

    def _predicted(self, top: int) -> list[ImagePrediction]:
        """The predictions of the windows whose upper edge is `top`."""
        if top not in self.rows:
            height, width = self.size
            views = [self.image[top : top + height, left : left + width] for left in self.lefts]
            self.rows[top] = [predict_view(self.model, self.image_processor, view, self.size) for view in views]
        return self.rows[top]

    def mean_scores(self, rows: Tensor) -> Tensor:
        """Rows `rows` (R,) of the image, ascending: the mean scores of the windows on each pixel, (K, R, W)."""
        height, width = self.size
        self.rows = {top: predictions for top, predictions in self.rows.items() if top + height > rows[0]}
        total = None
        for top in self.tops:
            begin, end = torch.searchsorted(rows, torch.tensor([top, top + height])).tolist()
            if begin == end:  # none of the rows
                continue
            for left, prediction in zip(self.lefts, self._predicted(top), strict=True):
                # The order of resizing and combining does not matter at the window's own size.
                scores = score_rows(prediction, rows[begin:end] - top, resize_masks_first=False)  # (K, R', w)
                if total is None:
                    total = scores.new_zeros((len(scores), len(rows), self.image.shape[1]))  # (K, R, W)
                total[:, begin:end, left : left + width] += scores
        cover = self.row_cover[rows][:, None] * self.column_cover  # (R, W)
        return total / cover.to(total.device)


def _cover(length: int, starts: list[int], window: int) -> Tensor:
    """How many windows lie on each of `length` pixels, int64 (length,)."""
    cover = torch.zeros(length, dtype=torch.int64)
    for start in starts:
        cover[start : start + window] += 1
    return cover
