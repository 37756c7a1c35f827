"""A model's answers to examples: in batches of one canvas, by several sizes of an image, or by windows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch

from maskformer.data.example import BadSample, Example, Source
from maskformer.data.label_set import LabelSet
from maskformer.image_processing.inference import last_predictions
from maskformer.image_processing.sliding_window import semantic_segmentation_by_windows
from maskformer.image_processing.test_time_augmentation import semantic_segmentation_with_tta
from maskformer.recipes.arguments import EvaluationArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model says of an image (H, W); answers of a kind that nobody asked for are None."""

    semantic: torch.Tensor  # int64 (H, W), label ids
    panoptic: dict | None = None  # as `post_process_panoptic_segmentation` gives it
    instances: dict | None = None  # COCO RLEs, as `post_process_instance_segmentation` gives them


def kinds_of_answers(arguments: EvaluationArguments, image_processor, labels: LabelSet) -> frozenset[str]:
    """The kinds that are evaluated, `semantic` and maybe `panoptic` and `instance`.

    Per-pixel models, test-time augmentation and sliding windows have semantic answers only, and where all labels are
    stuff there are no segments to find. Where all are things, data are instances whatever the task is called.
    """
    averaged = arguments.tta or arguments.sliding_window is not None
    if averaged or arguments.task == "semantic" or not gives_segments(image_processor) or not any(labels.is_thing):
        return frozenset({"semantic"})
    if arguments.task == "instance" or all(labels.is_thing):
        return frozenset({"semantic", "panoptic", "instance"})
    return frozenset({"semantic", "panoptic"})


def gives_segments(image_processor) -> bool:
    """Whether the answers of its model are segments, or labels of pixels only."""
    return hasattr(image_processor, "post_process_panoptic_segmentation")


def readable_examples(source: Source, indices: Iterable[int], skip_bad: bool) -> Iterator[Example]:
    """The examples at `indices`, each with its `index`; unusable ones are logged and left out, or raise `BadSample`."""
    for index in indices:
        try:
            yield {**source[index], "index": index}
        except BadSample as error:
            if not skip_bad:
                raise
            logger.warning("skipped a bad sample: %s", error)


def answers(
    model, image_processor, examples: Iterable[Example], arguments: EvaluationArguments, kinds: Collection[str]
) -> Iterator[tuple[Example, Answer]]:
    """Each example with the answers of `kinds`, at the size of the example's image."""
    model.eval()
    if arguments.tta or arguments.sliding_window is not None:
        for example in examples:
            yield example, Answer(averaged_answer(model, image_processor, example["image"], arguments))
        return
    for batch, inputs in batches_of_one_canvas(examples, image_processor, arguments.eval_batch_size):
        yield from zip(batch, batch_answers(model, image_processor, batch, inputs, arguments, kinds), strict=True)


def averaged_answer(model, image_processor, image, arguments: EvaluationArguments) -> torch.Tensor:
    """The semantic answer (H, W) to an image (H, W, 3) by test-time augmentation or windows."""
    if arguments.tta:
        edges, longest = arguments.tta_shortest_edges, arguments.tta_longest_edge
        return semantic_segmentation_with_tta(model, image_processor, image, edges, longest, arguments.tta_flip)
    return semantic_segmentation_by_windows(
        model, image_processor, image, tuple(arguments.sliding_window), arguments.window_stride()
    )


@torch.inference_mode()
def batch_answers(model, image_processor, batch, inputs, arguments: EvaluationArguments, kinds) -> list[Answer]:
    """The answers to a batch of examples whose pixels are `inputs`."""
    outputs = last_predictions(model, inputs)
    sizes = [example["image"].shape[:2] for example in batch]
    semantic = image_processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    panoptic = instances = [None] * len(batch)
    if "panoptic" in kinds:
        panoptic = image_processor.post_process_panoptic_segmentation(
            outputs, target_sizes=sizes, **arguments.protocol()
        )
    if "instance" in kinds:  # all of them: average precision ranks them by score itself
        instances = image_processor.post_process_instance_segmentation(
            outputs,
            threshold=0.0,
            mask_threshold=arguments.mask_threshold,
            target_sizes=sizes,
            return_coco_annotation=True,
        )
    return [Answer(*each) for each in zip(semantic, panoptic, instances, strict=True)]


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
