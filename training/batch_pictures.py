"""Pictures of training batches: what the network is shown, and what it shall answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet
from maskformer.image_processing.preprocessing import normalization
from maskformer.image_processing.visualization import draw_segments, side_by_side

TILE = 640  # pixels, the width of a picture


def draw_batches(batches: Iterable[dict], image_processor, labels: LabelSet, path: Path, images: int = 6) -> None:
    """Writes the first `images` images of `batches` beside their masks, as they enter the network, padding included.

    The caption of a row counts the masks, those too that have no pixel and cannot be seen. `batches` are a collator's.
    """
    pictures, captions = [], []
    for batch in batches:
        for index, pixels in enumerate(batch["pixel_values"]):
            if len(captions) == images:
                break
            image = image_of(pixels, image_processor)
            segments = segments_of(batch, index, len(labels))
            scale = max(1, round(TILE / image.shape[1]))
            drawn = draw_segments(image, segments, labels.names, labels.colors, scale=scale)
            height = round(image.shape[0] * TILE / image.shape[1])
            for picture in (Image.fromarray(image), drawn):
                pictures.append(picture.resize((TILE, height), Image.Resampling.LANCZOS))
            captions.append(caption_of(segments))
        if len(captions) == images:
            break
    with replace_file(path) as temporary:
        side_by_side(pictures, ["what the network sees", "what it learns"], captions).save(temporary, format="png")


def image_of(pixel_values: torch.Tensor, image_processor) -> np.ndarray:
    """Normalised `pixel_values` (3, H, W) as the image uint8 (H, W, 3)."""
    rescale = image_processor.rescale_factor if image_processor.do_rescale else 1.0
    mean, std = (0.0, 1.0)
    if image_processor.do_normalize:
        mean, std = image_processor.image_mean, image_processor.image_std
    offset, divisor = normalization(rescale, mean, std)
    values = pixel_values.cpu().float() * divisor + offset
    return values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, 3)


def segments_of(batch: dict, index: int, num_labels: int) -> dict:
    """The targets of one image as a map of segment ids with `segments_info`; small masks lie on top of large ones."""
    if "labels" in batch:  # of a per-pixel model
        label_map = batch["labels"][index].cpu().numpy()
        present = [label for label in np.unique(label_map).tolist() if label < num_labels]  # the others are void
        masks, classes = [label_map == label for label in present], present
    else:
        masks, classes = batch["mask_labels"][index].cpu().numpy(), batch["class_labels"][index].tolist()
    segmentation = np.zeros(batch["pixel_values"].shape[-2:], dtype=np.int32)  # (H, W)
    for segment in sorted(range(len(masks)), key=lambda segment: -int(masks[segment].sum())):
        segmentation[masks[segment]] = segment + 1
    infos = [
        {"id": segment + 1, "label_id": label, "empty": not masks[segment].any()}
        for segment, label in enumerate(classes)
    ]
    return {"segmentation": segmentation, "segments_info": infos}


def caption_of(segments: dict) -> str:
    """How many masks there are, and how many of them are empty: short, for rows of little height."""
    empty = sum(info["empty"] for info in segments["segments_info"])
    count = len(segments["segments_info"])
    return f"{count} mask{'s' * (count != 1)}" + f", {empty} empty" * bool(empty)
