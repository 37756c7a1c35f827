"""What several test files need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).resolve().parent / "fixtures"


@torch.no_grad()
def with_segments(model):
    """`model`, a tiny MaskFormer, with weights of which its queries are of several minds: an answer has segments."""
    numbers = torch.Generator().manual_seed(0)

    def draw(parameter: torch.Tensor, scale: float) -> None:
        parameter.copy_(scale * torch.randn(parameter.shape, generator=numbers))

    heads = model.segmentation_module
    draw(model.model.transformer_module.query_embeddings.weight, 5)
    draw(heads.mask_head[4].weight, 1)
    draw(heads.class_head.weight, 0.5)
    heads.class_head.bias.copy_(torch.tensor([0.0] * model.config.num_labels + [-3]))
    return model


def shared_folder() -> Path | None:
    """The folder of reference files beside the checkout, or None where it is not."""
    folder = ROOT.parent / "shared"
    return folder if folder.is_dir() else None


def shared_file(name: str) -> Path:
    """A file or folder of the reference folder; the calling test is skipped where it is not."""
    folder = shared_folder()
    if folder is None or not (folder / name).exists():
        pytest.skip(f"the reference files are not beside this checkout ({name})")
    return folder / name


def fixture(name: str):
    """The JSON fixture `name`."""
    return json.loads((FIXTURES / f"{name}.json").read_text())
