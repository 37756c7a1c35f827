"""The checks that transformers runs on all of its models, written for these; the package on PyPI does not hold them.

By the names they have there: save_load, sharded safetensors, save_load with a dtype, device_map with offloading to the
disk, num_labels and mismatched shapes, initialisation on the meta device, forward signature, tuple and dict outputs,
hidden states, attentions and their retained gradients, eager and sdpa, determinism, batching equivalence, training with
activation checkpointing, and the configuration's own tests.
"""

from __future__ import annotations

import inspect
import json

import pytest
import torch

from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    MaskFormerUniversalModel,
    PerPixelBaselineForSemanticSegmentation,
)

SWIN = {
    "backbone": "swin_tiny_patch4_window7_224",
    "backbone_kwargs": {"embed_dim": 12, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]},
}
CONVNEXT = {"backbone": "convnext_atto"}
KINDS = {
    "resnet": {},
    "swin with encoder": {**SWIN, "pixel_decoder_encoder_layers": 1},
    "per-pixel": {},
    "per-pixel plus": {"use_transformer_decoder": True},
}


@pytest.fixture(params=KINDS)
def model(request, tiny_model, tiny_per_pixel_model):
    """Each kind of model, with random weights."""
    make = tiny_per_pixel_model if request.param.startswith("per-pixel") else tiny_model
    return make(**KINDS[request.param])


def pixels(batch: int = 2, height: int = 64, width: int = 96, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)


def logits(model, pixel_values: torch.Tensor, **kwargs) -> list[torch.Tensor]:
    with torch.no_grad():
        outputs = model(pixel_values, **kwargs)
    if isinstance(model, PerPixelBaselineForSemanticSegmentation):
        return [outputs.logits]
    return [outputs.class_queries_logits, outputs.masks_queries_logits]


def assert_equal(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float = 0.0) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def targets(model, batch: int = 2) -> dict:
    """Two classes, left and right; for per-pixel models as a map."""
    if isinstance(model, PerPixelBaselineForSemanticSegmentation):
        labels = torch.zeros(batch, 64, 96, dtype=torch.int64)
        labels[..., 48:] = 2
        return {"labels": labels}
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, :, :48] = masks[1, :, 48:] = True
    return {"mask_labels": [masks] * batch, "class_labels": [torch.tensor([0, 2])] * batch}


