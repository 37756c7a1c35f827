"""Agreement of the per-pixel baselines with the official implementation at full width, within its own rounding."""

from __future__ import annotations

import pytest
import torch

from helpers import fixture
from maskformer import PerPixelBaselineConfig, PerPixelBaselineForSemanticSegmentation
from maskformer.image_processing.image_prediction import image_predictions
from maskformer.image_processing.post_processing import semantic_scores
from official_runs import (
    FEATURES,
    close,
    close_scores,
    fill_with_official_weights,
    official_gradients,
    official_inputs,
)

pytestmark = pytest.mark.parity
CASES = fixture("parity")["per_pixel_cases"]


class Run:
    """One case: the model with the official weights, and what it says in training mode, with gradients."""

    def __init__(self, case: dict):
        self.case = case
        config = PerPixelBaselineConfig(
            **case["config"], dropout=0.0, id2label={index: str(index) for index in range(case["num_labels"])}
        )
        self.model = PerPixelBaselineForSemanticSegmentation(config)
        fill_with_official_weights(self.model)
        pixel_values, pixel_mask, labels = official_inputs(case)
        self.image_features = self.model.eval().model(pixel_values).image_features
        self.outputs = self.model.train()(pixel_values, pixel_mask, labels)
        self.outputs.loss.backward()


@pytest.fixture(scope="module", params=CASES, ids=[case["configuration"] for case in CASES])
def run(request) -> Run:
    """Each case, computed once."""
    return Run(request.param)


def test_features(run):
    for features, (_, expected) in zip(run.image_features, sorted(run.case["features"].items()), strict=True):
        close(features, expected, FEATURES)


def test_semantic_scores(run):
    predictions = image_predictions(run.outputs, run.case["output_sizes"])
    for prediction, expected in zip(predictions, run.case["semantic_scores"], strict=True):
        with torch.no_grad():
            close_scores(semantic_scores(prediction, resize_masks_first=False), expected)


def test_losses(run):
    losses = {name: value.item() for name, value in run.outputs.loss_dict.items()}
    assert losses == pytest.approx(run.case["losses"], rel=1e-4)
    assert run.outputs.loss.item() == pytest.approx(run.case["total_loss"], rel=1e-4)


def test_gradients(run):
    gradients = official_gradients(run.model)
    norms = {name: gradients[name].norm().item() for name in run.case["gradient_norms"]}
    assert norms == pytest.approx(run.case["gradient_norms"], rel=3e-3)
    total = torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]).norm().item()
    assert total == pytest.approx(run.case["gradient_norm"], rel=3e-3)
