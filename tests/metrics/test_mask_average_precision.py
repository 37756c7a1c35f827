"""Mask AP against pycocotools run in one go, a brute force and figures by hand, and on bad input."""

from __future__ import annotations

import contextlib
import io

import evaluate
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers import ROOT
from maskformer.metrics import MaskAveragePrecision

CATEGORIES = [{"id": 3, "isthing": 1}, {"id": 8, "isthing": 1}, {"id": 5, "isthing": 0}, {"id": 6, "isthing": 1}]
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def rle(mask: np.ndarray) -> dict:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in code["size"]], "counts": code["counts"].decode()}


def random_image(seed: int) -> tuple[dict, dict]:
    """A prediction of bool masks and its reference, overlapping maps: boxes of all sizes of two categories, crowds,
    wrong answers, equal scores; sometimes nothing at all."""
    draw = np.random.default_rng(seed)
    height, width = 120, 140
    true, masks, infos = np.zeros((2, height, width), np.int32), [], []

    def box(top, left, tall, wide) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        mask[max(top, 0) : top + tall, max(left, 0) : left + wide] = True
        return mask

    for identity in range(1, draw.integers(0, 7) + 1):
        edges = draw.choice([12, 40, 100]) + draw.integers(-5, 6, 2)
        corner = draw.integers(0, height - 20, 2)
        layer = true[identity % 2]
        here = box(*corner, *edges) & (layer == 0)
        label = int(draw.choice([3, 8, 5]))
        layer[here] = identity
        infos.append({"id": identity, "label_id": label, "iscrowd": int(draw.random() < 0.2)})
        for _ in range(draw.integers(0, 3)):
            guess = box(*(corner + draw.integers(-3, 4, 2)), *(edges + draw.integers(-2, 3, 2)))
            masks.append((guess, label if draw.random() < 0.8 else 3))
    for _ in range(draw.integers(0, 3)):
        masks.append((box(*draw.integers(0, 100, 2), *draw.integers(1, 60, 2)), int(draw.choice([3, 8]))))
    scores = draw.choice(np.linspace(0.1, 1, 12), len(masks))
    segments = [
        {"id": i, "label_id": label, "score": float(score)}
        for i, ((_, label), score) in enumerate(zip(masks, scores, strict=True), start=1)
    ]
    stack = np.array([mask for mask, _ in masks], bool).reshape(-1, height, width)  # (n, H, W)
    return {"segmentation": stack, "segments_info": segments}, {"segmentation": true, "segments_info": infos}


def measure(images, categories=CATEGORIES) -> dict:
    metric = MaskAveragePrecision(categories=categories)
    metric.add_batch(predictions=[p for p, _ in images], references=[r for _, r in images])
    return metric.compute()


def by_pycocotools(images) -> COCOeval:
    """COCO's evaluation of all images in one go, of the things."""
    annotations, answers = [], []
    for image_id, (prediction, reference) in enumerate(images, start=1):
        for info in reference["segments_info"]:
            mask = (reference["segmentation"] == info["id"]).any(0)
            if info["label_id"] != 5:
                fields = {"id": len(annotations) + 1, "image_id": image_id, "category_id": info["label_id"]}
                fields |= {"iscrowd": info["iscrowd"], "area": int(mask.sum()), "segmentation": rle(mask)}
                annotations.append(fields)
        for mask, info in zip(prediction["segmentation"], prediction["segments_info"], strict=True):
            if info["label_id"] != 5:
                fields = {"image_id": image_id, "category_id": info["label_id"], "score": info["score"]}
                answers.append(fields | {"segmentation": rle(mask)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i, "height": 120, "width": 140} for i in range(1, len(images) + 1)],
            "categories": [{"id": category["id"]} for category in CATEGORIES if category["isthing"]],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(answers), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.fixture(scope="module")
def images():
    return [random_image(seed) for seed in range(25)]