def test_save_and_load(model, tmp_path, said):
    model.save_pretrained(tmp_path)
    loaded, information = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(information[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert_equal(logits(loaded, pixels()), logits(model, pixels()))
    assert said == []


def test_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1 or sum(p.numel() for p in model.parameters()) < 1e6
    loaded = type(model).from_pretrained(tmp_path)
    assert_equal(logits(loaded, pixels()), logits(model, pixels()))


def test_dtype_at_load_is_kept(model, tmp_path):
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    for a, b in zip(logits(half, pixels(dtype=torch.bfloat16)), logits(model, pixels()), strict=True):
        assert a.dtype == torch.bfloat16 and (a - b).abs().max() <= 0.1 * b.abs().max()
    half.save_pretrained(tmp_path / "half")
    assert type(model).from_pretrained(tmp_path / "half").dtype == torch.bfloat16


def test_device_map_and_offloading_to_the_disk(model, tmp_path):
    model.save_pretrained(tmp_path)
    automatic = type(model).from_pretrained(tmp_path, device_map="cpu")
    assert_equal(logits(automatic, pixels()), logits(model, pixels()))
    offloaded = type(model).from_pretrained(
        tmp_path, device_map={name: "disk" for name, _ in model.named_children()}, offload_folder=tmp_path / "disk"
    )
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    assert_equal(logits(offloaded, pixels()), logits(model, pixels()))


def test_a_layer_is_not_divided_among_devices(model, tmp_path):
    """An automatic map keeps the layers whole that the model names, and it names none that it has not."""
    classes = {type(module).__name__ for module in model.modules()}
    assert model._no_split_modules == set(type(model)._no_split_modules) & classes
    model.save_pretrained(tmp_path)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    loaded = type(model).from_pretrained(
        tmp_path, device_map="auto", max_memory={"cpu": size // 2}, offload_folder=tmp_path / "disk"
    )
    places = loaded.hf_device_map
    assert set(places.values()) == {"cpu", "disk"}
    for name, module in model.named_modules():
        if type(module).__name__ in model._no_split_modules:
            assert not any(place.startswith(f"{name}.") for place in places), name
    assert_equal(logits(loaded, pixels()), logits(model, pixels()))


def test_buffers_that_no_file_holds_are_filled(model, tmp_path):
    """Models are built without memory; what is not in the file must be computed when it gets some."""
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    buffers = dict(loaded.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer), name


@pytest.mark.parametrize("how", [{"num_labels": 6}, {"id2label": {i: f"new {i}" for i in range(6)}}])
def test_another_label_set_at_load(model, tmp_path, how):
    model.save_pretrained(tmp_path)
    loaded, information = type(model).from_pretrained(
        tmp_path, **how, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert loaded.config.num_labels == len(loaded.config.id2label) == 6
    assert loaded.config.id2label[5] == ("new 5" if "id2label" in how else "LABEL_5")
    (channels,) = {tensor.shape[1 if tensor.ndim == 4 else 2] for tensor in logits(loaded, pixels())[:1]}
    assert channels == 6 + isinstance(model, MaskFormerForUniversalSegmentation)
    changed = {key[0] if isinstance(key, tuple) else key for key in information["mismatched_keys"]}
    assert changed
    state, before = loaded.state_dict(), model.state_dict()
    for name in state:
        assert name in changed or torch.equal(state[name], before[name])
        assert state[name].isfinite().all() if state[name].is_floating_point() else True


def test_another_label_set_needs_to_be_allowed(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        MaskFormerForUniversalSegmentation.from_pretrained(tmp_path, num_labels=6)


def test_forward_signature(model):
    assert list(inspect.signature(model.forward).parameters)[:2] == ["pixel_values", "pixel_mask"]
    assert model.main_input_name == "pixel_values"


def test_tuples_are_the_values_of_the_output(model):
    with torch.no_grad():
        output = model(pixels())
        values = model(pixels(), return_dict=False)
    assert isinstance(values, tuple) and len(values) == len(output.to_tuple())
    tensors = [value for value in output.to_tuple() if isinstance(value, torch.Tensor)]
    assert_equal([value for value in values if isinstance(value, torch.Tensor)], tensors)


@pytest.mark.parametrize("through_config", [False, True])
def test_hidden_states(model, through_config):
    arguments = {} if through_config else {"output_hidden_states": True}
    model.config.output_hidden_states = through_config
    states = model(pixels(), **arguments).hidden_states
    has_decoder = getattr(model.config, "use_transformer_decoder", True)
    assert len(states) == (model.config.decoder_layers + 1 if has_decoder else 0)
    assert all(state.shape == (2, model.config.num_queries, model.config.hidden_size) for state in states)
    if has_decoder:
        embeddings = model.model(pixels()).segment_embeddings
        norm = model.model.transformer_module.norm
        assert_equal([norm(state) for state in states[1:]], list(embeddings), tolerance=1e-5)


def test_attentions_are_distributions_and_have_gradients(tiny_model):
    model = tiny_model(attn_implementation="eager")
    output = model(pixels(), output_attentions=True)
    assert len(output.attentions) == len(output.cross_attentions) == 3
    for weights, length in ((output.attentions, 7), (output.cross_attentions, 2 * 3)):
        for weight in weights:
            assert weight.shape == (2, 4, 7, length)
            torch.testing.assert_close(weight.sum(-1), torch.ones(2, 4, 7))
    output.cross_attentions[0].retain_grad()
    output.masks_queries_logits.sum().backward()
    assert output.cross_attentions[0].grad.abs().max() > 0


def test_attentions_are_refused_where_there_are_none(tiny_model):
    model = tiny_model(attn_implementation="sdpa")
    with pytest.raises(ValueError, match="set_attn_implementation"):
        model(pixels(), output_attentions=True)
    model.set_attn_implementation("eager")
    assert len(model(pixels(), output_attentions=True).attentions) == 3


def test_eager_equals_sdpa(model, tmp_path):
    model.save_pretrained(tmp_path)
    answers = []
    for name in ("eager", "sdpa"):
        loaded = type(model).from_pretrained(tmp_path, attn_implementation=name)
        assert loaded.config._attn_implementation == name
        answers.append(logits(loaded, pixels()))
    assert_equal(*answers, tolerance=2e-4)


def test_the_same_twice_and_a_batch_as_its_images(model):
    first = logits(model, pixels())
    assert_equal(first, logits(model, pixels()))
    for index in range(2):
        alone = logits(model, pixels()[index : index + 1])
        assert_equal([tensor[index : index + 1] for tensor in first], alone, tolerance=2e-4)


@pytest.mark.parametrize("backbone", [{}, SWIN, CONVNEXT], ids=["resnet", "swin", "convnext"])
def test_training_with_activation_checkpointing(tiny_model, backbone):
    """Same loss, same gradients."""
    model = tiny_model(**backbone, pixel_decoder_encoder_layers=1).train()
    results = []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model.zero_grad()
        loss = model(pixels(), **targets(model)).loss
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients))
    (loss, gradients), (other_loss, other_gradients) = results
    torch.testing.assert_close(loss, other_loss)
    assert set(gradients) == set(other_gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_every_parameter_learns(model):
    """But those of frozen batch norms, which are buffers."""
    model.train()
    model(pixels(), **targets(model)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_bare_model_and_the_whole_one_load_each_other(tiny_model, tmp_path):
    whole = tiny_model()
    whole.save_pretrained(tmp_path / "whole")
    bare = MaskFormerUniversalModel.from_pretrained(tmp_path / "whole")
    bare.save_pretrained(tmp_path / "bare")
    again, information = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path / "bare", output_loading_info=True)
    assert all(name.startswith("segmentation_module.") for name in information["missing_keys"])
    with torch.no_grad():
        assert torch.equal(again.model(pixels()).pixel_embeddings, whole.model(pixels()).pixel_embeddings)


def test_configuration(tiny_config, tmp_path):
    config = tiny_config()
    assert json.loads(config.to_json_string())["num_queries"] == 7
    config.save_pretrained(tmp_path)
    loaded = MaskFormerUniversalConfig.from_pretrained(tmp_path)
    ours, theirs = config.to_dict(), loaded.to_dict()
    assert {key: theirs[key] for key in ours if key != "auto_map"} == {k: v for k, v in ours.items() if k != "auto_map"}
    assert MaskFormerUniversalConfig().num_queries == 100
    changed = MaskFormerUniversalConfig(num_labels=3, output_hidden_states=True)
    assert len(changed.id2label) == 3 and changed.output_hidden_states
