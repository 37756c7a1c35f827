"""Evaluation of a model whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from folders import write_panoptic_folder
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.data.example import BadSample, segments_to_masks
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.evaluation.answers import batches_of_one_canvas
from maskformer.evaluation.measure import measure
from maskformer.evaluation.scores import in_one_line
from maskformer.recipes.arguments import EvaluationArguments

SIZE = {"size": {"shortest_edge": 128, "longest_edge": 512}}


class Oracle(torch.nn.Module):
    """Answers with the truth of successive examples."""

    device = torch.device("cpu")

    def __init__(self, source):
        super().__init__()
        self.source, self.next = source, 0

    def forward(self, pixel_values, pixel_mask):
        classes = torch.full((len(pixel_values), 20, len(self.source.labels) + 1), -9.0)
        masks = torch.full((len(pixel_values), 20, *pixel_values.shape[-2:]), -9.0)
        classes[..., -1] = 9.0
        for row in range(len(pixel_values)):
            example = self.source[self.next]
            self.next += 1
            for query, (segment, label) in enumerate(segments_to_masks(example).items()):
                classes[row, query, [label, -1]] = torch.tensor([9.0, -9.0])
                masks[row, query][torch.from_numpy(example["segmentation"] == segment)] = 9.0
        return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, pixel_mask=pixel_mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("data"), count=5)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_truth_gets_everything(folder, batch_size):
    source = load_panoptic_folder(folder)
    processor = MaskFormerUniversalImageProcessorPil(**SIZE, label_ids_to_fuse=source.labels.stuff_ids)
    metrics = measure(
        Oracle(source), processor, source, EvaluationArguments(eval_batch_size=batch_size), Accelerator()
    ).summary()
    assert metrics["images"] == 5
    for key in ("pq", "sq", "rq", "pq_things", "pq_stuff", "mean_iou", "overall_accuracy"):
        assert metrics[key] == pytest.approx(1.0)
    assert in_one_line(metrics) == "PQ 100.0 (things 100.0, stuff 100.0), mIoU 100.0"


def test_batches_hold_one_canvas_and_every_example_once():
    processor = MaskFormerUniversalImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 512})
    widths = [40, 40, 40, 90, 90, 40]
    examples = [{"image": np.zeros((32, width, 3), np.uint8), "image_id": i} for i, width in enumerate(widths)]
    batches = list(batches_of_one_canvas(examples, processor, batch_size=2))
    assert [[example["image_id"] for example in batch] for batch, _ in batches] == [[0, 1], [2], [3, 4], [5]]
    assert all(inputs["pixel_values"].shape[0] == len(batch) for batch, inputs in batches)


def test_bad_samples_are_left_out_or_stop_the_evaluation(tmp_path):
    folder = write_panoptic_folder(tmp_path, count=2)
    (folder / "images" / "1.png").unlink()
    source = load_panoptic_folder(folder)
    processor = MaskFormerUniversalImageProcessorPil(**SIZE)
    with pytest.raises(BadSample, match="1.png"):
        measure(Oracle(source), processor, source, EvaluationArguments(), Accelerator())
    metrics = measure(Oracle(source), processor, source, EvaluationArguments(), Accelerator(), skip_bad=True).summary()
    assert metrics["images"] == 1
    (folder / "images" / "0.png").unlink()
    with pytest.raises(ValueError, match="no example to evaluate"):
        measure(Oracle(source), processor, source, EvaluationArguments(), Accelerator(), skip_bad=True)
