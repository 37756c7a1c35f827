"""Pictures of what a model answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskformer.data.example import Example, Source, on_top, semantic_map, without_overlap
from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import Answer, answers, kinds_of_answers, readable_examples
from maskformer.evaluation.scores import VOID
from maskformer.image_processing.visualization import draw_segments, draw_semantic, side_by_side
from maskformer.recipes.arguments import EvaluationArguments

WIDEST, SMALLEST = 640, 384  # of a drawn image, pixels of its longer edge


def draw_validation(
    model, image_processor, source: Source, arguments: EvaluationArguments, path: Path, rows: int = 4
) -> None:
    """Writes image, truth and prediction of the first usable examples of `source`, side by side."""
    examples = itertools.islice(readable_examples(source, range(len(source)), skip_bad=True), rows)
    draw_examples(model, image_processor, examples, source.labels, arguments, path)


def draw_examples(
    model, image_processor, examples, labels: LabelSet, arguments: EvaluationArguments, path: Path, captions=None
) -> None:
    """Writes image, truth and prediction of `examples`, one row each, with one caption a row if there are any.

    All or nothing; nothing where there is no example.
    """
    kinds = kinds_of_answers(arguments, image_processor, labels) - {"instance"}
    pictures: list[np.ndarray | Image.Image] = []
    for example, answer in answers(model, image_processor, examples, arguments, kinds):
        pictures += drawn(example, answer, labels)
    if pictures:
        sheet = side_by_side(pictures, ["image", "truth", "prediction"], captions)
        with replace_file(path) as temporary:
            sheet.save(temporary, format="PNG")


def drawn(example: Example, answer: Answer, labels: LabelSet) -> list[np.ndarray | Image.Image]:
    """Image, truth and prediction, large ones made smaller, so that a sheet of photographs can be looked at."""
    longest = max(example["image"].shape[:2])
    scale = max(1, round(SMALLEST / longest))  # labels stay readable on small images
    step = min(1.0, WIDEST / longest)
    image = shrunk(example["image"], step)
    names, colors = labels.names, labels.colors
    if answer.panoptic is None:
        maps = semantic_map(example, VOID), answer.semantic.cpu().numpy()
        both = [draw_semantic(image, shrunk(each, step), names, colors, scale=scale) for each in maps]
    else:
        truth = without_overlap(example)
        both = [
            draw_segments(image, {**each, "segmentation": shrunk(ids, step)}, names, colors, scale=scale)
            for each, ids in (
                (truth, on_top(truth["segmentation"])),
                (answer.panoptic, answer.panoptic["segmentation"].cpu().numpy()),
            )
        ]
    return [image, *both]


def shrunk(array: np.ndarray, factor: float) -> np.ndarray:
    """An image (H, W, 3), smoothly, or a map (H, W), by its nearest pixels, with edges `factor` times as long."""
    if factor >= 1:
        return array
    height, width = (max(1, round(edge * factor)) for edge in array.shape[:2])
    if array.ndim == 3:
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS))
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(array.shape, (height, width), strict=True)
    )
    return array[rows[:, None], columns]  # (h, w)


def captions_of(scores: Sequence[tuple[str, float]], metric: str) -> list[str]:
    """One line a row: the image's id, cut where it is long, and its score in percent."""
    return [
        f"{name if len(name) <= 24 else name[:11] + '…' + name[-12:]}  {metric} {100 * s:.1f}" for name, s in scores
    ]
