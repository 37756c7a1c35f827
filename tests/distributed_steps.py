"""Five training steps of tiny models in float64, by any number of processes and micro-batches.

    python tests/distributed_steps.py RANK PROCESSES FOLDER

takes part in one job over gloo, each step in two micro-batches, and writes what came out to FOLDER/RANK.pt.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
)

# Targets of the eight images of each step: unequal shares, more than queries, one in all, none, as many for all.
TARGETS = [[4, 2, 0, 9, 1, 0, 0, 3], [0, 0, 1, 0, 0, 0, 0, 0], [0] * 8, [0, 0, 0, 0, 5, 7, 1, 2], [2] * 8]
SIZE = 64
TINY = {
    "backbone": "mobilenetv3_small_050",
    "feature_size": 32,
    "mask_feature_size": 16,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "decoder_layers": 2,
    "dropout": 0.0,
    "id2label": {index: str(index) for index in range(4)},
}


def build(kind: str) -> torch.nn.Module:
    """`maskformer` or `per_pixel`, the same weights every time."""
    torch.manual_seed(0)
    if kind == "maskformer":
        model = MaskFormerForUniversalSegmentation(MaskFormerUniversalConfig(**TINY, num_queries=7))
    else:
        config = PerPixelBaselineConfig(**TINY, use_transformer_decoder=True)
        model = PerPixelBaselineForSemanticSegmentation(config)
    return model.double().train()


def global_batch(step: int) -> dict:
    """All eight images of a step, with the targets of both kinds of model."""
    random = torch.Generator().manual_seed(step)
    masks, classes = [], []
    for count in TARGETS[step]:
        masks.append(torch.rand(count, SIZE, SIZE, generator=random) > 0.5)
        classes.append(torch.randint(4, (count,), generator=random))
    labels = torch.randint(4, (8, SIZE, SIZE), generator=random)
    for image, count in enumerate(TARGETS[step]):
        labels[image, 5 * count :] = 255  # as unequal; none at all in some steps
    pixels = torch.randn(8, 3, SIZE, SIZE, generator=random, dtype=torch.float64)
    return {"pixel_values": pixels, "mask_labels": masks, "class_labels": classes, "labels": labels}


def part(batch: dict, kind: str, first: int, count: int) -> dict:
    """Some images of a batch, with the targets that a `kind` of model takes."""
    names = ("mask_labels", "class_labels") if kind == "maskformer" else ("labels",)
    return {name: batch[name][first : first + count] for name in ("pixel_values", *names)}


def steps(kind: str, rank: int = 0, processes: int = 1, accumulation: int = 1) -> dict[str, torch.Tensor]:
    """Losses and clipped gradients of every step, and the weights after all of them, by name."""
    model = build(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    parallel = DistributedDataParallel(model) if processes > 1 else model
    share = 8 // (processes * accumulation)
    results = {}
    for step in range(len(TARGETS)):
        first = rank * accumulation * share
        batch = global_batch(step)
        micro_batches = [part(batch, kind, first + index * share, share) for index in range(accumulation)]
        normalizers = model.loss_normalizers(micro_batches) if processes * accumulation > 1 else None
        total = 0.0
        for index, micro_batch in enumerate(micro_batches):
            waits = processes > 1 and index < accumulation - 1
            with parallel.no_sync() if waits else contextlib.nullcontext():
                loss = parallel(**micro_batch, normalizers=normalizers).loss
                loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        for name, parameter in model.named_parameters():
            results[f"gradient {step} {name}"] = parameter.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        if processes > 1:
            distributed.all_reduce(total)
        results[f"loss {step}"] = total / processes
    return results | {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


if __name__ == "__main__":
    RANK, PROCESSES, FOLDER = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    STORE = distributed.FileStore(str(FOLDER / "store"), PROCESSES)
    distributed.init_process_group("gloo", rank=RANK, world_size=PROCESSES, store=STORE)
    torch.save({kind: steps(kind, RANK, PROCESSES, 2) for kind in ("maskformer", "per_pixel")}, FOLDER / f"{RANK}.pt")
    distributed.destroy_process_group()
