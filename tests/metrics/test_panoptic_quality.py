"""Panoptic quality against panopticapi's figures, a brute force, and on bad input."""

from __future__ import annotations

import json
import math

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ROOT, fixture, shared_file
from maskformer.metrics import PanopticQuality
from panoptic_pairs import CATEGORIES, panoptic_pair, random_pair

SPARSE_CATEGORIES = [
    {"id": 7, "name": "thing", "isthing": 1},
    {"id": 90, "name": "other thing", "isthing": 1},
    {"id": 3, "name": "stuff", "isthing": 0},
    {"id": 200, "name": "never seen", "isthing": 0},
]


def measure(pairs, categories=CATEGORIES) -> dict:
    metric = PanopticQuality(categories=categories)
    metric.add_batch(references=[r for r, _ in pairs], predictions=[p for _, p in pairs])
    return metric.compute()


def assert_equals_recorded(result: dict, expected: dict, groups: tuple[str, str, str]) -> None:
    for group, suffix in zip(groups, ("", "_things", "_stuff"), strict=True):
        for name, value in expected[group].items():
            assert result[name + suffix] == pytest.approx(value, abs=1e-9), name + suffix
    assert len(result["per_class"]) == len(expected["per_class"])
    for category, qualities in expected["per_class"].items():
        for name, value in qualities.items():
            assert result["per_class"][int(category)][name] == pytest.approx(value, abs=1e-9), (category, name)


def test_generated_pairs_equal_panopticapi():
    expected = fixture("metrics_panoptic_quality")
    pairs = [panoptic_pair(i) for i in range(*expected["pairs"])]
    assert_equals_recorded(measure(pairs), expected["together"], ("all", "things", "stuff"))
    assert_equals_recorded(measure([panoptic_pair(3)]), expected["pair_3"], ("all", "things", "stuff"))


def test_coco_images_equal_panopticapi():
    folder = shared_file("reference/metrics/panoptic")
    truth, answer = (json.loads((folder / name).read_text()) for name in ("gt.json", "pred.json"))
    answers = {annotation["image_id"]: annotation for annotation in answer["annotations"]}

    def read(side: str, annotation: dict) -> dict:
        pixels = np.asarray(Image.open(folder / side / annotation["file_name"])).astype(np.int32)
        segments = [{**segment, "label_id": segment["category_id"]} for segment in annotation["segments_info"]]
        return {"segmentation": pixels @ np.int32([1, 256, 256**2]), "segments_info": segments}

    pairs = [(read("gt", a), read("pred", answers[a["image_id"]])) for a in truth["annotations"]]
    expected = json.loads((folder / "expected.json").read_text())
    assert_equals_recorded(measure(pairs, truth["categories"]), expected, ("All", "Things", "Stuff"))


def counted_by_hand(reference: dict, prediction: dict) -> dict[int, list]:
    """IoUs, false positives and misses of an image, from sets of pixels and loops over pairs."""

    def pixels(side: dict, identity: int) -> set[int]:
        return set(np.flatnonzero(side["segmentation"] == identity).tolist())

    void = pixels(reference, 0)
    true = {s["id"]: (s, pixels(reference, s["id"])) for s in reference["segments_info"]}
    predicted = {s["id"]: (s, pixels(prediction, s["id"])) for s in prediction["segments_info"]}
    counts = {c["id"]: [[], 0, 0] for c in SPARSE_CATEGORIES}
    found, right = set(), set()
    for i, (segment, area) in true.items():
        for j, (guess, guessed) in predicted.items():
            if segment["iscrowd"] or segment["label_id"] != guess["label_id"]:
                continue
            iou = len(area & guessed) / len((area | guessed) - (void & guessed))
            if iou > 0.5:
                counts[segment["label_id"]][0].append(iou)
                found.add(i), right.add(j)
    crowd = {s["label_id"]: area for s, area in true.values() if s["iscrowd"]}  # the last of a category
    for j, (guess, guessed) in predicted.items():
        excused = guessed & (void | crowd.get(guess["label_id"], set()))
        if j not in right and len(excused) / len(guessed) <= 0.5:
            counts[guess["label_id"]][1] += 1
    for i, (segment, _) in true.items():
        if i not in found and not segment["iscrowd"]:
            counts[segment["label_id"]][2] += 1
    return counts


