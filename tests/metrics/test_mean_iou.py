"""Mean IoU against detectron2's figures, a brute force, and on bad input."""

from __future__ import annotations

import json

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ROOT, shared_file
from maskformer.metrics import MeanIoU

FRACTIONS = ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "overall_accuracy")


def test_ade20k_images_equal_detectron2():
    folder = shared_file("reference/metrics/semantic")
    expected = json.loads((folder / "expected.json").read_text())
    metric = MeanIoU(num_labels=150, ignore_index=255)
    for path in sorted((folder / "annotations").iterdir()):
        annotation = np.asarray(Image.open(path))  # uint8, 0 is ignored: 0 - 1 wraps to 255
        prediction = np.asarray(Image.open(folder / "predictions" / path.name))
        metric.add(prediction=prediction, reference=annotation - np.uint8(1))
    result = metric.compute()
    for name, recorded in zip(FRACTIONS, ("mIoU", "fwIoU", "mACC", "pACC"), strict=True):
        assert result[name] == pytest.approx(expected[recorded], abs=1e-9), name
    present = np.flatnonzero(~np.isnan(result["per_category_iou"]))
    assert [str(i) for i in present] == list(expected["iou_per_class"])
    assert result["per_category_iou"][present] == pytest.approx(list(expected["iou_per_class"].values()), abs=1e-9)


def random_maps(seed: int, num_labels: int, ignore_index: int | None) -> tuple[list, list]:
    """Label maps of mixed sizes and types, smooth and noisy; the predictions hold labels out of range."""
    draw = np.random.default_rng(seed)
    predictions, references = [], []
    for block in (1, 4):
        for dtype in (np.int64, np.uint8):
            coarse = draw.integers(0, num_labels - 1, (7, 5))  # the last label is never true
            reference = coarse.repeat(block, 0).repeat(block, 1)
            prediction = np.where(draw.random(reference.shape) < 0.6, reference, draw.integers(0, num_labels))
            prediction[draw.random(reference.shape) < 0.1] = 255 if dtype == np.uint8 else -1
            if ignore_index is not None:
                reference[draw.random(reference.shape) < 0.1] = ignore_index
            predictions.append(prediction.astype(dtype))
            references.append(reference.astype(dtype))
    return predictions, references


def by_hand(predictions: list, references: list, num_labels: int, ignore_index: int | None) -> dict:
    """The metric from loops over classes."""
    pairs = list(zip(predictions, references, strict=True))
    predicted = np.concatenate([p[r != ignore_index] if ignore_index is not None else p.ravel() for p, r in pairs])
    true = np.concatenate([r[r != ignore_index] if ignore_index is not None else r.ravel() for _, r in pairs])
    iou, accuracy, share = [], [], []
    for label in range(num_labels):
        hits, total = np.sum((true == label) & (predicted == label)), np.sum(true == label)
        union = np.sum((true == label) | (predicted == label))
        iou.append(hits / union if total else np.nan)
        accuracy.append(hits / total if total else np.nan)
        share.append(total / true.size)
    return {
        "mean_iou": np.nanmean(iou),
        "frequency_weighted_iou": np.nansum(np.multiply(iou, share)),
        "mean_accuracy": np.nanmean(accuracy),
        "overall_accuracy": np.mean(true == predicted),
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


@pytest.mark.parametrize(("num_labels", "ignore_index"), [(6, 255), (6, 6), (6, 0), (6, None), (200, 255)])
def test_random_maps_equal_brute_force(num_labels, ignore_index):
    predictions, references = random_maps(num_labels, num_labels, ignore_index)
    metric = MeanIoU(num_labels=num_labels, ignore_index=ignore_index)
    metric.add_batch(predictions=predictions[:3], references=references[:3])
    metric.add(prediction=predictions[3], reference=references[3])
    result = metric.compute()
    expected = by_hand(predictions, references, num_labels, ignore_index)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert np.isnan(result["per_category_iou"][num_labels - 1])


def test_labels_beyond_one_byte():
    reference = torch.tensor([[846, 300], [65535, 0]])
    prediction = torch.tensor([[846, 44], [5, 256]])
    result = MeanIoU(num_labels=847, ignore_index=65535).compute(predictions=[prediction], references=[reference])
    assert result["overall_accuracy"] == pytest.approx(1 / 3)
    assert result["per_category_iou"][[846, 300, 0]].tolist() == [1, 0, 0]


def test_an_answer_out_of_range_is_a_miss_and_no_false_positive():
    metric = MeanIoU(num_labels=2)
    result = metric.compute(predictions=[[[0, 255, 1, 1]]], references=[[[0, 0, 1, 1]]])
    assert result["per_category_iou"].tolist() == [0.5, 1]
    assert result["overall_accuracy"] == 0.75


def test_averages_over_nothing_are_nan():
    ignored = np.full((2, 3), 255)
    result = MeanIoU(num_labels=2).compute(predictions=[ignored], references=[ignored])
    assert all(np.isnan(result[name]) for name in FRACTIONS)


def test_a_batch_may_be_one_tensor_and_maps_may_be_strided():
    predictions, references = torch.randint(0, 4, (2, 3, 8, 6), generator=torch.Generator().manual_seed(0))
    expected = MeanIoU(4).compute(predictions=list(predictions.numpy()), references=list(references.numpy()))
    result = MeanIoU(4).compute(predictions=predictions, references=[np.asfortranarray(r) for r in references.numpy()])
    np.testing.assert_equal(result, expected)


def test_compute_starts_afresh():
    metric = MeanIoU(num_labels=3)
    metric.add(prediction=np.zeros((2, 2), int), reference=np.ones((2, 2), int))
    assert metric.compute()["overall_accuracy"] == 0
    metric.add(prediction=np.ones((2, 2), int), reference=np.ones((2, 2), int))
    assert metric.compute()["overall_accuracy"] == 1


def test_reduced_halves_are_the_whole():
    predictions, references = random_maps(1, 5, 255)
    halves = [MeanIoU(num_labels=5) for _ in range(2)]
    for i, half in enumerate(halves):
        half.add_batch(predictions=predictions[i::2], references=references[i::2])
    states: list[np.ndarray] = []
    halves[1].reduce(lambda state: states.append(state) or state)
    halves[0].reduce(lambda state: state + states.pop())
    whole = MeanIoU(num_labels=5).compute(predictions=predictions, references=references)
    np.testing.assert_equal(halves[0].compute(), whole)


def test_evaluate_loads_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)  # there is no network
    cache = tmp_path / "cache"
    metric = evaluate.load(str(ROOT / "metrics" / "mean_iou"), num_labels=6, ignore_index=255, cache_dir=str(cache))
    predictions, references = random_maps(2, 6, 255)
    metric.add_batch(predictions=predictions, references=references)
    whole = MeanIoU(num_labels=6).compute(predictions=predictions, references=references)
    np.testing.assert_equal(metric.compute(), whole)
    assert not cache.exists()
    assert "detectron2" in metric.description and metric.citation
    assert set(metric.features) == {"predictions", "references"}


