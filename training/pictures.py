"""Pictures of what a model answers."""

from __future__ import annotations

import itertools
from pathlib import Path

from maskformer.data.example import Source, without_overlap
from maskformer.image_processing.visualization import draw_segments, side_by_side
from maskformer.recipes.arguments import EvaluationArguments
from maskformer.training.evaluation import predictions, readable_examples


def draw_validation(
    model, image_processor, source: Source, arguments: EvaluationArguments, path: Path, rows: int = 4
) -> None:
    """Writes image, truth and prediction of the first usable examples of `source`, side by side."""
    examples = itertools.islice(readable_examples(source, range(len(source)), skip_bad=True), rows)
    pictures = []
    for example, panoptic, _ in predictions(model, image_processor, examples, arguments):
        image = example["image"]
        scale = max(1, round(384 / max(image.shape[:2])))  # labels stay readable on small images
        truth, answer = (
            draw_segments(image, segments, source.labels.names, source.labels.colors, scale=scale)
            for segments in (without_overlap(example), panoptic)
        )
        pictures += [image, truth, answer]
    if pictures:
        side_by_side(pictures, ["image", "truth", "prediction"]).save(path)
