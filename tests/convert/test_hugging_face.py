"""transformers' MaskFormer to ours and back: same logits, same bytes, and what cannot be expressed is named."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.convert import from_transformers, to_transformers
from maskformer.convert.hugging_face import dropped
from maskformer.convert.hugging_face_config import (
    config_from_transformers,
    config_to_transformers,
    processor_from_transformers,
    processor_to_transformers,
)

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
RESNET = {"model_type": "resnet", "depths": [1, 2, 1, 1], "hidden_sizes": [32, 64, 64, 128], "out_features": STAGES}
BASIC = RESNET | {"layer_type": "basic", "hidden_sizes": [64, 64, 32, 32]}
BACKBONES = {"swin": SWIN, "resnet": RESNET, "basic resnet": BASIC}
FULL = {
    "swin base": {
        **{"model_type": "swin", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
        **{"window_size": 12, "image_size": 384, "drop_path_rate": 0.3},
    },
    "resnet50": {"model_type": "resnet", "out_features": STAGES},
}
DECODER = {
    "model_type": "detr",
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_attention_heads": 4,
    "num_queries": 5,
}
TINY = {"fpn_feature_size": 32, "mask_feature_size": 16, "num_labels": 3}
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def their_model(backbone: dict, decoder: dict = DECODER, **fields) -> MaskFormerForInstanceSegmentation:
    """A MaskFormer of transformers with random weights, norms and statistics included."""
    config = MaskFormerConfig(
        backbone_config=dict(backbone), decoder_config=dict(decoder), **(TINY if decoder is DECODER else {}) | fields
    )
    model = MaskFormerForInstanceSegmentation(config).eval()
    numbers = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or "empty_weight" in name or ".model.layernorm." in name:
            continue
        noise = torch.randn(value.shape, generator=numbers)
        if "running_var" in name:
            value.copy_(1 + noise.abs())
        elif value.ndim < 2:
            value.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    return model


def check_both_ways(theirs: MaskFormerForInstanceSegmentation, dtype: torch.dtype, sizes) -> None:
    """Same logits after the conversion, same entries, order, types and bytes after the way back."""
    theirs = theirs.to(dtype)
    state = theirs.state_dict()
    config = config_from_transformers(theirs.config)
    ours = MaskFormerForUniversalSegmentation(config).to(dtype).eval()
    ours.load_state_dict(from_transformers(state, config), strict=True)
    for size in sizes:
        pixel_values = torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            before, after = theirs(pixel_values), ours(pixel_values)
        for name in ("class_queries_logits", "masks_queries_logits"):
            largest = before[name].abs().max()
            assert largest > 0.1
            assert (after[name] - before[name]).abs().max() <= TOLERANCES[dtype] * largest
    back = to_transformers(ours.state_dict(), config)
    assert list(back) == list(state)
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", BACKBONES)
def test_same_logits_and_same_bytes(kind, dtype):
    check_both_ways(their_model(BACKBONES[kind]), dtype, [(64, 96), (75, 101)])


@pytest.mark.parity
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", FULL)
def test_same_logits_and_same_bytes_at_full_width(kind, dtype):
    check_both_ways(their_model(FULL[kind], {"model_type": "detr"}, num_labels=150), dtype, [(128, 170)])


@pytest.mark.parametrize("kind", BACKBONES)
def test_their_files_and_either_configuration_are_taken(kind, tmp_path):
    """Names in files differ from those of the loaded model."""
    model = their_model(BACKBONES[kind])
    model.save_pretrained(tmp_path)
    files = load_file(tmp_path / "model.safetensors")
    assert set(files) != set(model.state_dict())
    expected = from_transformers(model.state_dict(), model.config)
    for config in (model.config, config_from_transformers(model.config)):
        found = from_transformers(files, config)
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("kind", [*BACKBONES, *FULL])
def test_configurations_come_back(kind):
    backbone = (BACKBONES | FULL)[kind]
    theirs = MaskFormerConfig(
        backbone_config=dict(backbone), decoder_config=dict(DECODER), no_object_weight=0.2, **TINY
    )
    ours = config_from_transformers(theirs)
    assert (ours.num_queries, ours.num_labels, ours.no_object_weight) == (5, 3, 0.2)
    back = config_to_transformers(ours)
    given = dict(backbone)
    assert {name: getattr(back.backbone_config, name) for name in given} == given
    assert {name: getattr(back.decoder_config, name) for name in DECODER} == DECODER
    assert config_from_transformers(back).to_dict() == ours.to_dict()
    if kind == "swin base":
        assert ours.backbone == "swin_base_patch4_window12_384"
    if kind == "resnet50":
        assert (ours.backbone, ours.backbone_kwargs) == ("resnet50", None)


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_what_is_left_over_missing_or_of_another_shape_is_named(kind):
    model = their_model(BACKBONES[kind])
    state, config = model.state_dict(), config_from_transformers(model.config)
    for name in [name for name in state if "empty_weight" not in name and "position_index" not in name][::25]:
        with pytest.raises(ValueError, match=rf"nothing left over, {name} \(.*\) missing"):
            from_transformers({key: value for key, value in state.items() if key != name}, config)
        with pytest.raises(ValueError, match=rf"{name} is \(3, 5, 7\), not \("):
            from_transformers(state | {name: torch.zeros(3, 5, 7)}, config)
    for name in [name for name in state if "empty_weight" in name or "position_index" in name]:
        with pytest.raises(ValueError, match=f"constants are not those of this configuration: {name}"):
            from_transformers(state | {name: state[name] + 1}, config)
    with pytest.raises(ValueError, match=r"unknown.weight \(.*\) left over"):
        from_transformers(state | {"unknown.weight": torch.ones(1)}, config)
    ours = from_transformers(state, config)
    with pytest.raises(ValueError, match=r"unknown.weight \(.*\) left over"):
        to_transformers(ours | {"unknown.weight": torch.ones(1)}, config)
    with pytest.raises(ValueError, match=r"nothing left over, segmentation_module.class_head.bias \(.*\) missing"):
        to_transformers({key: value for key, value in ours.items() if "class_head.bias" not in key}, config)


@pytest.mark.parametrize(
    ("backbone", "decoder", "message"),
    [
        (SWIN | {"layer_norm_eps": 1e-6}, {}, "backbone_config.layer_norm_eps 1e-06 .only 1e-05"),
        (SWIN | {"patch_size": 2}, {}, "backbone_config.patch_size 2"),
        (SWIN | {"use_absolute_embeddings": True}, {}, "backbone_config.use_absolute_embeddings True"),
        (SWIN | {"mlp_ratio": 2.0, "hidden_act": "relu"}, {}, "backbone_config.mlp_ratio 2.0 .*hidden_act 'relu'"),
        (RESNET | {"downsample_in_bottleneck": True}, {}, "backbone_config.downsample_in_bottleneck True"),
        (RESNET | {"embedding_size": 32}, {}, "backbone_config.embedding_size 32 .only 64"),
        (RESNET | {"out_features": STAGES[1:]}, {}, "backbone_config.out_features"),
        (SWIN, {"activation_function": "gelu"}, "decoder_config.activation_function 'gelu'"),
        (SWIN, {"d_model": 48}, "hidden_size must be a multiple of 32"),
        ({"model_type": "convnext", "out_features": STAGES}, {}, "only Swin and ResNet backbones are converted"),
    ],
)
def test_what_ours_cannot_express_is_refused_by_name(backbone, decoder, message):
    config = MaskFormerConfig(backbone_config=dict(backbone), decoder_config=DECODER | decoder, **TINY)
    with pytest.raises(ValueError, match=message):
        config_from_transformers(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixel_decoder_encoder_layers": 6}, "pixel_decoder_encoder_layers 6 .only 0"),
        ({"pre_norm": True}, "pre_norm True"),
        ({"decoder_stride": 8}, "decoder_stride 8"),
        ({"backbone": "resnet101s"}, "the backbone 'resnet101s'"),
        ({"backbone": "convnext_atto"}, "the backbone 'convnext_atto'"),
        ({"backbone_kwargs": {"multi_grid": [1, 2, 4]}}, "resnet50 with {'multi_grid'"),
        ({"backbone_kwargs": {"output_stride": 16}}, "resnet50 with {'output_stride': 16}"),
    ],
)
def test_what_theirs_cannot_express_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=f"transformers' MaskFormer cannot express .*{message}"):
        to_transformers({}, MaskFormerUniversalConfig(**fields))


def test_per_pixel_models_are_refused():
    with pytest.raises(ValueError, match="cannot express a per-pixel baseline"):
        to_transformers({}, PerPixelBaselineConfig())


def test_conversion_leaves_its_arguments_alone():
    model = their_model(SWIN)
    before, config = copy.deepcopy(model.state_dict()), config_from_transformers(model.config)
    fields = config.to_dict()
    ours = from_transformers(model.state_dict(), config)
    to_transformers(ours, config)
    assert config.to_dict() == fields
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_image_processors_come_back():
    settings = {
        "size": {"shortest_edge": 512, "longest_edge": 2048},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "ignore_index": 255,
        "do_reduce_labels": True,
        "num_labels": 150,
        "size_divisor": 16,
    }
    theirs = MaskFormerImageProcessorPil(**settings)
    ours = processor_from_transformers(theirs)
    assert dict(ours.size) == dict(theirs.size) and list(ours.image_mean) == [0.1, 0.2, 0.3]
    assert (ours.ignore_index, ours.do_reduce_labels, ours.num_labels, ours.size_divisor) == (255, True, 150, 16)
    assert processor_to_transformers(ours).to_dict() == theirs.to_dict()


def test_an_unused_norm_that_is_lost_is_named():
    state = their_model(SWIN).state_dict()
    assert dropped(state) == []
    name = "model.pixel_level_module.encoder.model.layernorm.bias"
    state[name] = state[name] + 0.5
    assert dropped(state) == [name]
