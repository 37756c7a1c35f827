"""State dicts of transformers' MaskFormer to ours and back.

The two sides hold the same numbers under other names; Swin's queries, keys and values are one matrix here and three
there. Only there exist constant buffers, batch norm's counters where ours is frozen, and a norm that is never used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, PreTrainedConfig

from maskformer.convert.hugging_face_config import config_from_transformers, config_to_transformers
from maskformer.convert.official import check, check_constants, describe_model, is_constant, layout
from maskformer.modeling.swin import relative_position_index

ENCODER = "model.pixel_level_module.encoder."
DECODER = "model.pixel_level_module.decoder."
TRANSFORMER = "model.transformer_module."
UNUSED = f"{ENCODER}model.layernorm."  # Swin's last norm as a classifier
PARTS = ("query", "key", "value")

BACKBONE = r"^model\.pixel_level_module\.backbone\."
PYRAMID = r"^model\.pixel_level_module\.pixel_decoder\."
# Our names to transformers', one substitution after the other.
RULES = [
    # Swin
    (BACKBONE + r"patch_embed\.proj\.", f"{ENCODER}model.embeddings.patch_embeddings.projection."),
    (BACKBONE + r"patch_embed\.norm\.", f"{ENCODER}model.embeddings.norm."),
    (BACKBONE + r"norm(\d)\.", rf"{ENCODER}hidden_states_norms.\1."),
    (BACKBONE + r"layers\.", f"{ENCODER}model.encoder.layers."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(blocks\.\d+)\.attn\.", r"\1.attention.self."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    # ResNet
    (BACKBONE + r"model\.conv1\.", f"{ENCODER}embedder.embedder.convolution."),
    (BACKBONE + r"model\.bn1\.", f"{ENCODER}embedder.embedder.normalization."),
    (
        BACKBONE + r"model\.layer(\d)\.(\d+)\.",
        lambda match: f"{ENCODER}encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.",
    ),
    (r"(stages\.\d+\.layers\.\d+)\.conv(\d)\.", lambda match: f"{match[1]}.layer.{int(match[2]) - 1}.convolution."),
    (r"(stages\.\d+\.layers\.\d+)\.bn(\d)\.", lambda match: f"{match[1]}.layer.{int(match[2]) - 1}.normalization."),
    (r"(stages\.\d+\.layers\.\d+)\.downsample\.0\.", r"\1.shortcut.convolution."),
    (r"(stages\.\d+\.layers\.\d+)\.downsample\.1\.", r"\1.shortcut.normalization."),
    # Pixel decoder: levels count from fine to coarse here, from coarse to fine there
    (PYRAMID + r"outputs\.3\.", f"{DECODER}fpn.stem."),
    (PYRAMID + r"outputs\.(\d)\.", lambda match: f"{DECODER}fpn.layers.{2 - int(match[1])}.block."),
    (PYRAMID + r"laterals\.(\d)\.", lambda match: f"{DECODER}fpn.layers.{2 - int(match[1])}.proj."),
    (PYRAMID, DECODER),
    # Transformer decoder
    (r"^(model\.transformer_module)\.query_embeddings\.", r"\1.queries_embedder."),
    (r"^(model\.transformer_module)\.(layers|norm)\.", r"\1.decoder.\2."),
    (r"^(model\.transformer_module\.decoder)\.norm\.", r"\1.layernorm."),
    (r"\.self_attention_residual\.norm\.", ".self_attn_layer_norm."),
    (r"\.cross_attention_residual\.norm\.", ".encoder_attn_layer_norm."),
    (r"\.feed_forward_residual\.norm\.", ".final_layer_norm."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.cross_attention\.", ".encoder_attn."),
    (r"_attn\.out_proj\.", "_attn.o_proj."),
    (r"\.feed_forward\.0\.", ".mlp.fc1."),
    (r"\.feed_forward\.3\.", ".mlp.fc2."),
    # Heads
    (r"^segmentation_module\.class_head\.", "class_predictor."),
    (r"^segmentation_module\.mask_head\.(\d)\.", lambda match: f"mask_embedder.{int(match[1]) // 2}.0."),
]
# Names in files to those of the loaded model, since transformers 5.
FILE_RULES = [
    (r"^(model\.transformer_module\.decoder\.layers\.\d+)\.fc(\d)\.", r"\1.mlp.fc\2."),
    (r"^(model\.transformer_module\.decoder\.layers\.\d+\.(?:self|encoder)_attn)\.out_proj\.", r"\1.o_proj."),
]


def substitute(name: str, rules: list[tuple]) -> str:
    """`name` after all `rules`."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def their_names(name: str) -> list[str]:
    """transformers' names for our entry `name`: three for Swin's `qkv`, one for all others."""
    theirs = substitute(name, RULES)
    if ".attention.self.qkv." in theirs:
        return [theirs.replace(".qkv.", f".{part}.") for part in PARTS]
    return [theirs]


