"""Pre-trained weights for a backbone, in the layouts that they are published in.

ResNets: timm's names (torchvision's are the same) and detectron2's. Swin: the original names, which are ours, and
timm's. Other timm models: timm's names, or other modules' names in timm's order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from maskformer.convert.official import RESNET_DEPTHS, describe, resnet_names
from maskformer.convert.weights import find_weights, read_weights
from maskformer.modeling.backbone import TimmBackbone
from maskformer.modeling.swin import SwinBackbone

# What a backbone has no use for: classifiers, the norm before them, and buffers that are computed.
CLASSIFIERS = re.compile(r"(stem\.)?(fc|linear|head|head\.fc|norm)\.(weight|bias)")
BUFFERS = re.compile(r".*\.(num_batches_tracked|attn_mask|relative_position_index)")
# The norms of Swin's four maps: ImageNet models lack them, the official training starts them anew.
OUTPUT_NORMS = re.compile(r"norm[0-3]\.(weight|bias)")
# Changes of a backbone that a whole timm model does not know.
FEATURES_ONLY = {"multi_grid", "out_indices"}
TIMM_MERGING = re.compile(r"layers\.([1-3])\.downsample\.")


def load_backbone_weights(model, path: str) -> None:
    """Fills the backbone of `model` with the weights that `path` names.

    `path` is a file (detectron2's `.pkl`, `.pth` of torchvision, timm or Swin, safetensors), `package:NAME/PATH` inside
    an installed package, or `timm/NAME` on the Hub. Classifiers are left out; nothing is resized.

    Raises `ValueError`, naming what does not fit, where the file cannot be read or does not hold this backbone; the
    model is unchanged then.
    """
    backbone = model.model.pixel_level_module.backbone
    try:
        found = match_names(backbone, model.config, without_buffers(read_weights(find_weights(path))))
    except ValueError as error:
        message = str(error) if str(error).startswith(path) else f"{path}: {error}"
        raise ValueError(message) from error
    with torch.no_grad():
        for name, value in backbone_state(backbone).items():
            if name in found:
                value.copy_(found[name])


def save_backbone_weights(model, path: Path) -> None:
    """Writes the backbone of `model` as safetensors, under the names that `load_backbone_weights` reads."""
    state = backbone_state(model.model.pixel_level_module.backbone)
    save_file({name: value.contiguous() for name, value in state.items()}, path, {"format": "pt"})


def backbone_state(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of `backbone`, without computed buffers: ResNets and others by timm's names, Swin by its own."""
    module = backbone.model if isinstance(backbone, TimmBackbone) else backbone
    return without_buffers(module.state_dict())


def without_buffers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` without buffers that are computed."""
    return {key: value for key, value in state.items() if not BUFFERS.fullmatch(key)}


def match_names(backbone: nn.Module, config, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`given` under the names of `backbone_state`, whichever layout it is in.

    Raises `ValueError` where it does not fit, by the layout that comes nearest.
    """
    wanted, optional = backbone_state(backbone), None
    if isinstance(backbone, SwinBackbone):
        candidates, optional = [given, from_timm_swin(given)], OUTPUT_NORMS
    else:
        whole = whole_timm_state(config)
        candidates = [from_whole_timm(given, wanted, whole)]
        if config.backbone in RESNET_DEPTHS:
            candidates.append(from_detectron2(given, config))
        if kinds(given) == kinds(whole):
            candidates.append(from_whole_timm(dict(zip(whole, given.values(), strict=True)), wanted, whole))
    problems = [problems_of(candidate, wanted, optional) for candidate in candidates]
    best = min(range(len(candidates)), key=lambda index: len(problems[index]))
    if problems[best]:
        raise ValueError(f"these are not the weights of {config.backbone!r}: {describe(problems[best])}")
    return candidates[best]


def whole_timm_state(config) -> dict[str, torch.Tensor]:
    """Names and shapes of the whole timm model that the backbone of `config` is a part of."""
    changes = {key: value for key, value in (config.backbone_kwargs or {}).items() if key not in FEATURES_ONLY}
    with torch.device("meta"):
        return without_buffers(timm.create_model(config.backbone, pretrained=False, **changes).state_dict())


def kinds(state: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Size]]:
    """What each entry of `state` is (`weight`, `bias`, `running_mean`, ...) and its shape, in order.

    Shapes alone would let the mean and the variance of a normalisation change places.
    """
    return [(key.rpartition(".")[2], value.shape) for key, value in state.items()]


def problems_of(given: Mapping, wanted: Mapping, optional: re.Pattern | None) -> list[str]:
    """What is missing in `given`, left over, or of another shape."""
    missing = [f"{key} is missing" for key in wanted if key not in given and not (optional and optional.fullmatch(key))]
    left_over = [f"{key} is left over" for key in given if key not in wanted and not CLASSIFIERS.fullmatch(key)]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    return missing + left_over + shapes


def from_detectron2(given: dict[str, torch.Tensor], config) -> dict[str, torch.Tensor]:
    """A ResNet's weights under timm's names instead of detectron2's."""
    depths = (config.backbone_kwargs or {}).get("layers", RESNET_DEPTHS[config.backbone])
    names = resnet_names(depths, deep_stem=config.backbone.endswith("s"))
    renamed = {}
    for key, value in given.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{names[module]}.{leaf}" if module in names else key] = value
    return renamed


def from_timm_swin(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Swin's weights under the original names: timm counts the merging of patches to the stage after it."""
    return {
        TIMM_MERGING.sub(lambda match: f"layers.{int(match[1]) - 1}.downsample.", key): value
        for key, value in given.items()
    }


def from_whole_timm(given: dict[str, torch.Tensor], wanted: Iterable[str], whole: Iterable[str]) -> dict:
    """A whole timm model's weights under the names of its `features_only` form, in which some dots are underscores.

    What only the whole model has (classifier, last convolution, pooling) is left out.
    """
    wanted = set(wanted)
    flat = {key.removeprefix("model.").replace(".", "_"): key for key in wanted}
    renamed = {flat.get(key.replace(".", "_"), key): value for key, value in given.items()}
    return {key: value for key, value in renamed.items() if key in wanted or key not in whole}
