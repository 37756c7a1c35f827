"""Backbone weights from files, in the layouts that they are published in."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
)
from maskformer.convert import load_backbone_weights
from maskformer.convert.backbone import save_backbone_weights
from maskformer.convert.official import resnet_names

RESNET = {"backbone": "resnet50", "backbone_kwargs": {"layers": [1, 2, 1, 1]}}
DEEP = {"backbone": "resnet101s", "backbone_kwargs": {"layers": [1, 1, 1, 3], "multi_grid": [1, 2, 4]}}
SWIN_SHAPE = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]}
SWIN = {"backbone": "swin_tiny_patch4_window7_224", "backbone_kwargs": SWIN_SHAPE}


def backbone_state(model) -> dict:
    """The state of a model's backbone."""
    backbone = model.model.pixel_level_module.backbone
    return getattr(backbone, "model", backbone).state_dict()


def without_counters(weights: dict) -> dict:
    """Without batch norm's counters."""
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def fill(state: dict) -> dict:
    """Random numbers of the same shapes."""
    numbers = torch.Generator().manual_seed(3)
    return {name: torch.rand(value.shape, generator=numbers).to(value.dtype) for name, value in state.items()}


def timm_weights(name: str, **kwargs) -> dict:
    """A whole timm model's weights, classifier included."""
    return fill(timm.create_model(name, pretrained=False, **kwargs).state_dict())


def to_detectron2(weights: dict, depths: list[int], deep_stem: bool) -> dict:
    """timm's names to detectron2's; those that have none, the classifier's, go to the stem as in R-50.pkl."""
    names = {ours: official for official, ours in resnet_names(tuple(depths), deep_stem).items()}
    renamed = {}
    for key, value in weights.items():
        module, leaf = key.rsplit(".", 1)
        renamed[f"{names.get(module, 'stem.' + module)}.{leaf}"] = value
    return renamed


def swin_file(weights: dict) -> dict:
    """Our Swin's weights as the original file has them: classifier and computed buffers, no norms of the maps."""
    original = {
        key: value for key, value in weights.items() if not key.startswith(("norm0", "norm1", "norm2", "norm3"))
    }
    extra = {"norm.weight": torch.ones(64), "norm.bias": torch.ones(64), "head.weight": torch.ones(10, 64)}
    buffers = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49),
        "layers.1.blocks.1.attn_mask": torch.zeros(4, 49, 49),
    }
    return original | extra | {"head.bias": torch.ones(10)} | buffers


def to_timm_swin(weights: dict) -> dict:
    """The original names to timm's."""
    for stage in (2, 1, 0):
        old, new = f"layers.{stage}.downsample.", f"layers.{stage + 1}.downsample."
        weights = {key.replace(old, new): value for key, value in weights.items()}
    return {key.replace("head.", "head.fc."): value for key, value in weights.items() if "attn_mask" not in key}


def other_names(weights: dict) -> dict:
    """The same entries in the same order, in modules of other names."""
    entries = enumerate(without_counters(weights).items())
    return {f"other.{index}.{name.rpartition('.')[2]}": value for index, (name, value) in entries}


@pytest.fixture
def weights():
    """A whole timm ResNet-18 with random weights, classifier included."""
    torch.manual_seed(7)
    return timm.create_model("resnet18", pretrained=False).state_dict()


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "other names"])
@pytest.mark.parametrize("freeze", [True, False])
def test_weights_arrive_by_name_or_by_order(tiny_model, tmp_path, weights, form, freeze):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "pth":
        torch.save(weights, path)
    elif form == "wrapped":
        torch.save({"state_dict": weights}, path)
    else:
        torch.save(other_names(weights), path)
    model = tiny_model(freeze_batch_norm=freeze)
    load_backbone_weights(model, str(path))
    state = backbone_state(model)
    assert all(torch.equal(value, weights[name]) for name, value in state.items() if "num_batches" not in name)


def test_files_that_do_not_hold_the_backbone_are_refused_and_change_nothing(tiny_model, tmp_path, weights):
    model = tiny_model()
    before = {name: value.clone() for name, value in backbone_state(model).items()}
    cases = {
        "wrong shape": (weights | {"conv1.weight": torch.zeros(1)}, "conv1.weight is .1,., not .64, 3, 7, 7."),
        "another backbone": ({"a": torch.zeros(2)}, "these are not the weights of 'resnet18'"),
        "no tensors": ([1, 2], "maps names to tensors"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(model, str(path))
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="neither a pickle"):
        load_backbone_weights(model, str(tmp_path / "broken.pth"))
    with pytest.raises(ValueError, match="no such file"):
        load_backbone_weights(model, str(tmp_path / "missing.pth"))
    with pytest.raises(ValueError, match="is not installed"):
        load_backbone_weights(model, "package:no_such_package_here/weights.pth")
    assert all(torch.equal(value, before[name]) for name, value in backbone_state(model).items())


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_that_would_run_code_is_refused(tiny_model, tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(ValueError, match="it asks for builtins.exec"):
        load_backbone_weights(tiny_model(), str(path))


@pytest.mark.parametrize("fields", [RESNET, DEEP], ids=["plain stem", "deep stem"])
@pytest.mark.parametrize("layout", ["timm", "detectron2"])
def test_resnets_of_every_layout(tiny_model, tmp_path, fields, layout):
    """torchvision's layout is timm's; R-103.pkl has the deep stem."""
    depths, deep = fields["backbone_kwargs"]["layers"], fields is DEEP
    weights = timm_weights(fields["backbone"], layers=depths)
    path = tmp_path / "weights.pkl"
    if layout == "timm":
        torch.save(weights, path)
    else:
        arrays = {name: value.numpy() for name, value in to_detectron2(weights, depths, deep).items()}
        assert "stem.fc.weight" in arrays and "res2.0.conv1.norm.weight" in arrays
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))
    model = tiny_model(**fields)
    load_backbone_weights(model, str(path))
    state = without_counters(backbone_state(model))
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