def their_layout(config: MaskFormerConfig) -> dict[str, torch.Tensor]:
    """transformers' state dict for `config`, without numbers: tensors of the meta device."""
    with torch.device("meta"):
        return MaskFormerForInstanceSegmentation(config).state_dict()


def from_transformers(state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The state dict of a `MaskFormerForInstanceSegmentation`, or of its file, under our names; it loads strictly.

    `config` is the configuration of either side. What nothing computes with is left out: constant buffers, Swin's last
    norm as a classifier, and batch norm's counters where `freeze_batch_norm` is set.
    Raises `ValueError` for configurations that the other side cannot express, and where entries, which are named, are
    left over, missing, or of another shape.
    """
    config = config_from_transformers(config) if isinstance(config, MaskFormerConfig) else config
    state_dict = {substitute(name, FILE_RULES): value for name, value in state_dict.items()}
    their_config = config_to_transformers(config)
    check(state_dict, their_layout(their_config), f"transformers' MaskFormer with {config.backbone}")
    constants = {name: value for name, value in state_dict.items() if is_constant(name)}
    check_constants(constants, {k: constant(k, v, their_config, torch.float32) for k, v in constants.items()})
    converted = {}
    for name in layout(config):
        parts = [state_dict[theirs] for theirs in their_names(name)]
        converted[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return converted


def dropped(state_dict: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the entries of transformers' `state_dict` that `to_transformers` does not give back with their numbers:
    Swin's last norm as a classifier, which nothing uses, where it is not the identity."""
    return [
        name
        for name, value in state_dict.items()
        if name.startswith(UNUSED) and not (value == float(name.endswith("weight"))).all()
    ]


def to_transformers(state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Our state dict as `MaskFormerForInstanceSegmentation` has it, complete; `config` is ours.

    Raises `ValueError` as `from_transformers` does.
    """
    their_config = config_to_transformers(config)
    check(state_dict, layout(config), f"a {describe_model(config)}")
    converted = {}
    for name, value in state_dict.items():
        theirs = their_names(name)
        converted |= dict(zip(theirs, value.chunk(3) if len(theirs) > 1 else [value], strict=True))
    dtype = state_dict["segmentation_module.class_head.weight"].dtype
    return {
        name: converted[name].contiguous() if name in converted else constant(name, like, their_config, dtype)
        for name, like in their_layout(their_config).items()
    }


def constant(name: str, like: torch.Tensor, config: MaskFormerConfig, dtype: torch.dtype) -> torch.Tensor:
    """The value of an entry that only transformers has."""
    if name.endswith(".num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith(".relative_position_index"):
        return relative_position_index(round(len(like) ** 0.5))
    if is_constant(name):
        weights = torch.ones(like.shape)
        weights[-1] = config.no_object_weight
        return weights.to(dtype)
    if name.startswith(UNUSED):
        return torch.full(like.shape, float(name.endswith("weight")), dtype=dtype)
    raise ValueError(f"transformers' MaskFormer needs {name}, which this project has not")