def test_random_pairs_equal_brute_force():
    ids = [c["id"] for c in SPARSE_CATEGORIES[:3]]
    pairs = [random_pair(seed, ids) for seed in range(200)]
    total = {c["id"]: [[], 0, 0] for c in SPARSE_CATEGORIES}
    for pair in pairs:
        for category, counts in counted_by_hand(*pair).items():
            total[category] = [a + b for a, b in zip(total[category], counts, strict=True)]
    result = measure(pairs, SPARSE_CATEGORIES)
    qualities = {}
    for category, (ious, fp, fn) in total.items():
        given = result["per_class"][category]
        assert (given["tp"], given["fp"], given["fn"]) == (len(ious), fp, fn)
        if ious or fp or fn:
            weight = len(ious) + fp / 2 + fn / 2
            qualities[category] = sum(ious) / weight, sum(ious) / max(len(ious), 1), len(ious) / weight
            assert min(len(ious), fp, fn) > 10  # the pairs exercise every rule
            assert [given[k] for k in ("pq", "sq", "rq")] == pytest.approx(qualities[category], abs=1e-12)
    for suffix, chosen in (("", ids), ("_things", [7, 90]), ("_stuff", [3])):
        mean = np.mean([qualities[c] for c in chosen], axis=0)
        assert [result[k + suffix] for k in ("pq", "sq", "rq")] == pytest.approx(mean, abs=1e-12)
        assert result["n" + suffix] == len(chosen)


def panoptic(rows: list[list[int]], segments: dict[int, int], **fields) -> dict:
    info = [{"id": i, "label_id": label, **fields} for i, label in segments.items()]
    return {"segmentation": np.array(rows), "segments_info": info}


def per_class(reference: dict, prediction: dict, category: int) -> tuple[int, int, int]:
    counts = measure([(reference, prediction)])["per_class"][category]
    return counts["tp"], counts["fp"], counts["fn"]


def test_an_iou_of_one_half_is_no_match():
    assert per_class(panoptic([[1, 1, 2, 2]], {1: 0, 2: 1}), panoptic([[1, 2, 2, 2]], {1: 0, 2: 1}), 0) == (0, 1, 1)


def test_half_void_is_not_enough_to_excuse_a_prediction():
    reference = panoptic([[0, 0, 1, 1]], {1: 0})
    assert per_class(reference, panoptic([[5, 5, 5, 5]], {5: 1}), 1) == (0, 1, 0)
    reference["segmentation"][0, 2] = 0
    assert per_class(reference, panoptic([[5, 5, 5, 5]], {5: 1}), 1) == (0, 0, 0)


def test_only_the_last_crowd_of_a_category_excuses_a_prediction():
    reference = panoptic([[5, 5, 5, 3, 9]], {3: 0, 5: 0, 9: 1}, iscrowd=1)
    prediction = panoptic([[1, 1, 1, 0, 0]], {1: 0})
    assert per_class(reference, prediction, 0) == (0, 0, 0)
    reference["segments_info"].reverse()
    assert per_class(reference, prediction, 0) == (0, 1, 0)


def test_a_reference_segment_without_pixels_is_missed_and_a_crowd_never():
    reference = panoptic([[1, 1]], {1: 0, 2: 1})
    assert per_class(reference, panoptic([[1, 1]], {1: 0}), 1) == (0, 0, 1)
    reference["segments_info"][1]["iscrowd"] = 1
    assert per_class(reference, panoptic([[1, 1]], {1: 0}), 1) == (0, 0, 0)


def test_a_perfect_answer_and_averages_over_nothing():
    reference = panoptic([[4, 4, 0], [9, 9, 9]], {4: 1, 9: 2})
    result = measure([(reference, reference)])
    assert (result["pq"], result["pq_things"], result["n"], result["n_stuff"]) == (1, 1, 2, 0)
    assert math.isnan(result["pq_stuff"])
    assert math.isnan(PanopticQuality(categories=CATEGORIES).compute()["pq"])
    void = panoptic([[0, 0]], {})
    assert measure([(void, void)])["n"] == 0


def test_tensors_small_types_and_strided_maps_are_the_same():
    reference, prediction = panoptic_pair(7)
    expected = measure([(reference, prediction)])
    tensor = {**prediction, "segmentation": torch.from_numpy(prediction["segmentation"]).to(torch.int32)}
    strided = {**reference, "segmentation": np.asfortranarray(reference["segmentation"].astype(np.uint8))}
    assert measure([(strided, tensor)]) == expected


def test_compute_starts_afresh_and_takes_a_batch():
    metric = PanopticQuality(categories=CATEGORIES)
    reference, prediction = panoptic_pair(3)
    metric.add(prediction=prediction, reference=reference)
    first = metric.compute()
    assert metric.compute(predictions=[prediction], references=[reference]) == first


def test_reduced_halves_are_the_whole():
    pairs = [panoptic_pair(i) for i in range(10)]
    halves = [PanopticQuality(categories=CATEGORIES) for _ in range(2)]
    for i, (reference, prediction) in enumerate(pairs):
        halves[i % 2].add(prediction=prediction, reference=reference)
    states: list[np.ndarray] = []
    halves[1].reduce(lambda state: states.append(state) or state)
    halves[0].reduce(lambda state: state + states.pop(0))
    assert not states
    whole, reduced = measure(pairs), halves[0].compute()
    assert reduced["pq"] == pytest.approx(whole["pq"], abs=1e-12)
    for category, counts in whole["per_class"].items():
        assert reduced["per_class"][category] == pytest.approx(counts, abs=1e-12)


