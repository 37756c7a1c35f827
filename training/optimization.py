"""AdamW's parameter groups and the learning rate of each step, as in the official code."""

from __future__ import annotations

import torch
from torch import nn

from maskformer.recipes.arguments import TrainingArguments

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def build_optimizer(model: nn.Module, arguments: TrainingArguments) -> torch.optim.AdamW:
    """AdamW over the parameters that learn; each group's peak learning rate is its `initial_lr`.

    The backbone learns at `backbone_multiplier` times the rate; normalisations, embeddings and relative position biases
    do not decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            in_backbone = "backbone" in module_name.split(".")
            undecayed = isinstance(module, (*NORMS, nn.Embedding)) or name == "relative_position_bias_table"
            groups.setdefault((in_backbone, undecayed), []).append(parameter)
    settings = []
    for (in_backbone, undecayed), parameters in groups.items():
        rate = arguments.learning_rate * (arguments.backbone_multiplier if in_backbone else 1.0)
        decay = 0.0 if undecayed else arguments.weight_decay
        settings.append({"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(settings, fused=True)


def learning_rate_factor(step: int, progress: float, arguments: TrainingArguments) -> float:
    """Share of the peak learning rate at `step`, when the share `progress` (0 to 1) of the run is done.

    Where a budget of minutes ends the run earlier, decays come as much earlier.
    """
    if arguments.decay_steps:
        factor = arguments.decay_factor ** sum(
            progress >= decay / arguments.max_steps for decay in arguments.decay_steps
        )
    else:
        factor = (1.0 - min(progress, 1.0)) ** arguments.poly_power
    if step < arguments.warmup_steps:
        share = step / arguments.warmup_steps
        factor *= arguments.warmup_factor * (1 - share) + share
    return factor


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Sets every group to `factor` times its peak; returns the largest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(group["lr"] for group in optimizer.param_groups)
