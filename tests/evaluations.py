"""Examples and answers for tests of the evaluation."""

from __future__ import annotations

import datasets
import numpy as np
import torch

from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.data.example import Source, semantic_map
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import Answer
from maskformer.metrics.mask_average_precision.mask_average_precision import encoded

LABELS = LabelSet.from_categories(
    [{"id": 10 * i + 5, "name": f"label {i}", "isthing": int(i > 1)} for i in range(4)]  # two of stuff, two things
)
VOID = 65535
SIZES = [(40, 56), (40, 56), (56, 40), (40, 56), (33, 90)]


def make_example(index: int, size: tuple[int, int] = (40, 56), segments: int = 5) -> dict:
    """Noise, and segments of 8 x 8 blocks; a part is void."""
    random = np.random.default_rng(index)
    blocks = random.integers(0, segments + 1, (-(-size[0] // 8), -(-size[1] // 8))).repeat(8, 0).repeat(8, 1)
    segmentation = blocks[: size[0], : size[1]].astype(np.int32)  # (H, W)
    ids = [int(i) for i in np.unique(segmentation) if i]
    infos = [{"id": i, "label_id": i % 4, "iscrowd": 0} for i in ids]
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    return {"image": image, "segmentation": segmentation, "segments_info": infos, "image_id": f"{index}"}


def make_source(sizes=SIZES, labels: LabelSet = LABELS) -> Source:
    """One example of each size."""
    rows = datasets.Dataset.from_dict({"index": list(range(len(sizes)))})
    return Source(rows, labels, lambda row: make_example(row["index"], sizes[row["index"]]))


def make_processor(**values) -> MaskFormerUniversalImageProcessorPil:
    """An image processor of small images."""
    settings = {"size": {"shortest_edge": 64, "longest_edge": 160}, "label_ids_to_fuse": LABELS.stuff_ids}
    return MaskFormerUniversalImageProcessorPil(**settings | values)


def shifted_answer(example: dict, rows: int) -> Answer:
    """The truth, moved down by some rows: right in parts, without void."""
    segmentation = np.roll(example["segmentation"], rows, 0)
    infos = [{**info, "score": 0.5 + info["id"] / 20} for info in example["segments_info"]]
    things = [info for info in infos if LABELS.is_thing[info["label_id"]]]
    masks = [encoded(segmentation == info["id"]) for info in things]
    masks = [{**rle, "counts": rle["counts"].decode()} for rle in masks]  # as image processors give them
    semantic = semantic_map({**example, "segmentation": segmentation}, 0)
    panoptic = {"segmentation": torch.from_numpy(segmentation), "segments_info": infos}
    return Answer(torch.from_numpy(semantic).long(), panoptic, {"segmentation": masks, "segments_info": things})


def same(one: dict, other: dict, tolerance: float = 1e-12) -> bool:
    """Whether two summaries hold the same numbers, NaN being equal to NaN."""
    if one.keys() != other.keys():
        return False
    return all(
        same(value, other[key], tolerance)
        if isinstance(value, dict)
        else np.isclose(value, other[key], rtol=0, atol=tolerance, equal_nan=True)
        for key, value in one.items()
    )
