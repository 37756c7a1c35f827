"""Pictures of what a model answers."""

from __future__ import annotations

import itertools
from pathlib import Path

from maskformer.data.example import Source, semantic_map, without_overlap
from maskformer.image_processing.visualization import draw_segments, draw_semantic, side_by_side
from maskformer.recipes.arguments import EvaluationArguments
from maskformer.training.evaluation import VOID, predictions, readable_examples


def draw_validation(
    model, image_processor, source: Source, arguments: EvaluationArguments, path: Path, rows: int = 4
) -> None:
    """Writes image, truth and prediction of the first usable examples of `source`, side by side."""
    examples = itertools.islice(readable_examples(source, range(len(source)), skip_bad=True), rows)
    pictures = []
    names, colors = source.labels.names, source.labels.colors
    for example, panoptic, semantic in predictions(model, image_processor, examples, arguments):
        image = example["image"]
        scale = max(1, round(384 / max(image.shape[:2])))  # labels stay readable on small images
        if panoptic is None:
            maps = semantic_map(example, VOID), semantic.cpu().numpy()
            drawn = [draw_semantic(image, labels, names, colors, scale=scale) for labels in maps]
        else:
            segments = without_overlap(example), panoptic
            drawn = [draw_segments(image, each, names, colors, scale=scale) for each in segments]
        pictures += [image, *drawn]
    if pictures:
        side_by_side(pictures, ["image", "truth", "prediction"]).save(path)
