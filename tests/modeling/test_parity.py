"""Agreement with the official implementation at full width, within its own rounding (see `close`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import fixture
from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig
from maskformer.convert import from_official, to_official
from maskformer.image_processing.image_prediction import image_predictions
from maskformer.image_processing.post_processing import panoptic_segmentation, semantic_scores
from maskformer.modeling.matcher import match
from reference_inputs import blocky_image, blocky_labels, official_parameter

pytestmark = pytest.mark.parity
CASES = fixture("parity")["cases"]
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
VOID = 255


class Run:
    """One case: the model with the official weights, and what it says in training mode, with gradients."""

    def __init__(self, case: dict):
        self.case = case
        num_labels = case["num_labels"]
        config = MaskFormerUniversalConfig(
            **case["config"], dropout=0.0, id2label={index: str(index) for index in range(num_labels)}
        )
        self.model = MaskFormerForUniversalSegmentation(config)
        self.official = to_official(self.model.state_dict(), config)
        for name, value in self.official.items():
            if not name.endswith(("relative_position_index", "empty_weight")):
                self.official[name] = torch.from_numpy(official_parameter(name, tuple(value.shape)))
        self.model.load_state_dict(from_official(self.official, config), strict=True)
        self.inputs = make_inputs(case)
        self.embeddings = self.model.eval().model(self.inputs["pixel_values"])
        self.outputs = self.model.train()(**self.inputs)
        self.outputs.loss.backward()

    def official_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients under their official names."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        ours = {
            name: torch.zeros_like(value) if value.grad is None else value.grad
            for name, value in tensors.items()
            if name in self.model.state_dict()
        }
        return to_official(ours, self.model.config)


def make_inputs(case: dict) -> dict:
    """The batch of a case, on the official canvas."""
    sizes, divisor = case["image_sizes"], case["size_divisor"]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    pixel_values = torch.zeros(len(sizes), 3, height, width)
    pixel_mask = torch.zeros(len(sizes), height, width, dtype=torch.int64)
    mask_labels, class_labels = [], []
    for index, (h, w) in enumerate(sizes):
        pixel_values[index, :, :h, :w] = (torch.from_numpy(blocky_image(index, h, w)).float() - MEAN) / STD
        pixel_mask[index, :h, :w] = 1
        labels = torch.full((height, width), VOID)
        labels[:h, :w] = torch.from_numpy(blocky_labels(index, h, w, case["num_labels"], VOID))
        classes = labels.unique()
        class_labels.append(classes[classes != VOID])
        mask_labels.append(labels == class_labels[-1][:, None, None])  # (n, H, W)
    return {
        "pixel_values": pixel_values,
        "pixel_mask": pixel_mask,
        "mask_labels": mask_labels,
        "class_labels": class_labels,
    }


def close(actual: torch.Tensor, expected: dict, corner: tuple) -> None:
    """The recorded facts of a tensor: within 2e-4 of its largest value, ten times its rounding."""
    tolerance = 2e-4 * expected["abs_max"]
    assert list(actual.shape) == expected["shape"]
    assert np.abs(actual[corner].detach().numpy() - np.array(expected["corner"])).max() < tolerance
    assert abs(actual.abs().max().item() - expected["abs_max"]) < tolerance
    assert abs(actual.mean().item() - expected["mean"]) < tolerance
    assert abs(actual.std().item() - expected["std"]) < tolerance


@pytest.fixture(scope="module", params=CASES, ids=[case["configuration"] for case in CASES])
def run(request) -> Run:
    """Each case, computed once."""
    return Run(request.param)


FEATURES = (0, slice(3), 0, slice(3))
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
        close(scores, expected, (slice(4), slice(5, 8), slice(5, 8)))
        counts = torch.bincount(scores.argmax(0).flatten(), minlength=run.case["num_labels"])
        wanted = torch.zeros_like(counts)
        for label, count in expected["argmax_histogram"].items():
            wanted[int(label)] = count
        assert (counts - wanted).abs().max() <= 0.002 * counts.sum()


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
    gradients = run.official_gradients()
    norms = {name: gradients[name].norm().item() for name in run.case["gradient_norms"]}
    assert norms == pytest.approx(run.case["gradient_norms"], rel=3e-3)
    total = torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]).norm().item()
    assert total == pytest.approx(run.case["gradient_norm"], rel=3e-3)


def test_official_weights_come_back(run):
    back = to_official(run.model.state_dict(), run.model.config)
    assert back.keys() == run.official.keys()
    assert all(torch.equal(value, run.official[name]) for name, value in back.items())
