"""The cross-entropy of pixels against the plain formula, and over processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import ROOT
from maskformer.modeling import per_pixel_loss
from maskformer.modeling.per_pixel_loss import cross_entropy_sum


def plain(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """The loss by whole tensors."""
    enlarged = F.interpolate(logits, scale_factor=4, mode="bilinear")
    return F.cross_entropy(enlarged, labels, ignore_index=ignore_index, reduction="sum")


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("ignore_index", [0, 255])
def test_blocks_of_rows_equal_the_whole_in_value_and_gradient(monkeypatch, rows_at_once, ignore_index):
    random = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(2, 6, 7, 9, generator=random, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(6, (2, 28, 36), generator=random)
    labels[0, :5] = ignore_index
    monkeypatch.setattr(per_pixel_loss, "ELEMENTS_AT_ONCE", rows_at_once * 6 * 9 * 16)
    value, expected = cross_entropy_sum(logits, labels, ignore_index), plain(logits, labels, ignore_index)
    torch.testing.assert_close(value, expected)
    for a, b in zip(torch.autograd.grad(3 * value, logits), torch.autograd.grad(3 * expected, logits), strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_of_full_resolution_is_made_or_kept(monkeypatch):
    """Enlarged logits exist one block of rows at a time, and only their gradient of small size is kept."""
    monkeypatch.setattr(per_pixel_loss, "ELEMENTS_AT_ONCE", 1)
    logits = torch.randn(2, 50, 16, 16, requires_grad=True)
    labels = torch.randint(50, (2, 64, 64))
    with Largest() as largest:
        loss = cross_entropy_sum(logits, labels, 255)
    assert largest.elements <= max(logits.numel(), 50 * 12 * 64)  # three rows of logits for each block of one
    [kept] = loss.grad_fn.saved_tensors
    assert kept.shape == logits.shape


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation gives."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


PROGRAM = """
import json, os, sys
import torch
import torch.distributed as distributed
from maskformer.modeling.per_pixel_loss import cross_entropy_sum, loss_normalizers

rank, valid_rows, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = distributed.FileStore(os.path.join(folder, "store"), 2)
distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
random = torch.Generator().manual_seed(rank)
logits = torch.randn(1, 3, 4, 4, generator=random)
labels = torch.randint(3, (1, 16, 16), generator=random)
labels[:, valid_rows:] = 255
total = cross_entropy_sum(logits, labels, 255)
count = loss_normalizers([labels], 255, labels.device)["num_pixels"]
json.dump([total.item(), count.item()], open(os.path.join(folder, f"{rank}.json"), "w"))
distributed.destroy_process_group()
"""


def test_many_processes_equal_one(tmp_path):
    """The mean over processes of the losses, as gradients are averaged, is that of one process with all images."""
    valid_rows = (12, 0)
    (tmp_path / "program.py").write_text(PROGRAM)
    processes = [
        subprocess.Popen([sys.executable, str(tmp_path / "program.py"), str(rank), str(rows), str(tmp_path)], cwd=ROOT)
        for rank, rows in enumerate(valid_rows)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    together = sum(total / count for total, count in results) / 2
    assert together == pytest.approx(sum(total for total, _ in results) / (16 * sum(valid_rows)), rel=1e-5)
