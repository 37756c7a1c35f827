"""Evaluation of a model: the same numbers however images are grouped, and whatever interrupts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from evaluations import LABELS, SIZES, VOID, make_example, make_processor, make_source, same
from helpers import with_segments
from maskformer import PerPixelBaselineImageProcessorPil
from maskformer.data.example import Source, semantic_map
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import Answer, answers, kinds_of_answers, readable_examples
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


def decided(model):
    """`model`, with weights of which images have answers of several labels and segments."""
    head = with_segments(model).segmentation_module.class_head
    torch.nn.init.normal_(head.weight, std=3.0, generator=torch.Generator().manual_seed(2))
    return model


def answers_of(model, processor, **values) -> list[Answer]:
    """The answers to the examples of `make_source`."""
    source, settings = make_source(), arguments(**values)
    examples = readable_examples(source, range(len(source)), skip_bad=False)
    kinds = kinds_of_answers(settings, processor, source.labels)
    return [answer for _, answer in answers(model, processor, examples, settings, kinds)]


def source_of(given: list[Answer]) -> Source:
    """Examples whose truth is these answers, moved down a little: found in part."""
    source = make_source()

    def decode(row: dict) -> dict:
        panoptic = given[row["index"]].panoptic
        infos = [{"id": info["id"], "label_id": info["label_id"], "iscrowd": 0} for info in panoptic["segments_info"]]
        moved = np.roll(panoptic["segmentation"].numpy(), 1, axis=0)
        return source.decode(row) | {"segmentation": moved, "segments_info": infos}

    return Source(source.rows, source.labels, decode)


def differing(one: torch.Tensor, other: torch.Tensor) -> float:
    """The share of pixels in which two maps differ."""
    return (one != other).float().mean().item()


def test_batches_of_any_size_give_the_same_answers_and_numbers(tiny_model):
    """Pixels whose two best labels are equal but for rounding may differ: one in a thousand at most."""
    model, processor = decided(tiny_model()), make_processor()
    single, batched = (answers_of(model, processor, eval_batch_size=size) for size in (1, 4))
    assert len(torch.cat([answer.semantic.unique() for answer in single]).unique()) > 1
    assert max(len(answer.panoptic["segments_info"]) for answer in single) > 3
    for one, other in zip(single, batched, strict=True):
        assert differing(one.semantic, other.semantic) <= 1e-3
        assert differing(one.panoptic["segmentation"], other.panoptic["segmentation"]) <= 1e-3
        labels = [[info["label_id"] for info in answer.panoptic["segments_info"]] for answer in (one, other)]
        assert labels[0] == labels[1]
    source = source_of(single)
    one, four = (summary_of(model, processor, source, eval_batch_size=size) for size in (1, 4))
    assert one["images"] == len(SIZES) and min(one["pq"], one["mean_iou"], one["semantic_pq"]) > 0.1
    assert sum(row["tp"] > 0 for row in one["per_label"].values()) > 1
    assert same(one, four, tolerance=1e-3)


def test_images_of_several_canvases_in_one_batch_would_be_answered_otherwise(tiny_model, monkeypatch):
    """The test above sees what it is there for: answers depend on the canvas."""

    def padded_together(examples, image_processor, batch_size):
        batch = list(examples)
        yield batch, dict(image_processor(images=[example["image"] for example in batch], return_tensors="pt"))

    model, processor = decided(tiny_model()), make_processor()
    single = answers_of(model, processor)
    monkeypatch.setattr("maskformer.evaluation.answers.batches_of_one_canvas", padded_together)
    mixed = answers_of(model, processor)
    shares = [
        differing(a.panoptic["segmentation"], b.panoptic["segmentation"]) for a, b in zip(single, mixed, strict=True)
    ]
    assert max(shares) > 0.1


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
    model, processor = decided(tiny_model()), make_processor()
    plain, whole = answers_of(model, processor), answers_of(model, processor, sliding_window=[999, 999])
    assert len(torch.cat([answer.semantic.unique() for answer in plain]).unique()) > 1
    assert all(differing(one.semantic, other.semantic) <= 1e-3 for one, other in zip(plain, whole, strict=True))
    small = answers_of(model, processor, sliding_window=[48, 48])
    assert max(differing(one.semantic, other.semantic) for one, other in zip(plain, small, strict=True)) > 0.1


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