@pytest.mark.parametrize(
    ("prediction", "reference", "ignore_index", "message"),
    [
        (
            [[0, 1]],
            [[0, 9]],
            255,
            "reference 1 of the batch holds the label 9; labels are 0 to 2, and ignore_index is 255",
        ),
        ([[0, 1]], [[0, -1]], 255, "the label -1"),
        ([[0, 1]], [[0, 255]], None, "the label 255; labels are 0 to 2, and nothing is ignored"),
        ([[0, 1]], [[0], [1]], 255, r"prediction 1 of the batch has size \(1, 2\) and its reference \(2, 1\)"),
        ([0, 1], [0, 1], 255, r"prediction 1 of the batch has shape \(2,\)"),
    ],
)
def test_bad_input_is_named_and_nothing_of_the_batch_counts(prediction, reference, ignore_index, message):
    metric = MeanIoU(num_labels=3, ignore_index=ignore_index)
    good = [[0, 1]]
    with pytest.raises(ValueError, match=message):
        metric.add_batch(predictions=[good, prediction], references=[good, reference])
    assert np.isnan(metric.compute()["mean_iou"])


def test_other_bad_input():
    metric = MeanIoU(num_labels=3)
    with pytest.raises(TypeError, match="reference 0 of the batch holds float64"):
        metric.add(prediction=[[0, 1]], reference=[[0.0, 1.0]])
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        metric.add_batch(predictions=[[[0]], [[0]]], references=[[[0]]])
    with pytest.raises(ValueError, match="num_labels is 0"):
        MeanIoU(num_labels=0)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_images_without_prediction_without_truth_and_of_one_pixel(size):
    metric = MeanIoU(num_labels=2)
    void, zeros = np.full(size, 255), np.zeros(size, int)
    assert metric.compute(predictions=[void], references=[zeros])["mean_iou"] == 0
    assert np.isnan(metric.compute(predictions=[zeros], references=[void])["mean_iou"])
    assert metric.compute(predictions=[zeros], references=[zeros])["mean_iou"] == 1


def test_an_image_of_24_megapixels():
    reference = np.zeros((4000, 6000), np.uint8)
    reference[:, 3000:] = 1
    prediction = np.roll(reference, 600, axis=1)
    result = MeanIoU(num_labels=2).compute(predictions=[prediction], references=[reference])
    assert result["per_category_iou"].tolist() == [pytest.approx(2400 / 3600)] * 2
