"""The number of masks is averaged over processes, and at least one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers import ROOT

PROGRAM = """
import json, os, sys
import torch
import torch.distributed as distributed
from maskformer.modeling.loss import mask_classification_losses

rank, targets, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = distributed.FileStore(os.path.join(folder, "store"), 2)
distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
random = torch.Generator().manual_seed(rank)
classes = torch.randn(1, 1, 5, 4, generator=random)
masks = torch.randn(1, 1, 5, 8, 8, generator=random)
labels = [torch.arange(targets) % 3]
truth = [torch.rand(targets, 16, 16, generator=random) > 0.5]


def losses():
    found = mask_classification_losses(classes, masks, truth, labels, (1, 20, 1), 0.1)
    return {name: value.item() for (name, _), value in found.items()}


together = losses()
distributed.barrier()
distributed.destroy_process_group()
json.dump([together, losses()], open(os.path.join(folder, f"{rank}.json"), "w"))
"""


@pytest.mark.parametrize("targets", [(4, 2), (1, 0)])
def test_num_masks_is_averaged_over_processes(tmp_path, targets):
    (tmp_path / "program.py").write_text(PROGRAM)
    processes = [
        subprocess.Popen([sys.executable, str(tmp_path / "program.py"), str(rank), str(count), str(tmp_path)], cwd=ROOT)
        for rank, count in enumerate(targets)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    average = max(1, sum(targets) / 2)
    for rank, count in enumerate(targets):
        together, alone = json.loads((tmp_path / f"{rank}.json").read_text())
        for name in ("loss_mask", "loss_dice"):
            assert together[name] == pytest.approx(alone[name] * max(1, count) / average, rel=1e-5)
        assert together["loss_ce"] == pytest.approx(alone["loss_ce"])