def test_random_images_equal_pycocotools_in_one_go(images, capsys):
    evaluation = by_pycocotools(images)
    result = measure(images)
    assert [result[name] for name in NAMES] == pytest.approx(evaluation.stats[:6], abs=1e-12)
    assert all(0.01 < result[name] < 0.95 for name in NAMES)  # the images are neither trivial nor hopeless
    for row, category in enumerate((3, 6, 8)):
        precision = evaluation.eval["precision"][:, :, row, 0, -1]
        expected = precision.mean() if precision.min() >= 0 else np.nan
        assert result["per_class"][category]["ap"] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert result["per_class"][6]["instances"] == 0 and 5 not in result["per_class"]
    assert capsys.readouterr().out == ""


def ap_by_hand(images, category: int, threshold: float) -> float:
    """AP at one IoU threshold, of images without crowds: greedy matching, then 101 points of the curve."""
    answers, total = [], 0
    for prediction, reference in images:
        true = [
            (reference["segmentation"] == info["id"]).any(0)
            for info in reference["segments_info"]
            if info["label_id"] == category
        ]
        total += len(true)
        guesses = [
            (info["score"], mask)
            for mask, info in zip(prediction["segmentation"], prediction["segments_info"], strict=True)
            if info["label_id"] == category
        ]
        taken = set()
        for score, mask in sorted(guesses, key=lambda pair: -pair[0]):
            ious = {
                i: (mask & other).sum() / max((mask | other).sum(), 1) for i, other in enumerate(true) if i not in taken
            }
            # Of equal IoUs pycocotools takes the last.
            best = max(ious, key=lambda i: (ious[i], i), default=None)
            right = best is not None and ious[best] >= threshold
            if right:
                taken.add(best)
            answers.append((score, right))
    answers.sort(key=lambda pair: -pair[0])
    hits = np.cumsum([right for _, right in answers])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / total
    return float(np.mean([max(precision[recall >= r], default=0) for r in np.linspace(0, 1, 101)]))


def test_random_images_equal_brute_force(images):
    images = [(p, {**r, "segments_info": [{**info, "iscrowd": 0} for info in r["segments_info"]]}) for p, r in images]
    result = measure(images)
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        for category in (3, 8):
            expected = ap_by_hand(images, category, threshold)
            assert result["per_class"][category][name] == pytest.approx(expected, abs=1e-9)
        assert result[name] == pytest.approx(np.mean([result["per_class"][c][name] for c in (3, 8)]), abs=1e-12)


def one_row(ids: list[int], labels: dict[int, int], **fields) -> dict:
    infos = [{"id": i, "label_id": label, **fields} for i, label in labels.items()]
    return {"segmentation": np.array([ids]), "segments_info": infos}


def test_figures_by_hand():
    """Two instances; the first answer is right up to an IoU of 0.75, the second wrong."""
    reference = one_row([1, 1, 1, 1, 2, 2, 0, 0], {1: 3, 2: 3})
    prediction = one_row([7, 7, 7, 0, 0, 0, 9, 9], {7: 3, 9: 3}, score=0.9)
    prediction["segments_info"][1]["score"] = 0.8
    result = measure([(prediction, reference)])
    half = 51 / 101  # precision 1 at the 51 recalls of 0 to 0.5, 0 at those above
    assert result["ap50"] == pytest.approx(half) and result["ap75"] == pytest.approx(half)
    assert result["ap"] == pytest.approx(half * 6 / 10) and result["ap_small"] == result["ap"]
    assert np.isnan(result["ap_large"]) and result["per_class"][3]["instances"] == 2
    prediction["segments_info"][1]["score"] = 0.95  # the wrong one comes first
    assert measure([(prediction, reference)])["ap50"] == pytest.approx(half / 2)


def test_a_prediction_on_a_crowd_is_neither_right_nor_wrong():
    reference = one_row([1, 1, 2, 2, 2, 2], {1: 3, 2: 3})
    reference["segments_info"][1]["iscrowd"] = 1
    prediction = one_row([4, 4, 5, 5, 6, 6], {4: 3, 5: 3, 6: 3}, score=0.5)
    assert measure([(prediction, reference)])["ap"] == pytest.approx(1)
    assert measure([(prediction, reference)])["per_class"][3]["instances"] == 1


