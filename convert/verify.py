"""Checks after a conversion that use the models: same entries back, same logits, finite logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from maskformer.convert.official import describe, is_constant

# Largest difference allowed, relative to the largest value.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE = 5e-2  # of half precision


def check_entries(given: Mapping[str, torch.Tensor], back: Mapping[str, torch.Tensor]) -> str:
    """Raises `ValueError` unless `back` holds the entries of `given`, bit for bit; returns a sentence that it does."""
    # Constants were compared with the computed ones, at the precision of both, when `given` was converted.
    compared = {key: value for key, value in given.items() if not is_constant(key)}
    wrong = [
        key
        for key, value in compared.items()
        if not (key in back and value.dtype == back[key].dtype and torch.equal(value, back[key]))
    ]
    if wrong:
        raise ValueError(f"converted back, these entries differ: {describe(wrong)}")
    return f"verified: converted back, all {len(compared)} entries are the same"


@torch.no_grad()
def logits(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What `model` predicts for one image of noise, 128 x 160.

    Raises `ValueError` if that is not finite.
    """
    noise = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)).to(model.dtype)
    outputs = model(pixel_values=noise)
    names = [name for name in ("class_queries_logits", "masks_queries_logits", "logits") if name in outputs]
    for name in names:
        if not outputs[name].isfinite().all():
            raise ValueError(f"the forward pass gives {name} that are not finite")
    return {name: outputs[name] for name in names}


def check_forward(model: PreTrainedModel) -> str:
    """Raises `ValueError` unless a forward pass of `model` is finite; returns a sentence that it is."""
    found = logits(model)
    return f"verified: a forward pass gives finite {' and '.join(found)}"


def check_logits(ours: PreTrainedModel, theirs: PreTrainedModel) -> str:
    """Raises `ValueError` unless both models predict the same; returns a sentence with the largest difference."""
    before, after = logits(theirs), logits(ours)
    differences = {
        name: ((after[name] - value).abs().max() / value.abs().max()).item() for name, value in before.items()
    }
    name, largest = max(differences.items(), key=lambda item: item[1])
    if not largest <= TOLERANCES.get(ours.dtype, COARSE):
        raise ValueError(f"the two models disagree: {name} by {largest:.1e} of the largest value")
    return f"verified: logits before and after differ by {largest:.1e} of the largest value at most"