@pytest.mark.parametrize("layout", ["original", "original as detectron2's", "timm"])
def test_swin_of_every_layout(tiny_model, tmp_path, layout):
    model, path = tiny_model(**SWIN), tmp_path / "weights.pth"
    before = {name: value.clone() for name, value in backbone_state(model).items()}
    weights = fill(before)
    content = swin_file(weights)
    if layout == "timm":
        timm_model = timm.create_model(SWIN["backbone"], pretrained=False, num_classes=10, **SWIN_SHAPE)
        content = to_timm_swin(content)
        timm_model.load_state_dict({key: value for key, value in content.items() if "index" not in key}, strict=True)
        torch.save(timm_model.state_dict(), path)
    elif layout == "original":
        torch.save({"model": content}, path)
    else:
        path.write_bytes(pickle.dumps({"model": content, "__author__": "third_party", "matching_heuristics": True}))
    load_backbone_weights(model, str(path))
    for name, value in backbone_state(model).items():
        expected = before if name.startswith(("norm0", "norm1", "norm2", "norm3")) else weights
        assert torch.equal(value, expected[name]), name


def test_per_pixel_models_and_flattened_timm_models_take_weights(tmp_path):
    weights = timm_weights("convnext_atto")
    save_file(weights, tmp_path / "weights.safetensors")
    config = PerPixelBaselineConfig(backbone="convnext_atto", feature_size=32, id2label={0: "a", 1: "b"})
    model = PerPixelBaselineForSemanticSegmentation(config)
    load_backbone_weights(model, str(tmp_path / "weights.safetensors"))
    for name, value in backbone_state(model).items():
        assert torch.equal(value, weights[name.replace("stages_", "stages.").replace("stem_", "stem.")])


def test_wrong_windows_and_other_architectures_are_refused_by_name(tiny_model, tmp_path):
    path = tmp_path / "weights.pth"
    content = swin_file(fill(backbone_state(tiny_model(**SWIN))))
    torch.save({"model": content}, path)
    wider = tiny_model(backbone=SWIN["backbone"], backbone_kwargs=SWIN_SHAPE | {"window_size": 12})
    with pytest.raises(ValueError, match=r"relative_position_bias_table is \(169, 1\), not \(529, 1\)"):
        load_backbone_weights(wider, str(path))
    with pytest.raises(ValueError, match="not the weights of 'resnet50': conv1.weight is missing"):
        load_backbone_weights(tiny_model(**RESNET), str(path))
    for extra in ("layers.0.blocks.7.norm1.weight", "absolute_pos_embed"):
        torch.save({"model": content | {extra: torch.ones(8)}}, path)
        with pytest.raises(ValueError, match=f"{extra} is left over"):
            load_backbone_weights(tiny_model(**SWIN), str(path))
    resnet = timm_weights("resnet50", layers=[1, 2, 1, 1])
    torch.save(to_detectron2(resnet, [1, 2, 1, 1], False) | {"res9.0.conv1.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"res9.0.conv1.weight is left over$"):
        load_backbone_weights(tiny_model(**RESNET), str(path))


def test_deeper_models_and_other_norms_are_refused_not_cut(tiny_model, tmp_path, weights):
    path = tmp_path / "weights.pth"
    torch.save(timm_weights("resnet50", layers=[1, 3, 1, 1]), path)
    with pytest.raises(ValueError, match=r"layer2\.2\.conv1\.weight is left over"):
        load_backbone_weights(tiny_model(**RESNET), str(path))
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"bn1\.running_mean is left over"):
        load_backbone_weights(tiny_model(backbone_kwargs={"norm_layer": "groupnorm"}), str(path))


def test_weights_in_another_order_are_not_taken_for_each_other(tiny_model, tmp_path, weights):
    def swap(name):
        leaves = {"running_mean": "running_var", "running_var": "running_mean"}
        module, _, leaf = name.rpartition(".")
        return f"{module}.{leaves.get(leaf, leaf)}"

    path = tmp_path / "weights.pth"
    torch.save(other_names({swap(name): value for name, value in weights.items()}), path)
    with pytest.raises(ValueError, match="these are not the weights of 'resnet18'"):
        load_backbone_weights(tiny_model(), str(path))


@pytest.mark.parametrize("fields", [RESNET, SWIN], ids=["resnet", "swin"])
def test_saved_backbones_come_back(tiny_model, tmp_path, fields):
    source, target = tiny_model(**fields), tiny_model(**fields)
    state = backbone_state(source)
    for value in state.values():
        value.add_(0.5)
    save_backbone_weights(source, tmp_path / "backbone.safetensors")
    load_backbone_weights(target, str(tmp_path / "backbone.safetensors"))
    assert all(torch.equal(value, state[name]) for name, value in backbone_state(target).items())


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "depths"), [("resnet50", (3, 4, 6, 3)), ("resnet101", (3, 4, 23, 3)), ("resnet101s", (3, 4, 23, 3))]
)
def test_full_size_resnets(tmp_path, name, depths):
    """R-50.pkl, R-101.pkl and R-103.pkl."""
    weights = timm_weights(name)
    arrays = {key: value.numpy() for key, value in to_detectron2(weights, depths, name.endswith("s")).items()}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision"}))
    model = MaskFormerForUniversalSegmentation(MaskFormerUniversalConfig(backbone=name))
    load_backbone_weights(model, str(path))
    assert all(torch.equal(value, weights[key]) for key, value in without_counters(backbone_state(model)).items())
