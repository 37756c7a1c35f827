"""The benchmark of a training step: its plain loss is that of the model, and its table says what was measured."""

from __future__ import annotations

import pytest
import torch

from maskformer.benchmarks.memory import resident_peak
from maskformer.benchmarks.train_step import LOSSES, Step, make_batch, measure_step, training_loss


def small_step(config, loss: str = "lean", checkpointing: bool = False) -> Step:
    """A step that takes no time."""
    return Step(config, loss, checkpointing, image_size=64, batch_size=2, num_masks=3, device="cpu")


def test_the_plain_loss_is_the_model_s_in_value_and_gradient(tiny_model):
    model = tiny_model().double()
    batch = make_batch(small_step(model.config), 4)
    batch["pixel_values"] = batch["pixel_values"].double()
    gradients = []
    for name in ("plain", "lean"):
        model.zero_grad()
        loss = training_loss(model, batch, name)
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_loss_is_measured(tiny_config, loss, checkpointing):
    cost = measure_step(small_step(tiny_config(), loss, checkpointing), repeats=1)
    assert cost.seconds > 0
    assert cost.peak_memory is None or cost.peak_memory >= 0


def test_peak_memory_counts_what_was_freed_again():
    """64 MB that live for a moment, and 16 MB that stay."""
    kept = []

    def run():
        torch.ones(16 * 2**20).sum()
        kept.append(torch.ones(4 * 2**20))

    run()
    peak = resident_peak(run)
    if peak is None:
        pytest.skip("this kernel does not tell")
    assert 64e6 < peak < 90e6
