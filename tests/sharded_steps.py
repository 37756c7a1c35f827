"""Two training steps of a tiny model that is sharded over two processes (FSDP 2, gloo), saved and restored as a whole.

    python tests/sharded_steps.py RANK FOLDER

writes what came out to FOLDER/RANK.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as distributed
from torch.distributed.fsdp import fully_shard

from distributed_steps import build, global_batch, part
from maskformer.training.sharding import optimizer_state, restore_optimizer, whole_model


def make(sharded: bool):
    """The model, and its optimiser."""
    model = build("maskformer")
    if sharded:
        for module in model.modules():
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module)
        fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)


def train(model, optimizer, steps, rank: int = 0, processes: int = 1) -> None:
    """Steps of the global batches, each process with its share."""
    share = 8 // processes
    for step in steps:
        batch = part(global_batch(step), "maskformer", rank * share, share)
        loss = model(**batch, normalizers=model.loss_normalizers([batch])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    RANK, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
    STORE = distributed.FileStore(str(FOLDER / "store"), 2)
    distributed.init_process_group("gloo", rank=RANK, world_size=2, store=STORE)
    MODEL, OPTIMIZER = make(sharded=True)
    train(MODEL, OPTIMIZER, [0], RANK, 2)
    SAVED = whole_model(MODEL).state_dict(), optimizer_state(MODEL, OPTIMIZER)
    if RANK == 0:
        torch.save(SAVED, FOLDER / "saved.pt")
    distributed.barrier()
    # A new run goes on from what was saved.
    WEIGHTS, STATE = torch.load(FOLDER / "saved.pt", weights_only=True)
    MODEL, OPTIMIZER = make(sharded=False)
    MODEL.load_state_dict(WEIGHTS)
    for MODULE in MODEL.modules():
        if type(MODULE).__name__ in MODEL._no_split_modules:
            fully_shard(MODULE)
    fully_shard(MODEL)
    OPTIMIZER = torch.optim.AdamW(MODEL.parameters(), lr=1e-3, weight_decay=0.05)
    restore_optimizer(MODEL, OPTIMIZER, STATE)
    train(MODEL, OPTIMIZER, [1], RANK, 2)
    torch.save(whole_model(MODEL).state_dict(), FOLDER / f"{RANK}.pt")
    distributed.destroy_process_group()
