"""One step of the optimiser."""

from __future__ import annotations

import contextlib

import torch
from accelerate import Accelerator

from maskformer.modeling.matcher import PredictionIsNaN


class NotFinite(ValueError):
    """A loss or gradient that is no number; `batches` are the micro-batches of this process that gave it."""

    def __init__(self, message: str, batches: list[dict]):
        super().__init__(message)
        self.batches = batches


def train_step(
    accelerator: Accelerator, model, optimizer: torch.optim.Optimizer, batches: list[dict], clip_norm: float
) -> dict[str, torch.Tensor]:
    """One step of the optimiser on micro-batches; returns the loss and its terms, not yet read from the device.

    What losses are divided by is counted over all micro-batches and processes first, so that they equal one batch.
    Raises `NotFinite` where a prediction, the loss or the gradient is not finite, before it does harm.
    """
    normalizers = accelerator.unwrap_model(model).loss_normalizers(batches)
    terms: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            try:
                output = model(**batch, normalizers=normalizers)
            except PredictionIsNaN as error:
                raise NotFinite(str(error), batches) from error
            accelerator.backward(output.loss)
        values = {"loss": output.loss, **output.loss_dict}
        terms = {name: terms.get(name, 0) + value.detach() for name, value in values.items()}
    norm = accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    # A gradient scaler leaves steps whose gradient is too large out by itself, but no scale mends a loss.
    name, value = "gradient", norm
    if accelerator.scaler is not None:
        name, value = "loss", accelerator.reduce(terms["loss"])  # of all processes, so that all of them stop
    if not torch.isfinite(value):
        raise NotFinite(f"the {name} is not finite (loss {float(terms['loss'])})", batches)
    optimizer.step()
    optimizer.zero_grad()
    return terms
