"""Agreement with the official implementation at full width, within its own rounding (see `close`)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from helpers import fixture
from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig
from maskformer.convert import to_official
from maskformer.image_processing.image_prediction import image_predictions
from maskformer.image_processing.post_processing import panoptic_segmentation, semantic_scores
from maskformer.modeling.matcher import match
from official_runs import (
    FEATURES,
    VOID,
    close,
    close_scores,
    fill_with_official_weights,
    official_gradients,
    official_inputs,
)

pytestmark = pytest.mark.parity
CASES = fixture("parity")["cases"]


class Run:
    """One case: the model with the official weights, and what it says in training mode, with gradients."""

    def __init__(self, case: dict):
        self.case = case
        num_labels = case["num_labels"]
        config = MaskFormerUniversalConfig(
            **case["config"], dropout=0.0, id2label={index: str(index) for index in range(num_labels)}
        )
        self.model = MaskFormerForUniversalSegmentation(config)
        self.official = fill_with_official_weights(self.model)
        self.inputs = make_inputs(case)
        self.embeddings = self.model.eval().model(self.inputs["pixel_values"])
        self.outputs = self.model.train()(**self.inputs)
        self.outputs.loss.backward()


def make_inputs(case: dict) -> dict:
    """The batch of a case, with one target mask for each class that is present."""
    pixel_values, pixel_mask, labels = official_inputs(case)
    class_labels = [classes[classes != VOID] for classes in (one.unique() for one in labels)]
    mask_labels = [
        one == classes[:, None, None] for one, classes in zip(labels, class_labels, strict=True)
    ]  # (n, H, W)
    return {
        "pixel_values": pixel_values,
        "pixel_mask": pixel_mask,
        "mask_labels": mask_labels,
        "class_labels": class_labels,
    }


@pytest.fixture(scope="module", params=CASES, ids=[case["configuration"] for case in CASES])
def run(request) -> Run:
    """Each case, computed once."""
    return Run(request.param)


CLASSES = (-1, slice(3), slice(-4, None))
MASKS = (-1, slice(3), slice(2, 5), slice(2, 5))


def test_features(run):
    for features, (_, expected) in zip(
        run.embeddings.image_features, sorted(run.case["features"].items()), strict=True
    ):
        close(features, expected, FEATURES)


def test_logits(run):
    close(run.outputs.class_queries_logits, run.case["class_queries_logits"], CLASSES)
    close(run.outputs.masks_queries_logits, run.case["masks_queries_logits"], MASKS)


def test_auxiliary_logits(run):
    auxiliary = run.outputs.auxiliary_logits
    assert len(auxiliary) == run.case["num_auxiliary"]
    close(auxiliary[0]["class_queries_logits"], run.case["auxiliary_0_class"], CLASSES)
    close(auxiliary[0]["masks_queries_logits"], run.case["auxiliary_0_masks"], MASKS)


def test_semantic_scores(run):
    resize_masks_first = "panoptic" in run.case
    outputs = image_predictions(run.outputs, run.case["output_sizes"])
    for prediction, expected in zip(outputs, run.case["semantic_scores"], strict=True):
        with torch.no_grad():
            scores = semantic_scores(prediction, resize_masks_first)
        close_scores(scores, expected)


def test_panoptic_segments(run):
    if "panoptic" not in run.case:
        pytest.skip("a semantic configuration")
    thresholds = run.case["panoptic_thresholds"]
    for prediction, expected in zip(
        image_predictions(run.outputs, run.case["output_sizes"]), run.case["panoptic"], strict=True
    ):
        with torch.no_grad():
            answer = panoptic_segmentation(
                prediction,
                threshold=thresholds["object_mask_threshold"],
                mask_threshold=0.5,
                overlap_mask_area_threshold=thresholds["overlap_threshold"],
                label_ids_to_fuse=range(80, 133),
            )
        areas = torch.bincount(answer["segmentation"].flatten(), minlength=len(expected["segments"]) + 1).tolist()
        assert [info["label_id"] for info in answer["segments_info"]] == [s["label_id"] for s in expected["segments"]]
        wanted = [expected["void_area"], *(segment["area"] for segment in expected["segments"])]
        assert np.abs(np.array(areas) - wanted).max() <= 0.002 * sum(wanted)


def test_matching(run):
    """The same queries get the same targets, in the last layer and in the first."""
    first = run.outputs.auxiliary_logits[0]
    class_logits = torch.stack((first["class_queries_logits"], run.outputs.class_queries_logits))
    mask_logits = torch.stack((first["masks_queries_logits"], run.outputs.masks_queries_logits))
    layers = match(class_logits, mask_logits, run.inputs["class_labels"], run.inputs["mask_labels"], (1, 20, 1))
    for layer, name in zip(layers, ("matching_auxiliary_0", "matching_last_layer"), strict=True):
        assert [[queries.tolist(), targets.tolist()] for queries, targets in layer] == run.case[name]


def test_losses(run):
    losses = {name: value.item() for name, value in run.outputs.loss_dict.items()}
    assert losses == pytest.approx(run.case["losses"], rel=1e-4)
    assert run.outputs.loss.item() == pytest.approx(run.case["total_loss"], rel=1e-4)


def test_gradients(run):
    """The official ones were computed in float32, whose rounding is 0.2% of some, and of ours as much, by processor
    and number of threads. So those in float64 are compared with both."""
    exact = copy.deepcopy(run.model).double()
    exact.zero_grad()
    exact(**run.inputs | {"pixel_values": run.inputs["pixel_values"].double()}).loss.backward()
    norms = gradient_norms(exact, run.case["gradient_norms"])
    assert norms == pytest.approx(run.case["gradient_norms"] | {"": run.case["gradient_norm"]}, rel=2e-3)
    assert gradient_norms(run.model, run.case["gradient_norms"]) == pytest.approx(norms, rel=3e-3)


def gradient_norms(model, names) -> dict[str, float]:
    """Those of the parameters of these official names, and of all together, by the name ""."""
    gradients = official_gradients(model)
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    return {name: gradients[name].norm().item() for name in names} | {"": total.item()}


def test_official_weights_come_back(run):
    back = to_official(run.model.state_dict(), run.model.config)
    assert back.keys() == run.official.keys()
    assert all(torch.equal(value, run.official[name]) for name, value in back.items())
