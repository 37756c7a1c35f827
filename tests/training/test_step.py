"""Steps that must not be taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from maskformer.training.step import NotFinite, train_step


class Loss(torch.nn.Module):
    """A model whose loss is its weight times the input."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def loss_normalizers(self, batches):
        return None

    def forward(self, value, normalizers):
        return SimpleNamespace(loss=self.weight * value, loss_dict={})


@pytest.mark.parametrize(("scaler", "message"), [(False, "gradient is not finite"), (True, "loss is not finite")])
def test_a_loss_that_is_not_finite_stops_the_run_with_a_gradient_scaler_too(scaler, message):
    accelerator = Accelerator(cpu=True)
    if scaler:
        accelerator.scaler = torch.amp.GradScaler("cpu")
    model = Loss()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batch = {"value": torch.tensor(float("inf"))}
    with pytest.raises(NotFinite, match=message) as error:
        train_step(accelerator, model, optimizer, [batch], 1.0)
    assert error.value.batches == [batch] and model.weight.item() == 1
