"""Official state dicts to ours and back.

The two sides hold the same numbers. They differ in names, in the projections of attention, which are one `in_proj`
matrix on the official side, and in two constant buffers that only the official side keeps. Training writes the v2
layout; published files have the v1 layout, in which the pixel decoder's names lack their `pixel_decoder.`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig

from maskformer.modeling.configuration_maskformer import PerPixelBaselineConfig
from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentation
from maskformer.modeling.modeling_per_pixel_baseline import PerPixelBaselineForSemanticSegmentation
from maskformer.modeling.swin import NAME as SWIN_NAME
from maskformer.modeling.swin import architecture, relative_position_index

OUR_BACKBONE = "model.pixel_level_module.backbone."
OUR_PIXEL_DECODER = "model.pixel_level_module.pixel_decoder."
OUR_TRANSFORMER = "model.transformer_module."
OFFICIAL_HEAD = "sem_seg_head."
OFFICIAL_PIXEL_DECODER = OFFICIAL_HEAD + "pixel_decoder."
OFFICIAL_PREDICTOR = OFFICIAL_HEAD + "predictor."
CLASS_WEIGHTS = "criterion.empty_weight"
RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet101s": (3, 4, 23, 3)}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def module_names(config: PreTrainedConfig) -> dict[str, str]:
    """Official name of each module that holds weights, to ours.

    Raises `ValueError` for a backbone that the official code does not have.
    """
    return {**backbone_names(config), **pixel_decoder_names(config), **predictor_names(config)}


def backbone_names(config: PreTrainedConfig) -> dict[str, str]:
    """Names of the backbone's modules: detectron2's ResNets to timm's, Swin's to themselves."""
    name, changes = config.backbone, dict(config.backbone_kwargs or {})
    if name in RESNET_DEPTHS:
        names = resnet_names(changes.get("layers", RESNET_DEPTHS[name]), deep_stem=name.endswith("s"))
        return {f"backbone.{official}": f"{OUR_BACKBONE}model.{ours}" for official, ours in names.items()}
    if not SWIN_NAME.fullmatch(name):
        raise ValueError(f"the official code has no backbone {name!r}; it has {', '.join(RESNET_DEPTHS)} and swin_*")
    modules = ["patch_embed.proj", "patch_embed.norm", *(f"norm{stage}" for stage in range(4))]
    changes.pop("drop_path_rate", None)
    for stage, depth in enumerate(architecture(name, **changes)[1]):
        for block in range(depth):
            parts = ("norm1", "attn", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            modules += [f"layers.{stage}.blocks.{block}.{part}" for part in parts]
        if stage < 3:
            modules += [f"layers.{stage}.downsample.{part}" for part in ("norm", "reduction")]
    return {f"backbone.{module}": f"{OUR_BACKBONE}{module}" for module in modules}


def resnet_names(depths: tuple[int, ...], deep_stem: bool) -> dict[str, str]:
    """detectron2's names of a ResNet with bottleneck blocks, to timm's."""
    if deep_stem:
        stem = {"conv1": ("conv1.0", "conv1.1"), "conv2": ("conv1.3", "conv1.4"), "conv3": ("conv1.6", "bn1")}
    else:
        stem = {"conv1": ("conv1", "bn1")}
    names = {}
    for official, (conv, norm) in stem.items():
        names |= {f"stem.{official}": conv, f"stem.{official}.norm": norm}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            official, ours = f"res{stage + 2}.{block}", f"layer{stage + 1}.{block}"
            for conv in (1, 2, 3):
                names |= {f"{official}.conv{conv}": f"{ours}.conv{conv}"}
                names |= {f"{official}.conv{conv}.norm": f"{ours}.bn{conv}"}
            if block == 0:
                names |= {f"{official}.shortcut": f"{ours}.downsample.0"}
                names |= {f"{official}.shortcut.norm": f"{ours}.downsample.1"}
    return names


def pixel_decoder_names(config: PreTrainedConfig) -> dict[str, str]:
    """Names of the pixel decoder's modules."""
    names = {"mask_features": "mask_projection"}
    for level in range(4):
        names |= {f"layer_{level + 1}": f"outputs.{level}.0", f"layer_{level + 1}.norm": f"outputs.{level}.1"}
        if level < 3:
            names |= {f"adapter_{level + 1}": f"laterals.{level}.0", f"adapter_{level + 1}.norm": f"laterals.{level}.1"}
    if config.pixel_decoder_encoder_layers:
        names |= {"input_proj": "encoder_projection"}
        for layer in range(config.pixel_decoder_encoder_layers):
            residuals = {"norm1": "self_attention_residual.norm", "norm2": "feed_forward_residual.norm"}
            names |= layer_names(f"transformer.encoder.layers.{layer}", f"encoder.layers.{layer}", residuals)
        if config.pre_norm:
            names |= {"transformer.encoder.norm": "encoder.norm"}
    return {OFFICIAL_PIXEL_DECODER + official: OUR_PIXEL_DECODER + ours for official, ours in names.items()}


