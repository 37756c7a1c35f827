"""The metrics of a model on a dataset, as training and its scripts quote them."""

from __future__ import annotations

from accelerate import Accelerator

from maskformer.data.example import Source
from maskformer.evaluation.measure import measure
from maskformer.recipes.arguments import EvaluationArguments


def evaluate(
    model,
    image_processor,
    source: Source,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    skip_bad: bool = False,
    limit: int | None = None,
) -> dict:
    """The metrics of `model` on `source`, as fractions, equal on every process; see `Scores.summary`.

    Raises as `measure` does.
    """
    return measure(model, image_processor, source, arguments, accelerator, skip_bad, limit).summary()


def in_one_line(metrics: dict) -> str:
    """The metrics that people quote, in percent."""
    parts = []
    if "pq" in metrics:
        parts.append("PQ {:.1f} (things {:.1f}, stuff {:.1f})".format(*percent(metrics, "pq", "pq_things", "pq_stuff")))
    parts.append("mIoU {:.1f}".format(*percent(metrics, "mean_iou")))
    if "ap" in metrics:
        parts.append("AP {:.1f}".format(*percent(metrics, "ap")))
    return ", ".join(parts)


def percent(metrics: dict, *names: str) -> list[float]:
    """The metrics `names` in percent."""
    return [100 * metrics[name] for name in names]
