"""Official state dicts to ours and back, both layouts, entry for entry."""

from __future__ import annotations

import hashlib
import zlib

import pytest
import torch

from helpers import fixture
from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
)
from maskformer.convert import from_official, to_official

CASES = fixture("official_layouts")["cases"]
MODELS = {
    "maskformer": (MaskFormerUniversalConfig, MaskFormerForUniversalSegmentation),
    "per_pixel": (PerPixelBaselineConfig, PerPixelBaselineForSemanticSegmentation),
}
SMALL = [
    ("maskformer", {}),
    ("maskformer", {"pixel_decoder_encoder_layers": 1}),
    ("maskformer", {"pixel_decoder_encoder_layers": 1, "pre_norm": True, "hidden_size": 64}),
    ("maskformer", {"backbone": "swin_tiny_patch4_window7_224"}),
    ("maskformer", {"freeze_batch_norm": False}),
    ("per_pixel", {}),
    ("per_pixel", {"use_transformer_decoder": True}),
]


def make(kind: str, num_labels: int, fields: dict) -> tuple:
    """A configuration and its model on the meta device."""
    config_class, model_class = MODELS[kind]
    config = config_class(**fields, id2label={index: str(index) for index in range(num_labels)})
    with torch.device("meta"):
        return config, model_class(config)


def small(kind: str, fields: dict) -> tuple:
    """A narrow configuration, its model without numbers, and official weights for it."""
    widths = {"feature_size": 32, "mask_feature_size": 16, "hidden_size": 32, "intermediate_size": 16}
    config, model = make(kind, 4, widths | {"decoder_layers": 2} | fields)
    return config, model, official_weights(model, config)


def official_weights(model, config) -> dict[str, torch.Tensor]:
    """Official weights for `model`: bytes that depend on the name, and the constant buffers as they are."""
    official = to_official(model.state_dict(), config)
    return {name: fill(name, value.shape) if value.is_meta else value for name, value in official.items()}


def fill(name: str, shape) -> torch.Tensor:
    """Cheap values of their own for the entry `name`; conversion does not look at types."""
    size = torch.Size(shape).numel()
    return (torch.arange(size, dtype=torch.int32) + zlib.crc32(name.encode()) % 1000).to(torch.uint8).view(shape)


def to_v1(official: dict) -> dict:
    """The layout of published files, which have no constant class weights either."""
    names = {name: name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.") for name in official}
    return {names[name]: value for name, value in official.items() if name != "criterion.empty_weight"}


def check_both_layouts(config, model, official) -> None:
    """Both layouts fill the model completely, and go back to the same names, shapes and bytes."""
    for given in (official, to_v1(official)):
        ours = from_official(given, config)
        expected = {name: value.shape for name, value in model.state_dict().items()}
        assert {name: value.shape for name, value in ours.items()} == expected
        back = to_official(ours, config)
        assert back.keys() == official.keys()
        assert all(torch.equal(value, official[name]) for name, value in back.items())


@pytest.mark.parametrize(("kind", "fields"), SMALL)
def test_official_weights_come_back(kind, fields):
    config, model, official = small(kind, fields)
    check_both_layouts(config, model, official)


@pytest.mark.parametrize(("kind", "fields"), SMALL)
def test_arrays_load_strictly(kind, fields):
    """Published files hold arrays."""
    config, _, official = small(kind, fields)
    arrays = {name: value.numpy() for name, value in official.items()}
    MODELS[kind][1](config).load_state_dict(from_official(arrays, config), strict=True)


@pytest.mark.parametrize(("kind", "fields"), SMALL)
def test_what_is_left_over_missing_or_of_another_shape_is_named(kind, fields):
    config, model, official = small(kind, fields)
    for layout in (official, to_v1(official)):
        for name in [key for key in layout if "empty_weight" not in key and "position_index" not in key][::80]:
            # Messages use the names of the v2 layout.
            new_name = name if name in official else name.replace("sem_seg_head.", "sem_seg_head.pixel_decoder.")
            without = {key: value for key, value in layout.items() if key != name}
            with pytest.raises(ValueError, match=rf"nothing left over, {new_name} \(.*\) missing"):
                from_official(without, config)
            with pytest.raises(ValueError, match=rf"{new_name} is \(3, 5, 7\), not \("):
                from_official(layout | {name: torch.zeros(3, 5, 7)}, config)
    with pytest.raises(ValueError, match=r"unknown.weight \(1,\) left over, nothing missing"):
        from_official(official | {"unknown.weight": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"sem_seg_head.layer_1.weight \(.*\) left over"):
        from_official(official | {"sem_seg_head.layer_1.weight": torch.zeros(1)}, config)  # a mixture of both layouts
    ours = model.state_dict()
    name = next(iter(ours))
    with pytest.raises(ValueError, match=rf"nothing left over, {name} \(.*\) missing"):
        to_official({key: value for key, value in ours.items() if key != name}, config)
    with pytest.raises(ValueError, match=r"unknown.weight \(.*\) left over"):
        to_official(ours | {"unknown.weight": torch.zeros(1)}, config)


@pytest.mark.parametrize(("kind", "fields"), SMALL)
def test_other_constants_are_refused(kind, fields):
    config, _, official = small(kind, fields)
    constants = [name for name in official if "empty_weight" in name or "position_index" in name]
    for name in constants:
        with pytest.raises(ValueError, match=f"constants are not those of this configuration: {name}"):
            from_official(official | {name: official[name] + 1}, config)
    half = {name: value.half() if value.is_floating_point() else value for name, value in official.items()}
    from_official(half, config)


def test_missing_left_over_and_wrong_shapes_are_reported_together():
    config, _, official = small("maskformer", {})
    official["unknown"] = torch.zeros(2)
    official["sem_seg_head.predictor.class_embed.bias"] = torch.zeros(7)
    del official["sem_seg_head.predictor.class_embed.weight"]
    expected = r"unknown \(2,\) left over, .*class_embed.weight \(5, 32\) missing; .*bias is \(7,\), not \(5,\)"
    with pytest.raises(ValueError, match=expected):
        from_official(official, config)


def test_weights_of_another_model_are_refused():
    weights = {
        str((kind, fields)): small(kind, fields)[2] for kind, fields in SMALL if "freeze_batch_norm" not in fields
    }
    for kind, fields in SMALL:
        config, _, own = small(kind, fields)
        for other in weights.values():
            if other.keys() != own.keys():
                with pytest.raises(ValueError, match="these are not the weights of an official"):
                    from_official(other, config)


def test_a_backbone_that_the_official_code_lacks_is_refused():
    config, model = make("maskformer", 4, {"backbone": "resnet18"})
    with pytest.raises(ValueError, match="the official code has no backbone 'resnet18'"):
        to_official(model.state_dict(), config)


def test_conversion_leaves_the_configuration_alone():
    config, model, official = small("maskformer", {"backbone": "swin_tiny_patch4_window7_224"})
    fresh = MaskFormerUniversalConfig(backbone="resnet50")
    before = fresh.to_dict(), dict(fresh.__dict__)
    with pytest.raises(ValueError, match="not the weights"):
        from_official(official, fresh)
    assert (fresh.to_dict(), dict(fresh.__dict__)) == before


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["configuration"])
def test_every_official_configuration_has_its_parameters_and_entries(case):
    config, model = make(case["model"], case["num_labels"], case["config"])
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameters"]
    official = to_official(model.state_dict(), config)
    lines = [f"{name} {'x'.join(map(str, value.shape))}" for name, value in sorted(official.items())]
    assert len(lines) == case["entries"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == case["sha256"]
    check_both_layouts(config, model, official_weights(model, config))
