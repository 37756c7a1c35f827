"""From a network's outputs to semantic, panoptic and instance answers for one image (§3.4 of the paper).

Pure functions that follow the official inference, and Mask2Former's score for instances, which the official code lacks.
They work in tiles, windows or blocks of rows: nothing of size (classes or queries, H, W) exists that is not the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .dominance import highest_masks
from .image_prediction import ImagePrediction
from .mask_windows import MaskWindow, mask_windows
from .preprocessing import nearest_pixels
from .row_blocks import ACCELERATOR_BLOCK_ELEMENTS, resized_rows, row_blocks, without_autocast
from .tile_grid import tile_grid
from .tiles import Tiles, highest_sums

LARGEST_WHOLE = 2**27  # elements of the largest tensor that an accelerator is given at once: 512 MB in float32
DETR_SMALLEST_AREA = 5  # pixels of a segment, in DETR's post-processing


@without_autocast
def semantic_segmentation(prediction: ImagePrediction, resize_masks_first: bool) -> Tensor:
    """The label of every pixel, int64 (H, W): the highest of the `semantic_scores`.

    Tiles spare a processor most of the work. An accelerator has done all of it before it has told the tiles apart; it
    does all at once where its memory will do, else in blocks of rows.
    """
    if prediction.device.type != "cpu":
        per_row = elements_per_score_row(prediction)
        if per_row * max(prediction.canvas_size[0], prediction.output_size[0]) <= LARGEST_WHOLE:
            return _whole_scores(prediction, resize_masks_first).argmax(0)
        blocks = row_blocks(prediction.output_size[0], per_row, ACCELERATOR_BLOCK_ELEMENTS)
        return torch.cat([score_rows(prediction, rows, resize_masks_first).argmax(0) for rows in blocks])  # (H, W)
    if prediction.class_logits is None:
        return highest_masks(_tiles(prediction, prediction.mask_logits, lambda logits, out=None: logits))[0].answer()
    probabilities = prediction.class_logits.softmax(-1)[:, :-1].detach()  # (N, K)
    tiles = _tiles(prediction, prediction.mask_logits, torch.sigmoid, not resize_masks_first)
    return highest_sums(tiles, probabilities).answer()


def _tiles(p: ImagePrediction, masks: Tensor, activate: Callable, activate_on_canvas: bool = False) -> Tiles:
    """The tiles of the answer over `masks` (N, h, w), which are activated at the output's size or on the canvas."""
    on_canvas = activate_on_canvas and p.image_size != p.output_size
    lines = tuple(zip(masks.shape[1:], p.canvas_size, p.image_size, p.output_size, strict=True))
    return Tiles(masks.detach(), tile_grid(lines, on_canvas, masks.device), activate)


def _whole_scores(p: ImagePrediction, resize_masks_first: bool) -> Tensor:
    """The `semantic_scores` (K, H, W) as the official code finds them, everything at once."""
    masks = _resized(p.mask_logits, p.canvas_size)[:, : p.image_size[0], : p.image_size[1]]  # (N, h, w)
    if resize_masks_first:
        return _combine(p, _resized(masks, p.output_size))
    return _resized(_combine(p, masks), p.output_size)


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """`picture` (C, h, w) at `size` (H, W)."""
    if picture.shape[1:] == size:
        return picture
    return F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False)[0]  # (C, H, W)


def semantic_scores(prediction: ImagePrediction, resize_masks_first: bool) -> Tensor:
    """The score of every label at every pixel, (K, H, W): the sum over queries of p(label) x mask probability.

    Masks grow to the canvas first. Then, with `resize_masks_first`, they are cut to the image, resized and combined;
    otherwise combined, and the scores cut and resized. The scores of a per-pixel model are its resized logits.
    """
    blocks = row_blocks(prediction.output_size[0], elements_per_score_row(prediction))
    return torch.cat([score_rows(prediction, rows, resize_masks_first) for rows in blocks], dim=1)  # (K, H, W)


def elements_per_score_row(p: ImagePrediction) -> int:
    """Elements that a row of scores has at most, of queries or labels, on the way to the output."""
    channels = len(p.mask_logits) if p.class_logits is None else max(p.class_logits.shape)
    return channels * p.elements_per_row


@without_autocast
def score_rows(p: ImagePrediction, rows: Tensor, resize_masks_first: bool) -> Tensor:
    """Rows `rows` (R,) of the `semantic_scores`, (K, R, W)."""
    if resize_masks_first:
        return _combine(p, p.output_rows(p.mask_logits, rows))  # (K, R, W)
    return resized_rows(
        lambda needed: _combine(p, p.image_rows(p.mask_logits, needed)), p.image_size[0], p.output_size, rows
    )  # (K, R, W)


def _combine(p: ImagePrediction, mask_logits: Tensor) -> Tensor:
    """Label scores (K, R, W) of mask logits (N, R, W); a per-pixel model's are their own."""
    if p.class_logits is None:
        return mask_logits
    probabilities = p.class_logits.softmax(-1)[:, :-1]  # (N, K)
    return torch.einsum("nk,nrw->krw", probabilities, mask_logits.sigmoid())  # (K, R, W)


