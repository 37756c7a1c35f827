"""Panoptic quality of label maps against the official figures, `PanopticQuality`, a brute force, and on bad input."""

from __future__ import annotations

import json

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ROOT, shared_file
from maskformer.metrics import PanopticQuality, SemanticPanopticQuality


def test_ade20k_images_equal_the_official_figures():
    folder = shared_file("reference/metrics/semantic")
    expected = json.loads((folder / "expected.json").read_text())
    metric = SemanticPanopticQuality(num_labels=150, ignore_index=255)
    for path in sorted((folder / "annotations").iterdir()):
        annotation = np.asarray(Image.open(path))  # uint8, 0 is ignored: 0 - 1 wraps to 255
        prediction = np.asarray(Image.open(folder / "predictions" / path.name))
        metric.add(prediction=prediction, reference=annotation - np.uint8(1))
    result = metric.compute()
    for name, recorded in (("pq", "PQ_St"), ("sq", "SQ_St"), ("rq", "RQ_St")):
        assert result[name] == pytest.approx(expected[recorded], abs=1e-9), name
    assert result["n"] == expected["n_classes"]


def random_maps(seed: int, num_labels: int, void: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a reference, int64 (20, 30): rectangles of labels, void, and predicted labels that are none."""
    draw = np.random.default_rng(seed)
    reference = np.full((20, 30), draw.integers(0, num_labels))
    for label in [*draw.integers(0, num_labels, draw.integers(0, 5)), void]:
        top, left = draw.integers(0, 20), draw.integers(0, 30)
        reference[top : top + draw.integers(1, 20), left : left + draw.integers(1, 20)] = label
    prediction = np.where(reference == void, draw.integers(0, num_labels), reference)
    for label in [*draw.integers(0, num_labels, draw.integers(0, 4)), *draw.choice([-1, num_labels, void], 1)]:
        top, left = draw.integers(0, 20), draw.integers(0, 30)
        prediction[top : top + draw.integers(1, 12), left : left + draw.integers(1, 12)] = label
    return prediction, reference


def counted_by_hand(prediction: np.ndarray, reference: np.ndarray, num_labels: int, void: int) -> dict[int, list]:
    """IoUs, false positives and misses of every label, from sets of pixels."""
    ignored = set(np.flatnonzero(reference == void).tolist())
    counts = {}
    for label in range(num_labels):
        true = set(np.flatnonzero(reference == label).tolist())
        guessed = set(np.flatnonzero(prediction == label).tolist())
        union = (true | guessed) - ignored
        iou = len(true & guessed) / len(union) if union else 0
        matched = iou > 0.5
        spurious = bool(guessed) and not matched and len(guessed & ignored) / len(guessed) <= 0.5
        counts[label] = [[iou] if matched else [], int(spurious), int(bool(true) and not matched)]
    return counts


def test_random_maps_equal_brute_force():
    num_labels, void = 5, 255
    pairs = [random_maps(seed, num_labels, void) for seed in range(200)]
    total = {label: [[], 0, 0] for label in range(num_labels)}
    for pair in pairs:
        for label, counts in counted_by_hand(*pair, num_labels, void).items():
            total[label] = [a + b for a, b in zip(total[label], counts, strict=True)]
    result = SemanticPanopticQuality(num_labels).compute(
        predictions=[p for p, _ in pairs], references=[r for _, r in pairs]
    )
    qualities = []
    for label, (ious, fp, fn) in total.items():
        given = result["per_class"][label]
        assert (given["tp"], given["fp"], given["fn"]) == (len(ious), fp, fn)
        assert min(len(ious), fp, fn) > 5  # the maps exercise every rule
        weight = len(ious) + fp / 2 + fn / 2
        qualities.append((sum(ious) / weight, sum(ious) / len(ious), len(ious) / weight))
        assert [given[key] for key in ("pq", "sq", "rq")] == pytest.approx(qualities[-1], abs=1e-12)
    assert [result[key] for key in ("pq", "sq", "rq")] == pytest.approx(np.mean(qualities, axis=0), abs=1e-12)


def as_panoptic(labels: np.ndarray, num_labels: int) -> dict:
    """The label map as segments, one a label; anything else is void."""
    present = [label for label in range(num_labels) if (labels == label).any()]
    inside = (labels >= 0) & (labels < num_labels)
    return {
        "segmentation": np.where(inside, labels + 1, 0),
        "segments_info": [{"id": label + 1, "label_id": label} for label in present],
    }


def test_it_is_panoptic_quality_with_one_segment_a_class():
    num_labels, void = 6, 6
    maps = [random_maps(seed, num_labels, void) for seed in range(30)]
    semantic = SemanticPanopticQuality(num_labels, ignore_index=void)
    panoptic = PanopticQuality(categories=[{"id": i, "isthing": 0} for i in range(num_labels)])
    for prediction, reference in maps:
        semantic.add(prediction=prediction, reference=reference)
        panoptic.add(prediction=as_panoptic(prediction, num_labels), reference=as_panoptic(reference, num_labels))
    one, other = semantic.compute(), panoptic.compute()
    assert {key: one[key] for key in ("pq", "sq", "rq", "n")} == {key: other[key] for key in ("pq", "sq", "rq", "n")}
    assert one["per_class"] == other["per_class"]


def per_class(prediction: list, reference: list, label: int) -> tuple[int, int, int]:
    metric = SemanticPanopticQuality(num_labels=3)
    counts = metric.compute(predictions=[prediction], references=[reference])["per_class"][label]
    return counts["tp"], counts["fp"], counts["fn"]


def test_the_rules_at_their_edges():
    assert per_class([[0, 1, 1, 1]], [[0, 0, 1, 1]], 0) == (0, 1, 1)  # an IoU of one half is no match
    assert per_class([[2, 2, 2, 2]], [[255, 255, 0, 0]], 2) == (0, 1, 0)  # half on void is not enough
    assert per_class([[2, 2, 2, 2]], [[255, 255, 255, 0]], 2) == (0, 0, 0)
    assert per_class([[0, 0, 0, 0]], [[0, 0, 0, 255]], 0) == (1, 0, 0)  # void does not enter the union


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_images_without_prediction_without_truth_and_of_one_pixel(size):
    metric = SemanticPanopticQuality(num_labels=2)
    void, zeros = np.full(size, 255), np.zeros(size, int)
    assert np.isnan(metric.compute(predictions=[void], references=[void])["pq"])
    assert metric.compute(predictions=[void], references=[zeros])["pq"] == 0
    assert np.isnan(metric.compute(predictions=[zeros], references=[void])["pq"])
    assert metric.compute(predictions=[zeros], references=[zeros])["pq"] == 1


def test_reduced_halves_are_the_whole_and_compute_starts_afresh():
    maps = [random_maps(seed, 5, 255) for seed in range(9)]
    halves = [SemanticPanopticQuality(5) for _ in range(2)]
    for i, (prediction, reference) in enumerate(maps):
        halves[i % 2].add(prediction=torch.from_numpy(prediction), reference=reference)
    states: list[np.ndarray] = []
    halves[1].reduce(lambda state: states.append(state) or state)
    halves[0].reduce(lambda state: state + states.pop(0))
    whole = SemanticPanopticQuality(5).compute(predictions=[p for p, _ in maps], references=[r for _, r in maps])
    reduced = halves[0].compute()
    assert reduced["pq"] == pytest.approx(whole["pq"], abs=1e-12) and reduced["n"] == whole["n"]
    assert halves[0].compute()["n"] == 0


def test_evaluate_loads_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)  # there is no network
    cache = tmp_path / "cache"
    folder = str(ROOT / "metrics" / "semantic_panoptic_quality")
    metric = evaluate.load(folder, num_labels=5, ignore_index=255, cache_dir=str(cache))
    prediction, reference = random_maps(3, 5, 255)
    metric.add_batch(predictions=[prediction], references=[reference])
    whole = SemanticPanopticQuality(5).compute(predictions=[prediction], references=[reference])
    assert metric.compute() == whole
    assert not cache.exists()
    assert "panopticapi" in metric.description and "Cheng" in metric.citation


@pytest.mark.parametrize(
    ("prediction", "reference", "ignore_index", "message"),
    [
        ([[0, 1]], [[0, 9]], 255, "reference 1 of the batch holds the label 9; labels are 0 to 2, and ignore_index is"),
        ([[0, 1]], [[0, 255]], None, "the label 255; labels are 0 to 2, and nothing is ignored"),
        ([[0, 1]], [[0], [1]], 255, r"prediction 1 of the batch has size \(1, 2\) and its reference \(2, 1\)"),
        ([0, 1], [0, 1], 255, r"prediction 1 of the batch has shape \(2,\)"),
    ],
)
def test_bad_input_is_named_and_nothing_of_the_batch_counts(prediction, reference, ignore_index, message):
    metric = SemanticPanopticQuality(num_labels=3, ignore_index=ignore_index)
    good = [[0, 1]]
    with pytest.raises(ValueError, match=message):
        metric.add_batch(predictions=[good, prediction], references=[good, reference])
    assert metric.compute()["n"] == 0


def test_other_bad_input():
    metric = SemanticPanopticQuality(num_labels=3)
    with pytest.raises(TypeError, match="reference 0 of the batch holds float64"):
        metric.add(prediction=[[0, 1]], reference=[[0.0, 1.0]])
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        metric.add_batch(predictions=[[[0]], [[0]]], references=[[[0]]])
    with pytest.raises(ValueError, match="num_labels is 0"):
        SemanticPanopticQuality(num_labels=0)