def predictor_names(config: PreTrainedConfig) -> dict[str, str]:
    """Names of the transformer decoder's and the heads' modules."""
    per_pixel = isinstance(config, PerPixelBaselineConfig)
    if per_pixel and not config.use_transformer_decoder:
        return {OFFICIAL_PREDICTOR.removesuffix("."): "segmentation_module.classifier"}
    names = {
        "query_embed": OUR_TRANSFORMER + "query_embeddings",
        "transformer.decoder.norm": OUR_TRANSFORMER + "norm",
        **{f"mask_embed.layers.{layer}": f"segmentation_module.mask_head.{2 * layer}" for layer in range(3)},
    }
    if not per_pixel:
        names |= {"class_embed": "segmentation_module.class_head"}
    if not config.pixel_decoder_encoder_layers or config.feature_size != config.hidden_size:
        names |= {"input_proj": OUR_TRANSFORMER + "input_projection"}
    residuals = {
        "norm1": "self_attention_residual.norm",
        "norm2": "cross_attention_residual.norm",
        "norm3": "feed_forward_residual.norm",
    }
    for layer in range(config.decoder_layers):
        official, ours = f"transformer.decoder.layers.{layer}", f"{OUR_TRANSFORMER}layers.{layer}"
        names |= layer_names(official, ours, residuals)
        names |= {f"{official}.multihead_attn": f"{ours}.cross_attention"}
        names |= {f"{official}.multihead_attn.out_proj": f"{ours}.cross_attention.out_proj"}
    return {OFFICIAL_PREDICTOR + official: ours for official, ours in names.items()}


def layer_names(official: str, ours: str, residuals: dict[str, str]) -> dict[str, str]:
    """What the layers of encoder and decoder share."""
    names = {f"{official}.{norm}": f"{ours}.{residual}" for norm, residual in residuals.items()}
    return names | {
        f"{official}.self_attn": f"{ours}.self_attention",
        f"{official}.self_attn.out_proj": f"{ours}.self_attention.out_proj",
        f"{official}.linear1": f"{ours}.feed_forward.0",
        f"{official}.linear2": f"{ours}.feed_forward.3",
    }