@without_autocast
def panoptic_segmentation(
    prediction: ImagePrediction,
    threshold: float,
    mask_threshold: float,
    overlap_mask_area_threshold: float,
    label_ids_to_fuse: Collection[int],
) -> dict:
    """Every pixel's segment, and the segments: `{"segmentation": int32 (H, W), "segments_info": [...]}`.

    Queries count whose likeliest label is not no-object and has a probability above `threshold`. Every pixel goes to
    the query with the highest probability x mask probability. A query that wins no pixel, or fewer than
    `overlap_mask_area_threshold` of those where its own mask probability is at least `mask_threshold`, is dropped: its
    pixels become 0 (void). Segments of one label in `label_ids_to_fuse` (stuff) become one.
    An entry of `segments_info` holds `id` (1, 2, 3, ... in the order of the queries), `label_id`, `was_fused` (whether
    `label_ids_to_fuse` has the label) and `score`, the label's probability (the highest one of fused queries).
    """
    queries, scores, labels = _confident_queries(prediction, threshold)  # (n,)
    if len(queries) == 0:
        return {"segmentation": _void(prediction), "segments_info": []}

    tiles = _tiles(prediction, prediction.mask_logits.index_select(0, queries), torch.sigmoid)
    winners, shares = highest_masks(tiles, scores.detach(), mask_threshold)
    areas = zip(shares.won.tolist(), shares.claimed.tolist(), strict=True)
    valid = [w > 0 and c > 0 and w / c >= overlap_mask_area_threshold for w, c in areas]
    segment_ids, segments = _number_segments(labels.tolist(), scores.tolist(), valid, label_ids_to_fuse)
    table = torch.tensor(segment_ids, dtype=torch.int32, device=scores.device)  # (n,)
    return {"segmentation": winners.answer(table), "segments_info": segments}


