"""The model as its users see it: outputs, losses by name, saving and loading."""

from __future__ import annotations

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, AutoModelForImageSegmentation, AutoModelForUniversalSegmentation

import maskformer


def batch(sizes: list[int], height: int = 64, width: int = 96, num_labels: int = 4) -> dict:
    """Random images, each with as many target masks as `sizes` says."""
    random = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(len(sizes), 3, height, width, generator=random),
        "mask_labels": [torch.rand(size, height, width, generator=random) > 0.5 for size in sizes],
        "class_labels": [torch.randint(num_labels, (size,), generator=random) for size in sizes],
    }


def test_shapes_of_the_outputs(tiny_model):
    model = tiny_model()
    pixel_values = batch([0, 0])["pixel_values"]
    embeddings = model.model(pixel_values)
    assert [tuple(f.shape[-2:]) for f in embeddings.image_features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert embeddings.pixel_embeddings.shape == (2, 16, 16, 24)
    assert [tuple(q.shape) for q in embeddings.segment_embeddings] == [(2, 7, 32)] * 3
    outputs = model(pixel_values)
    assert outputs.loss is None
    assert outputs.class_queries_logits.shape == (2, 7, 5)
    assert outputs.masks_queries_logits.shape == (2, 7, 16, 24)
    assert len(outputs.auxiliary_logits) == 2
    assert outputs.pixel_mask.shape == (2, 64, 96) and outputs.pixel_mask.all()


def test_masks_are_dot_products_with_the_pixel_embeddings(tiny_model):
    model = tiny_model()
    pixel_values = batch([0])["pixel_values"]
    embeddings = model.model(pixel_values)
    mask_embeddings = model.segmentation_module.mask_head(embeddings.segment_embeddings[-1])
    expected = (mask_embeddings[:, :, :, None, None] * embeddings.pixel_embeddings[:, None]).sum(2)
    torch.testing.assert_close(model(pixel_values).masks_queries_logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_050"],
)
def test_any_backbone_takes_any_size(tiny_model, backbone):
    outputs = tiny_model(backbone=backbone)(torch.randn(1, 3, 61, 90))
    assert outputs.masks_queries_logits.shape[:2] == (1, 7)
    assert outputs.masks_queries_logits.isfinite().all()


def test_pixel_mask_is_handed_on_and_changes_nothing(tiny_model):
    model = tiny_model()
    pixel_values = batch([0])["pixel_values"]
    mask = torch.zeros(1, 64, 96, dtype=torch.int64)
    mask[:, :40] = 1
    outputs = model(pixel_values, pixel_mask=mask)
    assert outputs.pixel_mask is mask
    assert torch.equal(outputs.masks_queries_logits, model(pixel_values).masks_queries_logits)


def test_losses_have_their_official_names_and_weights(tiny_model):
    model = tiny_model(class_weight=2.0, mask_weight=3.0, dice_weight=5.0)
    inputs = batch([3, 2])
    outputs = model(**inputs)
    names = {f"loss_{term}{layer}" for term in ("ce", "mask", "dice") for layer in ("", "_0", "_1")}
    assert outputs.loss_dict.keys() == names
    assert outputs.loss.item() == pytest.approx(sum(v.item() for v in outputs.loss_dict.values()))


def test_without_deep_supervision_only_the_last_layer_predicts(tiny_model):
    outputs = tiny_model(deep_supervision=False)(**batch([2]))
    assert outputs.auxiliary_logits == []
    assert outputs.loss_dict.keys() == {"loss_ce", "loss_mask", "loss_dice"}


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("encoder_layers", [0, 2])
def test_every_parameter_learns(tiny_model, pre_norm, encoder_layers):
    model = tiny_model(pre_norm=pre_norm, pixel_decoder_encoder_layers=encoder_layers).train()
    model(**batch([3, 1])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_frozen_batch_norm_has_no_parameters_and_keeps_its_statistics(tiny_model):
    frozen, free = tiny_model(), tiny_model(freeze_batch_norm=False)
    assert not [name for name, _ in frozen.named_parameters() if ".bn1." in name]
    assert [name for name, _ in free.named_parameters() if ".bn1." in name]
    before = copy.deepcopy(dict(frozen.named_buffers()))
    frozen.train()(batch([0])["pixel_values"])
    assert all(torch.equal(value, before[name]) for name, value in frozen.named_buffers())


@pytest.mark.parametrize("targets", [[0], [0, 3], [12]])
def test_no_targets_and_more_targets_than_queries_train(tiny_model, targets):
    model = tiny_model().train()
    loss = model(**batch(targets)).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_labels": [torch.tensor([0, 4])]}, "image 0: class label 4 is outside of 0 to 3"),
        (
            {"class_labels": [torch.tensor([0])]},
            r"image 0: mask_labels of shape \(2, 64, 96\) do not fit 1 class_labels",
        ),
        ({"mask_labels": []}, "there are 1 images, but 0 entries in mask_labels"),
        (
            {"mask_labels": [torch.zeros(2, 32, 48, dtype=torch.bool)]},
            r"image 0: mask_labels of \(32, 48\) pixels, but the padded canvas has \(64, 96\)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_named(tiny_model, change, message):
    with pytest.raises(ValueError, match=message):
        tiny_model()(**{**batch([2]), **change})


def test_a_model_comes_back_from_disk_with_the_same_answers(tiny_model, tmp_path):
    model = tiny_model(backbone="swin_tiny_patch4_window7_224")
    model.save_pretrained(tmp_path)
    pixel_values = batch([0])["pixel_values"]
    expected = model(pixel_values)
    for auto_class in (AutoModelForUniversalSegmentation, AutoModelForImageSegmentation):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is maskformer.MaskFormerForUniversalSegmentation
        actual = loaded(pixel_values)
        assert torch.equal(actual.masks_queries_logits, expected.masks_queries_logits)
        assert torch.equal(actual.class_queries_logits, expected.class_queries_logits)
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == model.config.to_diff_dict()
    bare = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(bare(pixel_values).pixel_embeddings, model.model(pixel_values).pixel_embeddings)


def test_missing_weights_are_initialised_after_loading_on_the_meta_device(tiny_model, tiny_config, tmp_path):
    """A new head, as fine-tuning needs it; nothing is left as the memory happened to be."""
    tiny_model(backbone="swin_tiny_patch4_window7_224").save_pretrained(tmp_path)
    config = tiny_config(backbone="swin_tiny_patch4_window7_224", id2label={i: str(i) for i in range(9)})
    loaded = maskformer.MaskFormerForUniversalSegmentation.from_pretrained(
        tmp_path, config=config, ignore_mismatched_sizes=True
    )
    bound = 1 / loaded.config.hidden_size**0.5
    assert loaded.segmentation_module.class_head.weight.abs().max() <= bound
    assert loaded(batch([0])["pixel_values"]).class_queries_logits.shape == (1, 7, 10)


def test_attention_implementations_agree(tiny_model, tmp_path):
    tiny_model(backbone="swin_tiny_patch4_window7_224").save_pretrained(tmp_path)
    pixel_values = batch([0])["pixel_values"]
    eager, sdpa = (
        maskformer.MaskFormerForUniversalSegmentation.from_pretrained(tmp_path, attn_implementation=name)(pixel_values)
        for name in ("eager", "sdpa")
    )
    torch.testing.assert_close(eager.masks_queries_logits, sdpa.masks_queries_logits, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients(tiny_model):
    plain, saving = (tiny_model(pixel_decoder_encoder_layers=1).train() for _ in range(2))
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model(**batch([2])).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("backbone", ["resnet50", "swin_tiny_patch4_window7_224"])
def test_activation_checkpointing_reaches_the_backbone(tiny_model, backbone):
    """Less than half of the bytes are kept for the backward pass."""

    def kept(model) -> int:
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = model.model.pixel_level_module.backbone(torch.randn(2, 3, 128, 128))
        parameters = {parameter.data_ptr() for parameter in model.parameters()}
        del features
        return sum(size for pointer, size in sizes.items() if pointer not in parameters)

    model = tiny_model(backbone=backbone).train()
    plain = kept(model)
    model.activation_checkpointing_enable()
    assert kept(model) < plain / 2
    model.activation_checkpointing_disable()
    assert kept(model) == plain


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 50}, "hidden_size must be a multiple of 32"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads"),
        ({"decoder_layers": 0}, "at least 1"),
        ({"dropout": 1.5}, "dropout must lie in"),
        ({"backbone": "resnet5"}, "did you mean resnet50"),
        ({"backbone": "vit_tiny_patch16_224"}, "strides"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(tiny_model, fields, message):
    # huggingface_hub's class for a configuration, which is no ValueError
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_model(**fields)
