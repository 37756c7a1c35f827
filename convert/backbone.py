"""Pre-trained weights for a backbone, from a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

from maskformer.modeling.backbone import TimmBackbone


def load_backbone_weights(model, path: str) -> None:
    """Fills the backbone of `model` from `path`, a `.safetensors` or `.pth` file with the weights of its timm model.

    `package:NAME/PATH` is the file PATH inside the installed package NAME. Entries may have timm's names, or others if
    all stand in timm's order and have its shapes; those of the classifier are left out.

    Raises `ValueError` where the file is missing, cannot be read, or does not hold this backbone.
    """
    backbone = model.model.pixel_level_module.backbone
    if not isinstance(backbone, TimmBackbone):
        raise ValueError(f"weights can be loaded into timm's backbones only, not into {model.config.backbone!r}")
    given = drop_counters(read_tensors(resolve_path(path)))
    wanted = drop_counters(backbone.model.state_dict())
    if not set(wanted) <= set(given):
        given = rename_by_order(given, model.config.backbone, path)
    problems = [
        f"{name} is missing" if name not in given else f"{name} is {tuple(given[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name not in given or given[name].shape != value.shape
    ]
    if problems:
        raise ValueError(f"{path}: these are not the weights of {model.config.backbone!r}: {problems[0]}")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(given[name])


def drop_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` without batch norm's step counters, which frozen ones lack."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def rename_by_order(given: dict[str, torch.Tensor], name: str, path: str) -> dict[str, torch.Tensor]:
    """`given` under the names of the whole timm model, whose order and shapes it must have."""
    with torch.device("meta"):
        whole = drop_counters(timm.create_model(name, pretrained=False).state_dict())
    if [value.shape for value in whole.values()] != [value.shape for value in given.values()]:
        raise ValueError(f"{path}: neither the names nor the shapes are those of {name!r}")
    return dict(zip(whole, given.values(), strict=True))


def resolve_path(path: str) -> Path:
    """The file that `path` names."""
    if not path.startswith("package:"):
        return Path(path)
    package, _, inside = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(f'{path}: the package {package!r} is not installed; pip install ".[demo]" brings the demo\'s')
    return Path(spec.submodule_search_locations[0]) / inside


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, whose pickle may hold tensors and plain containers only."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: not a readable file of weights ({str(error).splitlines()[0]})") from error
    for key in ("model", "state_dict"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{path}: a file of weights maps names to tensors")
    return content