def _confident_queries(p: ImagePrediction, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Index, probability and label (n,) of the queries whose likeliest label is one, and likelier than `threshold`."""
    scores, labels = p.class_logits.softmax(-1).max(-1)  # (N,)
    queries = torch.nonzero((labels != p.class_logits.shape[-1] - 1) & (scores > threshold)).flatten()  # (n,)
    return queries, scores[queries], labels[queries]


def _number_segments(
    labels: list[int], scores: list[float], valid: list[bool], label_ids_to_fuse: Collection[int]
) -> tuple[list[int], list[dict]]:
    """The segment id of every query, 0 where it is not valid, and the segments."""
    ids, segments, fused = [], [], {}
    for label, score, is_valid in zip(labels, scores, valid, strict=True):
        if not is_valid:
            ids.append(0)
            continue
        segment = fused.get(label)
        if segment is None:
            fuse = label in label_ids_to_fuse
            segment = {"id": len(segments) + 1, "label_id": label, "was_fused": fuse, "score": score}
            segments.append(segment)
            if fuse:
                fused[label] = segment
        segment["score"] = max(segment["score"], score)
        ids.append(segment["id"])
    return ids, segments


def detr_panoptic_segmentation(
    prediction: ImagePrediction, threshold: float, label_ids_to_fuse: Collection[int]
) -> dict:
    """`panoptic_segmentation` by DETR's rules (arXiv 2005.12872, section 4.4): the paper's row MaskFormer (DETR).

    The same queries count, but every pixel of the image goes to the one with the highest mask logit, whatever its
    label's probability; queries of one label in `label_ids_to_fuse` become the first of them; and the map is resized to
    the output by its nearest pixels. Segments that are too small (4 pixels or less) then lose their pixels to the
    others, without fusing again, until there are none. No pixel is void, unless no query is left.
    Entries of `segments_info` are those of `panoptic_segmentation`; `score` is the query's own. DETR's default
    threshold is 0.85.
    """
    queries, scores, labels = _confident_queries(prediction, threshold)  # (n,)
    first_of = {label: query for query, label in reversed(list(enumerate(labels.tolist())))}
    fused = [first_of[label] if label in label_ids_to_fuse else query for query, label in enumerate(labels.tolist())]
    merged = torch.tensor(fused, dtype=torch.int64, device=queries.device)  # (n,)
    while len(queries):
        winner = _highest_masks(prediction, queries)  # (H, W)
        if merged is not None:
            winner, merged = merged[winner], None
        large = torch.bincount(winner.flatten(), minlength=len(queries)) >= DETR_SMALLEST_AREA  # (n,)
        if large.all():
            segments = [
                {"id": i, "label_id": label, "was_fused": label in label_ids_to_fuse, "score": score}
                for i, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True), start=1)
            ]
            return {"segmentation": winner.int() + 1, "segments_info": segments}
        queries, scores, labels = queries[large], scores[large], labels[large]  # (n',)
    return {"segmentation": _void(prediction), "segments_info": []}


def _highest_masks(p: ImagePrediction, queries: Tensor) -> Tensor:
    """The position in `queries` (n,) of the highest mask logit of every pixel of the image, at the output's size by
    nearest pixels, int64 (H, W)."""
    masks = p.mask_logits[queries]  # (n, h, w)
    rows, columns = (
        torch.tensor(nearest_pixels(old, new), dtype=torch.int64)
        for old, new in zip(p.image_size, p.output_size, strict=True)
    )
    # Only the rows of the image that the output shows.
    needed, position = torch.unique(rows, return_inverse=True)
    blocks = row_blocks(len(needed), len(masks) * p.elements_per_row)
    winner = torch.cat([p.image_rows(masks, needed[block]).argmax(0) for block in blocks])  # (R, image width)
    return winner[position.to(winner.device)[:, None], columns.to(winner.device)]  # (H, W)


@without_autocast
def instance_segmentation(
    prediction: ImagePrediction,
    threshold: float,
    mask_threshold: float,
    overlap_mask_area_threshold: float,
    stuff_ids: Collection[int] = (),
    form: Literal["map", "binary", "rle"] = "map",
) -> dict:
    """The instances, best first: `{"segmentation": ..., "segments_info": [...]}`.

    A query is an instance of its likeliest label, no-object left out; those in `stuff_ids` are none. Its mask is where
    its mask probability is at least `mask_threshold`, its score the label's probability x the mean mask probability
    inside the mask; it counts if the score is above `threshold` and the mask not empty.
    `form` "binary" gives the masks as bool (n, H, W) and "rle" as n COCO RLEs; they may overlap. "map" gives an int32
    (H, W) map of ids, 0 for none: better instances hide worse ones, and one of which less than
    `overlap_mask_area_threshold` remains visible is left out.
    An entry of `segments_info` holds `id` (1, 2, 3, ... by falling score; mask i has id i + 1), `label_id`, `was_fused`
    (False) and `score`.
    """
    instances = _instances(prediction, threshold, mask_threshold, stuff_ids)
    infos = [{"label_id": label, "was_fused": False, "score": score} for label, score, _ in instances]
    windows = [window for _, _, window in instances]
    if form == "binary":
        segmentation = torch.zeros(len(windows), *prediction.output_size, dtype=torch.bool, device=prediction.device)
        for mask, window in zip(segmentation, windows, strict=True):
            window.of(mask).copy_(window.inside)
    elif form == "rle":
        segmentation = [coco_rle(_whole_mask(window, prediction.output_size)) for window in windows]
    else:
        segmentation, visible = _void(prediction), []
        for window, info in zip(windows, infos, strict=True):
            free = window.inside & (window.of(segmentation) == 0)  # (R, C)
            visible_area = int(free.count_nonzero())
            if visible_area > 0 and visible_area / int(window.area) >= overlap_mask_area_threshold:
                visible.append(info)
                window.of(segmentation).masked_fill_(free, len(visible))
        infos = visible
    return {"segmentation": segmentation, "segments_info": [{"id": i, **info} for i, info in enumerate(infos, start=1)]}


def _instances(
    p: ImagePrediction, threshold: float, mask_threshold: float, stuff_ids: Collection[int]
) -> list[tuple[int, float, MaskWindow]]:
    """Label, score and mask of every instance, by falling score."""
    probabilities, labels = p.class_logits.softmax(-1)[:, :-1].max(-1)  # (N,)
    is_stuff = torch.isin(labels, torch.tensor(sorted(stuff_ids), dtype=labels.dtype, device=labels.device))
    # The mean mask probability is at most 1, so no query below the threshold can reach it.
    queries = torch.nonzero((probabilities > threshold) & ~is_stuff).flatten()  # (n,)
    windows = list(mask_windows(p, queries, mask_threshold))
    if not windows:
        return []
    areas = torch.stack([window.area for window in windows])  # (n,)
    totals = torch.stack([window.total for window in windows])  # (n,)
    scores = probabilities[queries] * totals / areas.clamp(min=1)  # (n,)
    found = zip(labels[queries].tolist(), scores.tolist(), windows, areas.tolist(), strict=True)
    instances = [(label, score, window) for label, score, window, area in found if area > 0 and score > threshold]
    return sorted(instances, key=lambda instance: -instance[1])


def _void(p: ImagePrediction) -> Tensor:
    """A map of the output's size without any segment, int32 (H, W)."""
    return torch.zeros(p.output_size, dtype=torch.int32, device=p.device)


def coco_rle(mask: np.ndarray) -> dict:
    """A mask (H, W) as `{"size": [H, W], "counts": str}`, as pycocotools encodes it; `ImportError` without it."""
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise ImportError("COCO annotations need pycocotools: pip install pycocotools") from error
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(edge) for edge in rle["size"]], "counts": rle["counts"].decode()}


def _whole_mask(window: MaskWindow, size: tuple[int, int]) -> np.ndarray:
    """The mask in an answer of `size`, uint8 (H, W)."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[window.rows, window.columns] = window.inside.numpy(force=True)
    return mask