def from_official(state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """An official state dict, of the v1 or v2 layout, under our names; it loads strictly into the model of `config`.

    The constant buffers of the official side may be absent.
    Raises `ValueError`, naming them, if entries are left over, missing, or of another shape, and if constants differ.
    """
    state_dict = upgrade({key: torch.as_tensor(value) for key, value in state_dict.items()})
    ours = layout(config)
    theirs = rename(ours, config)
    check(state_dict, theirs, f"an official {describe_model(config)}")
    check_constants(state_dict, theirs)
    names, converted = module_names(config), {}
    for key, value in state_dict.items():
        module, leaf = key.rsplit(".", 1)
        if is_constant(key):
            continue
        if leaf.startswith("in_proj_"):
            for projection, part in zip(PROJECTIONS, value.chunk(3), strict=True):
                converted[f"{names[module]}.{projection}.{leaf.removeprefix('in_proj_')}"] = part.clone()
        else:
            converted[f"{names[module]}.{leaf}"] = value
    # Batch norm that is not frozen counts its steps; the official one is always frozen.
    counters = {name: torch.zeros((), dtype=torch.int64) for name in ours if name.endswith("num_batches_tracked")}
    return converted | counters


def upgrade(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state_dict` in the v2 layout. It is of the v1 layout if no name has `pixel_decoder.`: v2's all do."""
    if any(key.startswith(OFFICIAL_PIXEL_DECODER) for key in state_dict):
        return state_dict
    return {
        OFFICIAL_PIXEL_DECODER + key.removeprefix(OFFICIAL_HEAD)
        if key.startswith(OFFICIAL_HEAD) and not key.startswith(OFFICIAL_PREDICTOR)
        else key: value
        for key, value in state_dict.items()
    }


def layout(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Our state dict for `config`, without numbers: tensors of the meta device."""
    per_pixel = isinstance(config, PerPixelBaselineConfig)
    model = PerPixelBaselineForSemanticSegmentation if per_pixel else MaskFormerForUniversalSegmentation
    with torch.device("meta"):
        return model(copy.deepcopy(config)).state_dict()


def is_constant(key: str) -> bool:
    """Whether the official entry `key` is a buffer that the model computes."""
    return key == CLASS_WEIGHTS or key.endswith(".relative_position_index")


def check(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], owner: str) -> None:
    """Raises `ValueError` where the entries `given` are not those `wanted` of `owner`, in names and shapes."""
    left_over = [f"{key} {tuple(value.shape)}" for key, value in given.items() if key not in wanted]
    missing = [
        f"{key} {tuple(value.shape)}" for key, value in wanted.items() if key not in given and not is_constant(key)
    ]
    both = {key: (value, wanted[key]) for key, value in given.items() if key in wanted}
    wrong = [
        f"{key} is {tuple(value.shape)}, not {tuple(like.shape)}"
        for key, (value, like) in both.items()
        if value.shape != like.shape
    ]
    if left_over or missing or wrong:
        raise ValueError(
            f"these are not the weights of {owner}: {describe(left_over)} left over, {describe(missing)} missing"
            + (f"; {describe(wrong)}" if wrong else "")
        )


def check_constants(given: Mapping[str, torch.Tensor], computed: Mapping[str, torch.Tensor]) -> None:
    """Raises `ValueError` where a constant buffer in `given` is not what is `computed`, in the coarser precision."""
    wrong = []
    for key in filter(is_constant, given):
        dtype = min(given[key].dtype, computed[key].dtype, key=lambda dtype: dtype.itemsize)
        if not torch.equal(given[key].to(dtype), computed[key].to(dtype)):
            wrong.append(key)
    if wrong:
        raise ValueError(f"these constants are not those of this configuration: {describe(wrong)}")


def to_official(state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Our state dict under the official names (v2 layout), the official side's constant buffers included.

    It states the version of its layout where `load_state_dict` looks for it: without, the official head renames all
    entries as if they were of the v1 layout.
    Raises `ValueError`, naming them, if entries are left over, missing, or of another shape.
    """
    check(state_dict, layout(config), f"a {describe_model(config)}")
    return rename(state_dict, config)


def rename(state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """What `to_official` gives, for entries that are known to be complete."""
    names = {ours: official for official, ours in module_names(config).items()}
    converted = {}
    for key, value in state_dict.items():
        module, leaf = key.rsplit(".", 1)
        parent, _, child = module.rpartition(".")
        if child in PROJECTIONS and parent in names:
            if child == PROJECTIONS[0]:
                parts = [state_dict[f"{parent}.{projection}.{leaf}"] for projection in PROJECTIONS]
                converted[f"{names[parent]}.in_proj_{leaf}"] = torch.cat(parts)
        elif leaf != "num_batches_tracked":
            converted[f"{names[module]}.{leaf}"] = value
            if leaf == "relative_position_bias_table":
                window = (round(len(value) ** 0.5) + 1) // 2
                converted[f"{names[module]}.relative_position_index"] = relative_position_index(window)
    if not isinstance(config, PerPixelBaselineConfig):
        converted[CLASS_WEIGHTS] = torch.ones(config.num_labels + 1)
        converted[CLASS_WEIGHTS][-1] = config.no_object_weight
    versioned = OrderedDict(converted)
    versioned._metadata = {OFFICIAL_HEAD.removesuffix("."): {"version": 2}}
    return versioned


def describe_model(config: PreTrainedConfig) -> str:
    """The kind of model that `config` stands for."""
    return f"{config.model_type} with {config.backbone} and {config.num_labels} labels"


def describe(names: list[str]) -> str:
    """A few of `names`, and how many there are."""
    if not names:
        return "nothing"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
