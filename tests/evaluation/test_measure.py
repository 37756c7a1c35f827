"""Evaluation of a model: the same numbers however images are grouped, and whatever interrupts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from evaluations import LABELS, SIZES, VOID, make_example, make_processor, make_source, same
from maskformer import PerPixelBaselineImageProcessorPil
from maskformer.data.example import Source, semantic_map
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import kinds_of_answers
from maskformer.evaluation.measure import measure
from maskformer.evaluation.progress import Progress, evaluation_key
from maskformer.evaluation.scores import Scores
from maskformer.image_processing.sliding_window import semantic_segmentation_by_windows
from maskformer.image_processing.test_time_augmentation import semantic_segmentation_with_tta
from maskformer.metrics import MeanIoU
from maskformer.recipes.arguments import EvaluationArguments

LOW = {"threshold": 0.05, "overlap_mask_area_threshold": 0.1}  # which answers of random weights reach


def arguments(**values) -> EvaluationArguments:
    """The arguments of an evaluation in which every kind of answer is found."""
    return EvaluationArguments(**{"task": "instance"} | LOW | values)


def summary_of(model, processor=None, source=None, **values) -> dict:
    """The summary of an evaluation."""
    processor, source = processor or make_processor(), source or make_source()
    return measure(model, processor, source, arguments(**values), Accelerator()).summary()


def test_batches_of_any_size_give_the_same_numbers(tiny_model):
    one = summary_of(tiny_model(), eval_batch_size=1)
    assert one["images"] == len(SIZES) and {"pq", "mean_iou", "semantic_pq", "ap"} <= one.keys()
    assert sum(row["fp"] + row["tp"] for row in one["per_label"].values()) > 0
    # Pixels whose two best labels are equal but for rounding may differ: one in a thousand at most.
    assert same(one, summary_of(tiny_model(), eval_batch_size=4), tolerance=1e-3)


def mean_iou_of(predict) -> float:
    """The mean IoU of the answers of `predict` to all images, one by one."""
    metric = MeanIoU(num_labels=4, ignore_index=VOID)
    for index, size in enumerate(SIZES):
        example = make_example(index, size)
        metric.add(prediction=predict(example["image"]), reference=semantic_map(example, VOID))
    return metric.compute()["mean_iou"]


@pytest.mark.parametrize("kind", ["tiny_model", "tiny_per_pixel_model"])
def test_test_time_augmentation_measures_the_averaged_answers(kind, request):
    model, processor = request.getfixturevalue(kind)(), make_processor()
    if kind == "tiny_per_pixel_model":
        processor = PerPixelBaselineImageProcessorPil(size=dict(processor.size))
    else:
        (head,) = (value for name, value in model.named_parameters() if name.endswith("class_head.weight"))
        torch.nn.init.normal_(head, std=5.0)  # answers of several labels
    summary = summary_of(model, processor, tta=True, tta_shortest_edges=[32, 64], tta_longest_edge=100)
    expected = mean_iou_of(lambda image: semantic_segmentation_with_tta(model, processor, image, [32, 64], 100, True))
    assert summary["mean_iou"] == expected
    assert summary["mean_iou"] != summary_of(model, processor)["mean_iou"]
    assert "pq" not in summary and "ap" not in summary


def test_windows_measure_the_averaged_answers(tiny_model):
    model, processor = tiny_model(), make_processor()
    summary = summary_of(model, processor, sliding_window=[48, 48], stride=[32, 40])
    expected = mean_iou_of(lambda image: semantic_segmentation_by_windows(model, processor, image, (48, 48), (32, 40)))
    assert summary["mean_iou"] == expected and "pq" not in summary


def test_a_window_that_holds_the_whole_image_changes_nothing(tiny_model):
    whole, plain = summary_of(tiny_model(), sliding_window=[999, 999]), summary_of(tiny_model())
    assert whole["mean_iou"] == pytest.approx(plain["mean_iou"], abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (600, 400), pytest.param((6000, 4000), marks=pytest.mark.slow)])
def test_images_of_any_size_are_evaluated(tiny_model, size):
    summary = summary_of(tiny_model(), make_processor(size_divisor=0), make_source([size]))
    assert summary["images"] == 1


def test_what_is_evaluated_follows_from_task_labels_and_model():
    def kinds(labels=LABELS, processor=None, **values) -> str:
        return " ".join(sorted(kinds_of_answers(EvaluationArguments(**values), processor or make_processor(), labels)))

    things, stuff = (
        LabelSet.from_categories([{"id": 1, "name": "a", "isthing": flag}, {"id": 2, "name": "b", "isthing": flag}])
        for flag in (1, 0)
    )
    assert kinds() == "panoptic semantic"
    assert kinds(task="semantic") == kinds(stuff) == kinds(processor=object()) == "semantic"
    assert kinds(task="instance") == kinds(things) == "instance panoptic semantic"
    assert kinds(tta=True, tta_shortest_edges=[8]) == kinds(task="instance", sliding_window=[8, 8]) == "semantic"


class Interrupted(Exception):
    """What stops an evaluation in these tests."""


def breaking_source(reads: list[int], stop_at: int | None) -> Source:
    """The examples of `make_source`; which are read is noted, and reading example `stop_at` stops."""
    source = make_source()

    def decode(row: dict) -> dict:
        if row["index"] == stop_at:
            raise Interrupted
        reads.append(row["index"])
        return source.decode(row)

    return Source(source.rows, source.labels, decode)


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_numbers(tiny_model, tmp_path):
    reads: list[int] = []
    first, second = (Progress(tmp_path, "key", images=2) for _ in range(2))
    with pytest.raises(Interrupted):
        measure(tiny_model(), make_processor(), breaking_source(reads, 4), arguments(), Accelerator(), progress=first)
    assert reads == [0, 1, 2, 3] and len(list(tmp_path.iterdir())) == 1
    other = Progress(tmp_path, "other", images=2)
    source = breaking_source(reads, None)
    reads.clear()
    measure(tiny_model(), make_processor(), source, arguments(), Accelerator(), progress=other)
    assert reads == [0, 1, 2, 3, 4]  # nothing of an evaluation with other settings
    other.clear()
    reads.clear()
    scores = measure(tiny_model(), make_processor(), source, arguments(), Accelerator(), progress=second)
    assert reads == [2, 3, 4]  # two were saved; the third waited for a batch
    assert same(scores.summary(), summary_of(tiny_model()))
    second.clear()
    assert not list(tmp_path.iterdir())


def test_what_several_processes_saved_is_counted_once_by_any_number_of_them(tiny_model, tmp_path):
    """Files of three processes; a fourth resumes, and a fifth what was there then."""
    model, source = tiny_model(), make_source()
    for rank in range(3):
        scores = measure(model, make_processor(), make_source(SIZES[:1]), arguments(), Accelerator())
        scores.images = {rank: scores.images[0]}
        scores.matches = {rank: scores.matches[0]}
        progress = Progress(tmp_path, "key", images=1)
        progress.restore(Accelerator(), Scores(LABELS, scores.kinds))
        progress.add(scores.state())
    for _ in range(2):
        progress = Progress(tmp_path, "key")
        scores = measure(model, make_processor(), source, arguments(), Accelerator(), limit=3, progress=progress)
        assert len(scores.images) == 3
        truth = (make_example(0, SIZES[0])["segmentation"] > 0).sum()
        assert scores.confusion.sum() == 3 * truth
    assert len(list(tmp_path.iterdir())) == 3


def test_a_key_stands_for_weights_and_settings(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    key = evaluation_key(tmp_path, {"limit": 1})
    assert key == evaluation_key(tmp_path, {"limit": 1}) != evaluation_key(tmp_path, {"limit": 2})
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert evaluation_key(tmp_path, {"limit": 1}) != key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "depth"}, "task must be one of semantic, panoptic, instance"),
        ({"tta": True}, "tta needs tta_shortest_edges"),
        ({"tta": True, "tta_shortest_edges": [8], "sliding_window": [8, 8]}, "exclude each other"),
        ({"stride": [8, 8]}, "stride has no effect without sliding_window"),
        ({"sliding_window": [8]}, "sliding_window must be two numbers of pixels"),
        ({"sliding_window": [8, 8], "stride": [9, 8]}, "leaves gaps"),
    ],
)
def test_settings_that_contradict_each_other_are_named(values, message):
    with pytest.raises(Exception, match=message):
        EvaluationArguments(**values)
    assert np.prod(EvaluationArguments(sliding_window=[9, 1]).window_stride()) == 6
