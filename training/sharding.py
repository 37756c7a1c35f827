"""Weights and optimiser state as wholes, however a model is wrapped (DDP) or sharded (FSDP) over processes.

Every process of a job must call these functions together.
"""

from __future__ import annotations

import copy

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether the parameters of `model` are spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole_model(model: torch.nn.Module) -> torch.nn.Module:
    """`model` itself, or a copy of a sharded one with whole weights on its device, which each process can use alone."""
    if not is_sharded(model):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    whole = type(model)(copy.deepcopy(model.config)).to(model.device, model.dtype)
    whole.load_state_dict(weights)
    return whole


def optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """The state of `optimizer` by the names of the parameters of `model`, whole; of a sharded one on the CPU."""
    sharded = is_sharded(model)
    options = StateDictOptions(full_state_dict=sharded, cpu_offload=sharded)
    return get_optimizer_state_dict(model, unwrapped(optimizer), options=options)


def restore_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Fills `optimizer` from a saved state, but keeps its own rates and decays, which may have been changed since."""
    optimizer = unwrapped(optimizer)
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=is_sharded(model)))
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser of PyTorch inside one of accelerate."""
    return getattr(optimizer, "optimizer", optimizer)
