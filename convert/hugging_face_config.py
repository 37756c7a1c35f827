"""Configurations and image processors of transformers' MaskFormer to ours and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import MaskFormerConfig, PreTrainedConfig
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from maskformer.image_processing.image_processing_maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.modeling.swin import NAME as SWIN_NAME
from maskformer.modeling.swin import VARIANTS, architecture

STAGES = ["stage1", "stage2", "stage3", "stage4"]
# timm's plain ResNets: kind of block and blocks of each stage.
RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet26": ("bottleneck", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
CHANNELS = (64, 128, 256, 512)
EXPANSION = {"basic": 1, "bottleneck": 4}
# What ours cannot vary.
FIXED_SWIN = {
    "patch_size": 4,
    "num_channels": 3,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
}
FIXED_RESNET = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "out_features": STAGES,
}
FIXED_DECODER = {"model_type": "detr", "activation_function": "relu", "decoder_layerdrop": 0.0}
FIXED_OURS = {"pixel_decoder_encoder_layers": 0, "pre_norm": False, "decoder_stride": 32}
# Ours to transformers'; the values are the same.
NETWORK = {
    "feature_size": "fpn_feature_size",
    "mask_feature_size": "mask_feature_size",
    "class_weight": "cross_entropy_weight",
    "mask_weight": "mask_weight",
    "dice_weight": "dice_weight",
    "no_object_weight": "no_object_weight",
}
DECODER = {
    "hidden_size": "d_model",
    "num_attention_heads": "decoder_attention_heads",
    "intermediate_size": "decoder_ffn_dim",
    "decoder_layers": "decoder_layers",
    "num_queries": "num_queries",
    "dropout": "dropout",
}
PROCESSOR = (
    *("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("size_divisor", "ignore_index", "do_reduce_labels", "num_labels"),
)


def require(values: PreTrainedConfig, fixed: Mapping[str, Any], owner: str, other: str) -> None:
    """Raises `ValueError`, naming them, where fields of `values` differ from those that `other` can express."""
    wrong = [
        f"{owner}{name} {getattr(values, name)!r} (only {value!r})"
        for name, value in fixed.items()
        if getattr(values, name) != value
    ]
    if wrong:
        raise ValueError(f"{other} cannot express {', '.join(wrong)}")


def config_from_transformers(theirs: MaskFormerConfig) -> MaskFormerUniversalConfig:
    """Our configuration for transformers'.

    Batch norm stays trainable, as it is there; ours has one `dropout`, theirs of the residuals; auxiliary losses, which
    do not work there, are on. Raises `ValueError` for what ours cannot express.
    """
    require(theirs.decoder_config, FIXED_DECODER, "decoder_config.", "this project")
    kind = theirs.backbone_config.model_type
    if kind in ("swin", "maskformer-swin"):
        backbone = swin_from_transformers(theirs.backbone_config)
    elif kind == "resnet":
        backbone = resnet_from_transformers(theirs.backbone_config)
    else:
        raise ValueError(f"only Swin and ResNet backbones are converted, not {kind!r}")
    fields = {ours: getattr(theirs, name) for ours, name in NETWORK.items()}
    fields |= {ours: getattr(theirs.decoder_config, name) for ours, name in DECODER.items()}
    try:
        return MaskFormerUniversalConfig(
            **fields, **backbone, freeze_batch_norm=False, id2label=theirs.id2label, label2id=theirs.label2id
        )
    except Exception as error:  # the strict dataclasses of huggingface_hub raise classes of their own
        raise ValueError(f"this project cannot express this configuration: {' '.join(str(error).split())}") from error


def swin_from_transformers(theirs: PreTrainedConfig) -> dict[str, Any]:
    """`backbone` and `backbone_kwargs` for a Swin."""
    require(theirs, FIXED_SWIN, "backbone_config.", "this project")
    if theirs.model_type == "maskformer-swin" and theirs.out_features != STAGES:
        raise ValueError(f"this project cannot express backbone_config.out_features {theirs.out_features}")
    shape = (theirs.embed_dim, tuple(theirs.depths), tuple(theirs.num_heads))
    size = theirs.image_size if isinstance(theirs.image_size, int) else theirs.image_size[0]
    known = [variant for variant, values in VARIANTS.items() if values == shape]
    name = f"swin_{known[0] if known else 'tiny'}_patch4_window{theirs.window_size}_{size}"
    kwargs: dict[str, Any] = {"drop_path_rate": theirs.drop_path_rate}
    if not known:
        kwargs |= {"embed_dim": shape[0], "depths": list(shape[1]), "num_heads": list(shape[2])}
    return {"backbone": name, "backbone_kwargs": kwargs}


def resnet_from_transformers(theirs: PreTrainedConfig) -> dict[str, Any]:
    """`backbone` and `backbone_kwargs` for a ResNet."""
    require(theirs, FIXED_RESNET, "backbone_config.", "this project")
    depths, expansion = tuple(theirs.depths), EXPANSION[theirs.layer_type]
    known = [name for name, values in RESNETS.items() if values == (theirs.layer_type, depths)]
    kwargs: dict[str, Any] = {} if known else {"layers": list(depths)}
    channels = tuple(size // expansion for size in theirs.hidden_sizes)
    if channels != CHANNELS:
        kwargs["channels"] = list(channels)
    fallback = "resnet18" if theirs.layer_type == "basic" else "resnet50"
    return {"backbone": known[0] if known else fallback, "backbone_kwargs": kwargs or None}


def config_to_transformers(ours: PreTrainedConfig) -> MaskFormerConfig:
    """transformers' configuration for ours. Raises `ValueError` for what transformers' cannot express."""
    other = "transformers' MaskFormer"
    if isinstance(ours, PerPixelBaselineConfig):
        raise ValueError(f"{other} cannot express a per-pixel baseline")
    require(ours, FIXED_OURS, "", other)
    kwargs = dict(ours.backbone_kwargs or {})
    if SWIN_NAME.fullmatch(ours.backbone):
        backbone = swin_to_transformers(ours.backbone, kwargs)
    elif ours.backbone in RESNETS:
        backbone = resnet_to_transformers(ours.backbone, kwargs)
    else:
        raise ValueError(f"{other} cannot express the backbone {ours.backbone!r}; it has plain ResNets and Swin")
    decoder = {name: getattr(ours, our_name) for our_name, name in DECODER.items()}
    decoder |= {"model_type": "detr", "attention_dropout": ours.dropout, "activation_dropout": ours.dropout}
    network = {name: float(getattr(ours, our_name)) for our_name, name in NETWORK.items() if "weight" in name}
    network |= {name: getattr(ours, our_name) for our_name, name in NETWORK.items() if "weight" not in name}
    return MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, **network, id2label=ours.id2label, label2id=ours.label2id
    )


def swin_to_transformers(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """A backbone configuration of transformers for a Swin."""
    drop_path_rate = kwargs.pop("drop_path_rate", 0.0)
    embed_dim, depths, num_heads, window_size = architecture(name, **kwargs)
    return {
        "model_type": "swin",
        "embed_dim": embed_dim,
        "depths": list(depths),
        "num_heads": list(num_heads),
        "window_size": window_size,
        "image_size": int(name.partition(".")[0].rpartition("_")[2]),
        "drop_path_rate": drop_path_rate,
        "out_features": STAGES,
    }


def resnet_to_transformers(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """A backbone configuration of transformers for a ResNet."""
    layer_type, depths = RESNETS[name]
    depths, channels = kwargs.pop("layers", depths), kwargs.pop("channels", CHANNELS)
    if kwargs:
        raise ValueError(f"transformers' MaskFormer cannot express a {name} with {kwargs}")
    return {
        "model_type": "resnet",
        "layer_type": layer_type,
        "depths": list(depths),
        "hidden_sizes": [EXPANSION[layer_type] * count for count in channels],
        "out_features": STAGES,
    }


def processor_from_transformers(theirs: MaskFormerImageProcessorPil) -> MaskFormerUniversalImageProcessorPil:
    """Our image processor for transformers'. Theirs distorts images to multiples of `size_divisor`, ours pads them."""
    return MaskFormerUniversalImageProcessorPil(**{name: getattr(theirs, name, None) for name in PROCESSOR})


def processor_to_transformers(ours: MaskFormerUniversalImageProcessorPil) -> MaskFormerImageProcessorPil:
    """transformers' image processor for ours; it has no place for `label_ids_to_fuse` and `resize_masks_first`."""
    return MaskFormerImageProcessorPil(**{name: getattr(ours, name) for name in PROCESSOR})
