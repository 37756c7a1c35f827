"""Which recipe official weights belong to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig

from maskformer.convert.official import check, is_constant, layout, module_names, rename, upgrade
from maskformer.recipes import Recipe, list_recipes, load_recipe


def infer_recipe(state_dict: Mapping[str, torch.Tensor]) -> Recipe:
    """The recipe whose model has exactly the names and shapes of the official `state_dict`, of either layout.

    Raises `ValueError` if several have, naming them, and if none has, naming the nearest and what differs.
    """
    given = upgrade(dict(state_dict))
    modules = {key.rpartition(".")[0] for key in given if not is_constant(key)}
    fitting, nearest, distance = [], None, float("inf")
    for recipe, config, names in official_recipes():
        if len(modules ^ names) < distance:
            nearest, distance = recipe, len(modules ^ names)
        if modules == names and difference(given, config) is None:
            fitting.append(recipe)
            nearest, distance = recipe, -1
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"the weights fit several recipes, give one by --recipe: {', '.join(r.name for r in fitting)}")
    # Among recipes of one network those differ by shapes; one that has the most shapes right is the nearest.
    alike = [(r, c) for r, c, names in official_recipes() if len(modules ^ names) == distance]
    nearest, config = min(alike, key=lambda pair: wrong_shapes(given, pair[1]))
    raise ValueError(f"the weights fit no recipe; the nearest is {nearest.name}: {difference(given, config)}")


def official_recipes() -> list[tuple[Recipe, PreTrainedConfig, set[str]]]:
    """The recipes that have a label set and a backbone of the official code, with configuration and module names."""
    found = []
    for name in list_recipes():
        recipe = load_recipe(name)
        if recipe.labels is None:
            continue
        config = recipe.build_config()
        try:
            found.append((recipe, config, set(module_names(config))))
        except ValueError:  # a backbone that the official code lacks
            continue
    return found


def difference(given: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> str | None:
    """What keeps `given` (v2 layout) from being weights of `config`; None where nothing does."""
    try:
        check(given, rename(layout(config), config), "its model")
    except ValueError as error:
        return str(error)
    return None


def wrong_shapes(given: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> int:
    """How many entries of `given` are not those of `config`, by name or shape."""
    wanted = rename(layout(config), config)
    return sum(key not in wanted or wanted[key].shape != value.shape for key, value in given.items())
