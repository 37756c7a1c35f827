"""One image's part of a network's outputs, resized on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .row_blocks import resized_rows

LARGEST_LOGIT = {False: 1e4, True: 1e30}  # of masks, whose probabilities are 0 and 1 long before, and of labels


@dataclass(frozen=True)
class ImagePrediction:
    """What a network says of one image, and where the image lies.

    `mask_logits` (N, h, w) are the masks of N queries, with `class_logits` (N, K+1), the last being no-object; for a
    per-pixel model `class_logits` is None and `mask_logits` (K, h, w) are its label logits. They stretch over a canvas
    of `canvas_size` pixels, at whose top left the image has `image_size`; the answer is wanted at `output_size`. Sizes
    are (height, width).
    """

    class_logits: Tensor | None
    mask_logits: Tensor
    canvas_size: tuple[int, int]
    image_size: tuple[int, int]
    output_size: tuple[int, int]

    @property
    def device(self) -> torch.device:
        """Where the logits are."""
        return self.mask_logits.device

    @property
    def elements_per_row(self) -> int:
        """Elements that a row of one channel has at most, on the way from the canvas to the output."""
        return max(self.canvas_size[1], self.output_size[1])

    def image_rows(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Rows `rows` (R,) of the image of `masks` (C, h, w) at the canvas's resolution, (C, R, image width)."""
        masks_on_canvas = resized_rows(lambda needed: masks[:, needed], masks.shape[1], self.canvas_size, rows)
        return masks_on_canvas[..., : self.image_size[1]]  # (C, R, image width)

    def output_rows(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Rows `rows` (R,) of `masks` (C, h, w) enlarged to the canvas, cut and resized to the output, (C, R, W)."""
        return resized_rows(lambda needed: self.image_rows(masks, needed), self.image_size[0], self.output_size, rows)


def image_predictions(outputs, target_sizes: Sequence[tuple[int, int]] | Tensor | None = None) -> list[ImagePrediction]:
    """The outputs of a batch of B images, image by image.

    `outputs` has `class_queries_logits` (B, N, K+1) and `masks_queries_logits` (B, N, h, w), or `logits` (B, K, h, w).
    Its `pixel_mask` (B, H, W) gives the canvas (its shape) and the image on it (its ones); without one the image
    fills a canvas of 4h x 4w. Label logits always stretch over 4h x 4w: the official heads enlarge them by 4.
    `target_sizes` are the (height, width) of the answers; None means each image's own size on the canvas.
    Raises `ValueError` for NaN logits, an empty pixel mask, and target sizes that are not B positive pairs.
    """
    per_pixel = getattr(outputs, "logits", None) is not None
    masks = outputs.logits if per_pixel else outputs.masks_queries_logits
    classes = [None] * len(masks) if per_pixel else outputs.class_queries_logits
    masks = _finite(masks, LARGEST_LOGIT[per_pixel])
    if not per_pixel:
        classes = _finite(classes, LARGEST_LOGIT[True])  # a softmax of infinity would be NaN
    canvas, image_sizes = _canvas_and_image_sizes(masks, getattr(outputs, "pixel_mask", None))
    if per_pixel:
        canvas = (4 * masks.shape[-2], 4 * masks.shape[-1])
        image_sizes = [(min(h, canvas[0]), min(w, canvas[1])) for h, w in image_sizes]
    output_sizes = image_sizes if target_sizes is None else _checked_sizes(target_sizes, len(masks))
    return [
        ImagePrediction(None if c is None else c.float(), m.float(), canvas, image_size, output_size)
        for c, m, image_size, output_size in zip(classes, masks, image_sizes, output_sizes, strict=True)
    ]


def _finite(logits: Tensor, largest: float) -> Tensor:
    """The logits, infinite ones as `largest`, which sums and a softmax can take; `ValueError` for NaN."""
    if logits.sum().isfinite():
        return logits  # told fast; a sum can overflow too
    _check_no_nan(logits)
    return logits.float().clamp(-largest, largest)


def _check_no_nan(logits: Tensor):
    is_bad = logits.isnan().flatten(1).any(1).tolist()  # (B,)
    if any(is_bad):
        raise ValueError(
            f"the logits of image {is_bad.index(True)} of the batch are NaN; did training diverge, or fp16 overflow?"
        )


def _canvas_and_image_sizes(masks: Tensor, pixel_mask: Tensor | None) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The canvas of a batch, and every image's size on it."""
    if pixel_mask is None:
        canvas = (4 * masks.shape[-2], 4 * masks.shape[-1])
        return canvas, [canvas] * len(masks)
    mask = pixel_mask.bool()
    heights, widths = mask.any(2).sum(1).tolist(), mask.any(1).sum(1).tolist()
    if 0 in heights:
        raise ValueError(f"pixel_mask has no ones for image {heights.index(0)} of the batch")
    return tuple(mask.shape[-2:]), list(zip(heights, widths, strict=True))


def _checked_sizes(target_sizes, batch_size: int) -> list[tuple[int, int]]:
    if len(target_sizes) != batch_size:
        raise ValueError(f"there are {len(target_sizes)} target_sizes for {batch_size} images")
    sizes = [tuple(int(edge) for edge in size) for size in target_sizes]
    for index, size in enumerate(sizes):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"target_sizes[{index}] must be a (height, width) in pixels, not {size}")
    return sizes