def test_the_area_may_be_the_references_own():
    reference = one_row([1, 1, 0, 0], {1: 3}, area=100 * 100.0)
    result = measure([(one_row([5, 5, 0, 0], {5: 3}, score=0.5), reference)])
    assert result["ap_large"] == pytest.approx(1) and np.isnan(result["ap_small"])


def test_rles_bool_maps_and_ids_are_the_same():
    reference = one_row([1, 1, 0, 2, 2, 2], {1: 3, 2: 8})
    prediction = one_row([4, 4, 4, 5, 5, 0], {4: 3, 5: 8}, score=0.5)
    expected = measure([(prediction, reference)])
    masks = np.stack([prediction["segmentation"] == i for i in (4, 5)])
    infos = [{"label_id": info["label_id"], "score": 0.5} for info in prediction["segments_info"]]
    layers = np.stack([np.where(reference["segmentation"] == i, i, 0) for i in (2, 1)])
    for form in (masks, torch.from_numpy(masks), [rle(mask) for mask in masks]):
        answer = {"segmentation": form, "segments_info": infos}
        np.testing.assert_equal(measure([(answer, reference)]), expected)
        np.testing.assert_equal(measure([(answer, {**reference, "segmentation": layers})]), expected)
    listed = {**reference, "segmentation": reference["segmentation"].tolist()}
    tensor = {**prediction, "segmentation": torch.from_numpy(prediction["segmentation"])}
    np.testing.assert_equal(measure([(tensor, listed)]), expected)


def test_answers_of_the_image_processor():
    """Its binary maps and RLEs enter as they are."""
    from maskformer import MaskFormerUniversalImageProcessor
    from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentationOutput

    masks = torch.full((1, 3, 8, 8), -9.0)
    for query in range(3):
        masks[0, query, 2 * query : 2 * query + 2] = 9.0
    classes = torch.full((1, 3, 3), -9.0)
    classes[0, torch.arange(3), torch.tensor([0, 1, 0])] = 9.0
    outputs = MaskFormerForUniversalSegmentationOutput(class_queries_logits=classes, masks_queries_logits=masks)
    processor = MaskFormerUniversalImageProcessor()
    truth = processor.post_process_instance_segmentation(outputs)[0]
    assert len(truth["segments_info"]) == 3
    for options in ({}, {"return_binary_maps": True}, {"return_coco_annotation": True}):
        answer = processor.post_process_instance_segmentation(outputs, **options)[0]
        result = measure([(answer, truth)], [{"id": 0}, {"id": 1}])
        assert result["ap"] == pytest.approx(1) and result["per_class"][0]["instances"] == 2


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_images_without_prediction_without_truth_and_of_one_pixel(size):
    nothing = {"segmentation": np.zeros(size, int), "segments_info": []}
    truth = {"segmentation": np.ones(size, int), "segments_info": [{"id": 1, "label_id": 3}]}
    answer = {"segmentation": np.ones((1, *size), bool), "segments_info": [{"label_id": 3, "score": 0.5}]}
    assert np.isnan(measure([(nothing, nothing)])["ap"])
    assert np.isnan(measure([(answer, nothing)])["ap"])
    for empty in (nothing, {"segmentation": [], "segments_info": []}):
        assert measure([(empty, truth)])["ap"] == 0
    assert measure([(answer, truth)])["ap"] == pytest.approx(1)
    assert measure([(answer, truth), (answer, nothing)])["ap"] < 1 + 1e-9
    assert np.isnan(MaskAveragePrecision(categories=CATEGORIES).compute()["ap"])


@pytest.mark.parametrize("processes", [2, 3])
def test_gathered_shares_are_the_whole(images, processes):
    shares = [MaskAveragePrecision(categories=CATEGORIES) for _ in range(processes)]
    for i, (prediction, reference) in enumerate(images):
        shares[i % processes].add(prediction=prediction, reference=reference)
    lists: list[list] = []
    for share in shares:
        share.reduce(lambda images: lists.append(images) or [images])
    for share in shares:
        share.reduce(lambda _: lists)
        np.testing.assert_equal(share.compute(), measure(images))


