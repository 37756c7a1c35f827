"""Processes and micro-batches are one batch: what the losses are divided by counts all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import distributed_steps
from helpers import ROOT
from maskformer.modeling import loss, per_pixel_loss

KINDS = ("maskformer", "per_pixel")


@pytest.fixture(scope="module")
def alone():
    """Each kind of model, trained by one process with all images of a step in one batch."""
    return {kind: distributed_steps.steps(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Each kind of model, trained by two processes in two micro-batches a step."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, str(ROOT / "tests" / "distributed_steps.py")]
    processes = [subprocess.Popen([*command, str(rank), "2", str(folder)], cwd=ROOT) for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_equal(actual: dict, expected: dict) -> None:
    """Losses, gradients and weights, within 1e-8 of the largest value of each tensor."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # Gradients that are zero but for rounding, as those of key biases, have no relative precision.
        tolerance = 1e-8 * value.abs().max().item() + 1e-12
        torch.testing.assert_close(actual[name], value, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_of_two_micro_batches_train_as_one_batch(alone, together, kind):
    for results in together:
        assert_equal(results[kind], alone[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulation", [2, 8])
def test_micro_batches_train_as_one_batch(alone, kind, accumulation):
    assert_equal(distributed_steps.steps(kind, accumulation=accumulation), alone[kind])


def test_normalizers_count_targets_and_the_weight_of_queries():
    """Three images of 7 queries; 4 + 0 + 7 of these have a target, 10 have none, whose weight is 0.1."""
    class_labels = [torch.zeros(count) for count in (4, 0, 9)]
    values = loss.loss_normalizers(class_labels, 7, 0.1, torch.device("cpu"))
    assert {name: value.item() for name, value in values.items()} == {
        "num_masks": 13,
        "class_weight": pytest.approx(12, rel=1e-12),
    }
    assert loss.loss_normalizers([torch.zeros(0)], 7, 0.1, torch.device("cpu"))["num_masks"] == 1


def test_normalizers_count_pixels_that_have_a_class():
    labels = [torch.tensor([[[0, 1, 255]]]), torch.tensor([[[2, 255]], [[255, 3]]])]
    assert per_pixel_loss.loss_normalizers(labels, 255, torch.device("cpu")) == {"num_pixels": 4}
    assert per_pixel_loss.loss_normalizers([torch.full((1, 2, 2), 255)], 255, torch.device("cpu")) == {"num_pixels": 1}


def test_normalizers_of_processes_are_their_sum_over_their_number(monkeypatch):
    """Two processes, of which the other has nothing: one target in all still counts as one, half a process."""
    for module in (loss, per_pixel_loss):
        monkeypatch.setattr(module, "sum_over_processes", lambda value: (value, 2))
    values = loss.loss_normalizers([torch.zeros(1)], 7, 0.1, torch.device("cpu"))
    assert values["num_masks"] == 0.5 and values["class_weight"].item() == pytest.approx(0.8)
    labels = [torch.tensor([[[0, 255]]])]
    assert per_pixel_loss.loss_normalizers(labels, 255, torch.device("cpu")) == {"num_pixels": 0.5}
