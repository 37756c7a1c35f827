"""A model's answers to a dataset, and the metrics of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from maskformer.data.example import BadSample, Example, Source, semantic_map, without_overlap
from maskformer.data.label_set import LabelSet
from maskformer.metrics import MeanIoU, PanopticQuality
from maskformer.recipes.arguments import EvaluationArguments

logger = logging.getLogger(__name__)
VOID = 65535  # of semantic maps: no label set is that large


def readable_examples(source: Source, indices: Iterable[int], skip_bad: bool) -> Iterator[Example]:
    """The examples at `indices`; those that cannot be used are logged and left out, or raise `BadSample`."""
    for index in indices:
        try:
            yield source[index]
        except BadSample as error:
            if not skip_bad:
                raise
            logger.warning("skipped a bad sample: %s", error)


def batches_of_one_canvas(
    examples: Iterable[Example], image_processor, batch_size: int
) -> Iterator[tuple[list[Example], dict[str, torch.Tensor]]]:
    """Successive examples whose padded images have the same size, at most `batch_size` together.

    Logits depend on the canvas, so a batch of one canvas gives the same answers as its images one by one.
    """
    pending: list[tuple[Example, dict]] = []

    def flush():
        inputs = {key: torch.cat([item[key] for _, item in pending]) for key in ("pixel_values", "pixel_mask")}
        return [example for example, _ in pending], inputs

    for example in examples:
        item = image_processor(images=example["image"], return_tensors="pt")
        full = len(pending) == batch_size
        if pending and (full or pending[0][1]["pixel_values"].shape != item["pixel_values"].shape):
            yield flush()
            pending = []
        pending.append((example, item))
    if pending:
        yield flush()


@torch.inference_mode()
def predictions(
    model, image_processor, examples: Iterable[Example], arguments: EvaluationArguments
) -> Iterator[tuple[Example, dict | None, torch.Tensor]]:
    """Each example with its panoptic answer and its semantic map, at the size of the example's image.

    Per-pixel models have no panoptic answer: it is None.
    """
    model.eval()
    for batch, inputs in batches_of_one_canvas(examples, image_processor, arguments.eval_batch_size):
        outputs = model(**{key: value.to(model.device) for key, value in inputs.items()})
        sizes = [example["image"].shape[:2] for example in batch]
        panoptic = [None] * len(batch)
        if gives_segments(image_processor):
            panoptic = image_processor.post_process_panoptic_segmentation(
                outputs, target_sizes=sizes, **arguments.protocol()
            )
        semantic = image_processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        yield from zip(batch, panoptic, semantic, strict=True)


def gives_segments(image_processor) -> bool:
    """Whether the answers of its model are segments, or labels of pixels only."""
    return hasattr(image_processor, "post_process_panoptic_segmentation")


def evaluate(
    model,
    image_processor,
    source: Source,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    skip_bad: bool = False,
    limit: int | None = None,
) -> dict:
    """Panoptic quality and mean IoU of `model` on `source`, as fractions, equal on every process.

    Of a per-pixel model only mean IoU.

    Every process evaluates its share of the examples; counts, not averages, are summed, so nothing counts twice.
    Raises `ValueError` if no example could be used.
    """
    count = min(len(source), limit or len(source))
    indices = range(accelerator.process_index, count, accelerator.num_processes)
    quality = PanopticQuality(categories=source.labels.categories) if gives_segments(image_processor) else None
    mean_iou = MeanIoU(num_labels=len(source.labels), ignore_index=VOID)
    bar = tqdm(
        total=len(indices), desc="evaluating", unit="image", leave=False, disable=not accelerator.is_main_process
    )
    images = 0
    for example, panoptic, semantic in predictions(
        model, image_processor, readable_examples(source, indices, skip_bad), arguments
    ):
        if quality is not None:
            quality.add(prediction=panoptic, reference=without_overlap(example))
        mean_iou.add(prediction=semantic, reference=semantic_map(example, VOID))
        images += 1
        bar.update()
    bar.close()

    def sum_over_processes(array):
        return accelerator.reduce(torch.from_numpy(array).to(accelerator.device), reduction="sum").cpu().numpy()

    if accelerator.num_processes > 1:
        if quality is not None:
            quality.reduce(sum_over_processes)
        mean_iou.reduce(sum_over_processes)
        images = int(accelerator.reduce(torch.tensor(images, device=accelerator.device), reduction="sum"))
    if not images:
        raise ValueError("there is no example to evaluate: the dataset is empty, or none of it can be used")
    return summarize(quality.compute() if quality is not None else None, mean_iou.compute(), source.labels, images)


def summarize(quality: dict | None, iou: dict, labels: LabelSet, images: int) -> dict:
    """Both metrics, or the one there is, as plain numbers, with a row for each label."""
    keys = [f"{key}{kind}" for key in ("pq", "sq", "rq") for kind in ("", "_things", "_stuff")]
    summary = {"images": images}
    if quality:
        summary |= {key: float(quality[key]) for key in keys}
    summary |= {
        key: float(iou[key]) for key in ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "overall_accuracy")
    }
    summary["per_label"] = {
        name: {**(quality["per_class"][index] if quality else {}), "iou": float(iou["per_category_iou"][index])}
        for index, name in enumerate(labels.names)
    }
    return summary


def in_one_line(metrics: dict) -> str:
    """The metrics that people quote, in percent."""
    iou = f"mIoU {100 * metrics['mean_iou']:.1f}"
    if "pq" not in metrics:
        return iou
    pq, things, stuff = (100 * metrics[key] for key in ("pq", "pq_things", "pq_stuff"))
    return f"PQ {pq:.1f} (things {things:.1f}, stuff {stuff:.1f}), {iou}"
