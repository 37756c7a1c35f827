"""Backbone weights from files."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from maskformer.convert import load_backbone_weights


def backbone_state(model) -> dict:
    """The state of a model's backbone."""
    return model.model.pixel_level_module.backbone.model.state_dict()


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
        torch.save({f"other.{index}": value for index, value in enumerate(drop_counters(weights))}, path)
    model = tiny_model(freeze_batch_norm=freeze)
    load_backbone_weights(model, str(path))
    state = backbone_state(model)
    assert all(torch.equal(value, weights[name]) for name, value in state.items() if "num_batches" not in name)


def drop_counters(weights: dict) -> list[torch.Tensor]:
    """Values in order, without batch norm's counters."""
    return [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]


def test_files_that_do_not_hold_the_backbone_are_refused_and_change_nothing(tiny_model, tmp_path, weights):
    model = tiny_model()
    before = {name: value.clone() for name, value in backbone_state(model).items()}
    cases = {
        "wrong shape": (weights | {"conv1.weight": torch.zeros(1)}, "conv1.weight is"),
        "another backbone": ({"a": torch.zeros(2)}, "neither the names nor the shapes"),
        "no tensors": ([1, 2], "maps names to tensors"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(model, str(path))
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable file of weights"):
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
    with pytest.raises(ValueError, match="not a readable file of weights"):
        load_backbone_weights(tiny_model(), str(path))
