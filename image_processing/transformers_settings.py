"""Settings of the image processor of transformers' own MaskFormer, as its checkpoints hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

THEIRS = {
    f"MaskFormer{name}" for name in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
}
SAME = (
    *("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("size_divisor", "ignore_index", "do_reduce_labels", "num_labels"),
)
OLD_NAMES = {"reduce_labels": "do_reduce_labels", "size_divisibility": "size_divisor"}


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` of a file; where it is of transformers' own MaskFormer, those that ours has, by their names here.

    Files of older versions give `size` and `max_size` as numbers.
    """
    if (settings.get("image_processor_type") or settings.get("feature_extractor_type")) not in THEIRS:
        return dict(settings)
    named = {OLD_NAMES.get(name, name): value for name, value in settings.items()}
    own = {name: named[name] for name in SAME if named.get(name) is not None}
    if isinstance(own.get("size"), int):
        own["size"] = {"shortest_edge": own["size"], "longest_edge": named.get("max_size") or 1333}
    return own