def test_evaluate_loads_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)  # there is no network
    cache = tmp_path / "cache"
    folder = str(ROOT / "metrics" / "panoptic_quality")
    metric = evaluate.load(folder, categories=CATEGORIES, cache_dir=str(cache))
    reference, prediction = panoptic_pair(3)
    metric.add_batch(predictions=[prediction], references=[reference])
    assert metric.compute() == measure([(reference, prediction)])
    assert not cache.exists()
    assert "panopticapi" in metric.description and "Kirillov" in metric.citation
    assert "iscrowd" in str(metric.features["references"])


GOOD = panoptic([[1, 2]], {1: 0, 2: 6})


@pytest.mark.parametrize(
    ("side", "bad", "message"),
    [
        (
            "prediction",
            panoptic([[1, 4]], {1: 0}),
            "prediction 1 of the batch.* segment id 4, which segments_info lacks",
        ),
        ("reference", panoptic([[1, 4]], {1: 0}), "reference 1 of the batch.* segment id 4, which segments_info lacks"),
        ("prediction", panoptic([[1, -1]], {1: 0}), "segment id -1"),
        ("prediction", panoptic([[1, 1]], {1: 0, 9: 0}), "prediction 1 of the batch.* segment 9, which has no pixel"),
        ("prediction", panoptic([[1, 1]], {1: 77}), "prediction 1 of the batch.* segment 1 has label_id 77"),
        ("reference", panoptic([[1, 1]], {1: 77}), "reference 1 of the batch.* segment 1 has label_id 77"),
        ("reference", panoptic([[1, 1]], {1: 0, 0: 0}), "reference 1 of the batch.* segment id 0 stands for void"),
        ("prediction", panoptic([[1], [1]], {1: 0}), r"prediction 1 .* size \(2, 1\) and its reference \(1, 2\)"),
        ("prediction", panoptic([1, 1], {1: 0}), r"prediction 1 of the batch has shape \(2,\)"),
        ("reference", {"segmentation": np.ones((1, 2), int)}, "reference 1 of the batch .* 'segments_info'"),
        ("reference", None, "reference 1 of the batch is NoneType"),
    ],
)
def test_bad_input_is_named_and_nothing_of_the_batch_counts(side, bad, message):
    metric = PanopticQuality(categories=CATEGORIES)
    batch = {"prediction": [GOOD, GOOD], "reference": [GOOD, GOOD], side: [GOOD, bad]}
    with pytest.raises(ValueError, match=message):
        metric.add_batch(predictions=batch["prediction"], references=batch["reference"])
    assert metric.compute()["n"] == 0


def test_other_bad_input():
    metric = PanopticQuality(categories=CATEGORIES)
    twice = {**GOOD, "segments_info": [*GOOD["segments_info"], {"id": 2, "label_id": 1}]}
    with pytest.raises(ValueError, match="reference 0 of the batch: the segment id 2 occurs twice"):
        metric.add(prediction=GOOD, reference=twice)
    coco = {**GOOD, "segments_info": [{"id": 1, "category_id": 0}]}
    with pytest.raises(ValueError, match="prediction 0 of the batch: a segment has no 'label_id'"):
        metric.add(prediction=coco, reference=GOOD)
    with pytest.raises(TypeError, match="float64"):
        metric.add(prediction={**GOOD, "segmentation": np.ones((1, 2))}, reference=GOOD)
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        metric.add_batch(predictions=[GOOD], references=[GOOD, GOOD])
    with pytest.raises(ValueError, match="1 predictions for no references"):
        metric.compute(predictions=[GOOD])


def test_bad_categories():
    with pytest.raises(ValueError, match="empty"):
        PanopticQuality(categories=[])
    with pytest.raises(ValueError, match="entries 0 and 1 of categories share id 5"):
        PanopticQuality(categories=[{"id": 5}, {"id": 5}])
    with pytest.raises(ValueError, match="entry 0 of categories has no 'id'"):
        PanopticQuality(categories=[{"name": "cat"}])


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_images_without_prediction_without_truth_and_of_one_pixel(size):
    nothing = {"segmentation": np.zeros(size, int), "segments_info": []}
    whole = {"segmentation": np.full(size, 7), "segments_info": [{"id": 7, "label_id": 0}]}
    assert measure([(whole, nothing)])["per_class"][0] == {"pq": 0, "sq": 0, "rq": 0, "tp": 0, "fp": 0, "fn": 1}
    assert measure([(nothing, whole)])["n"] == 0  # a prediction on void is excused
    assert measure([(whole, whole)])["pq"] == 1


def test_an_image_of_24_megapixels():
    segmentation = np.ones((4000, 6000), np.int32)
    segmentation[:, 3000:] = 2
    reference = {"segmentation": segmentation, "segments_info": [{"id": i, "label_id": i} for i in (1, 2)]}
    prediction = {**reference, "segmentation": np.roll(segmentation, 600, axis=1)}
    assert measure([(reference, prediction)])["pq"] == pytest.approx(2400 / 3600)