def test_compute_starts_afresh_and_takes_a_batch(images):
    metric = MaskAveragePrecision(categories=CATEGORIES)
    metric.add(prediction=images[3][0], reference=images[3][1])
    first = metric.compute()
    np.testing.assert_equal(metric.compute(predictions=[images[3][0]], references=[images[3][1]]), first)


def test_evaluate_loads_the_folder(tmp_path, monkeypatch, images):
    monkeypatch.setattr("socket.socket.connect", None)  # there is no network
    cache = tmp_path / "cache"
    folder = str(ROOT / "metrics" / "mask_average_precision")
    metric = evaluate.load(folder, categories=CATEGORIES, cache_dir=str(cache))
    metric.add_batch(predictions=[images[3][0]], references=[images[3][1]])
    np.testing.assert_equal(metric.compute(), measure([images[3]]))
    assert not cache.exists()
    assert "pycocotools" in metric.description and "Microsoft COCO" in metric.citation
    assert "iscrowd" in str(metric.features["references"])


GOOD = one_row([1, 2], {1: 3, 2: 8}, score=0.5)


@pytest.mark.parametrize(
    ("side", "bad", "message"),
    [
        ("prediction", one_row([1, 4], {1: 3}, score=1.0), "prediction 1 .* segment id 4, which segments_info lacks"),
        ("reference", one_row([1, 4], {1: 3}), "reference 1 .* segment id 4, which segments_info lacks"),
        ("prediction", one_row([1, 1], {1: 77}, score=1.0), "prediction 1 .* label_id 77, which is the id of no"),
        ("reference", one_row([1, 1], {0: 3}), "reference 1 .* 'id' of their own that is not 0"),
        ("prediction", one_row([1, 1], {1: 3}), "prediction 1 of the batch: a segment has no 'score'"),
        ("prediction", one_row([1, 1], {1: 3}, score=float("nan")), "prediction 1 .* NaN"),
        ("prediction", one_row([1, 1, 1], {1: 3}, score=1.0), r"size \(1, 3\) and its reference \(1, 2\)"),
        (
            "prediction",
            {"segmentation": [rle(np.ones((2, 1)))], "segments_info": [{"label_id": 3, "score": 1.0}]},
            r"prediction 1 .* size \(2, 1\) and its reference \(1, 2\)",
        ),
        (
            "prediction",
            {"segmentation": np.ones((2, 1, 2), bool), "segments_info": [{"label_id": 3, "score": 1.0}]},
            r"prediction 1 .* bool maps of shape \(2, 1, 2\) for 1 segments",
        ),
        (
            "prediction",
            {"segmentation": [], "segments_info": [{"label_id": 3, "score": 1.0}]},
            "0 masks for 1 segments",
        ),
        ("reference", {"segmentation": np.ones((1, 2), int)}, "reference 1 of the batch .* 'segments_info'"),
        ("reference", None, "reference 1 of the batch is NoneType"),
    ],
)
def test_bad_input_is_named_and_nothing_of_the_batch_counts(side, bad, message):
    metric = MaskAveragePrecision(categories=CATEGORIES)
    batch = {"prediction": [GOOD, GOOD], "reference": [GOOD, GOOD], side: [GOOD, bad]}
    with pytest.raises(ValueError, match=message):
        metric.add_batch(predictions=batch["prediction"], references=batch["reference"])
    assert np.isnan(metric.compute()["ap"])


def test_other_bad_input():
    metric = MaskAveragePrecision(categories=CATEGORIES)
    with pytest.raises(TypeError, match="float64"):
        metric.add(prediction={**GOOD, "segmentation": np.ones((1, 2))}, reference=GOOD)
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        metric.add_batch(predictions=[GOOD], references=[GOOD, GOOD])
    for categories, message in (
        ([], "empty"),
        ([{"id": 5}, {"id": 5}], "twice"),
        ([{"name": "cat"}], "entry 0 .* 'id'"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskAveragePrecision(categories=categories)
