"""The per-pixel baselines as their users see them: outputs, losses by name, saving and loading."""

from __future__ import annotations

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation

import maskformer

BOTH = pytest.mark.parametrize("plus", [False, True])


def batch(height: int = 64, width: int = 96, ignore_index: int = 255) -> dict:
    """Two random images with labels 0 to 3, the upper part without."""
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (2, height, width), generator=random)
    labels[:, : height // 5] = ignore_index
    return {"pixel_values": torch.randn(2, 3, height, width, generator=random), "labels": labels}


@BOTH
def test_shapes_of_the_outputs(tiny_per_pixel_model, plus):
    model = tiny_per_pixel_model(use_transformer_decoder=plus)
    pixel_values = batch()["pixel_values"]
    outputs = model(pixel_values)
    assert outputs.loss is None and outputs.loss_dict is None
    assert outputs.logits.shape == (2, 4, 16, 24)
    assert outputs.pixel_mask.shape == (2, 64, 96) and outputs.pixel_mask.all()
    embeddings = model.model(pixel_values)
    assert embeddings.pixel_embeddings.shape == (2, 16, 16, 24)
    queries = embeddings.segment_embeddings
    assert [tuple(q.shape) for q in queries] == [(2, 4, 32)] * 3 if plus else queries is None


def test_labels_are_dot_products_with_one_embedding_a_class(tiny_per_pixel_model):
    model = tiny_per_pixel_model(use_transformer_decoder=True)
    pixel_values = batch()["pixel_values"]
    embeddings = model.model(pixel_values)
    label_embeddings = model.segmentation_module.mask_head(embeddings.segment_embeddings[-1])
    expected = (label_embeddings[:, :, :, None, None] * embeddings.pixel_embeddings[:, None]).sum(2)
    torch.testing.assert_close(model(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("size", [(64, 96), (61, 90), (33, 47)])
@pytest.mark.parametrize("ignore_index", [255, 65535, 2])
def test_the_loss_is_the_mean_cross_entropy_at_full_resolution(tiny_per_pixel_model, plus, size, ignore_index):
    model = tiny_per_pixel_model(use_transformer_decoder=plus, ignore_index=ignore_index)
    inputs = batch(*size, ignore_index)
    outputs = model(**inputs)
    enlarged = F.interpolate(outputs.logits, scale_factor=4, mode="bilinear")[:, :, : size[0], : size[1]]
    expected = F.cross_entropy(enlarged, inputs["labels"], ignore_index=ignore_index)
    assert outputs.loss_dict["loss_sem_seg"].item() == pytest.approx(expected.item(), rel=1e-5)


@BOTH
def test_losses_have_their_official_names(tiny_per_pixel_model, plus):
    outputs = tiny_per_pixel_model(use_transformer_decoder=plus)(**batch())
    assert list(outputs.loss_dict) == ["loss_sem_seg", "loss_sem_seg_0", "loss_sem_seg_1"][: 3 if plus else 1]
    assert outputs.loss.item() == pytest.approx(sum(value.item() for value in outputs.loss_dict.values()))
    last = tiny_per_pixel_model(use_transformer_decoder=plus, deep_supervision=False)(**batch())
    assert last.loss_dict.keys() == {"loss_sem_seg"}
    torch.testing.assert_close(last.loss, outputs.loss_dict["loss_sem_seg"])


@BOTH
@pytest.mark.parametrize("encoder_layers", [0, 2])
def test_every_parameter_learns(tiny_per_pixel_model, plus, encoder_layers):
    model = tiny_per_pixel_model(use_transformer_decoder=plus, pixel_decoder_encoder_layers=encoder_layers).train()
    model(**batch()).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@BOTH
def test_images_without_any_label_have_a_loss_of_zero(tiny_per_pixel_model, plus):
    model = tiny_per_pixel_model(use_transformer_decoder=plus).train()
    inputs = batch()
    outputs = model(inputs["pixel_values"], labels=torch.full_like(inputs["labels"], 255))
    outputs.loss.backward()
    assert outputs.loss == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())


def test_pixel_mask_is_handed_on_and_changes_nothing(tiny_per_pixel_model):
    model = tiny_per_pixel_model()
    pixel_values = batch()["pixel_values"]
    mask = torch.zeros(2, 64, 96, dtype=torch.int64)
    mask[:, :40] = 1
    outputs = model(pixel_values, pixel_mask=mask)
    assert outputs.pixel_mask is mask
    assert torch.equal(outputs.logits, model(pixel_values).logits)
    [first, _] = maskformer.PerPixelBaselineImageProcessor().post_process_semantic_segmentation(outputs)
    assert first.shape == (40, 96)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda labels: labels.clone().fill_(9),
            "image 0: label 9 is outside of 0 to 3 and is not the ignored one, 255",
        ),
        (lambda labels: labels.index_fill(0, torch.tensor(1), -1), "image 1: label -1 is outside"),
        (lambda labels: labels[:1], r"labels of shape \(1, 64, 96\) do not fit pixel_values; it must be \(2, 64, 96\)"),
        (lambda labels: labels[:, ::4, ::4], r"labels of shape \(2, 16, 24\) do not fit"),
        (lambda labels: labels.float(), "labels must be integers, not torch.float32"),
    ],
)
def test_labels_that_do_not_fit_are_named(tiny_per_pixel_model, change, message):
    inputs = batch()
    with pytest.raises(ValueError, match=message):
        tiny_per_pixel_model()(inputs["pixel_values"], labels=change(inputs["labels"]))


@BOTH
def test_a_model_comes_back_from_disk_with_the_same_answers(tiny_per_pixel_model, tmp_path, plus):
    model = tiny_per_pixel_model(use_transformer_decoder=plus, ignore_index=65, backbone="swin_tiny_patch4_window7_224")
    model.save_pretrained(tmp_path)
    pixel_values = batch()["pixel_values"]
    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert type(loaded) is maskformer.PerPixelBaselineForSemanticSegmentation
    assert torch.equal(loaded(pixel_values).logits, model(pixel_values).logits)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is maskformer.PerPixelBaselineConfig and config.ignore_index == 65
    assert config.to_diff_dict() == model.config.to_diff_dict()
    bare = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(bare(pixel_values).pixel_embeddings, model.model(pixel_values).pixel_embeddings)


@BOTH
def test_missing_weights_are_initialised_after_loading_on_the_meta_device(tiny_per_pixel_model, tmp_path, plus):
    """A label set of another size, as fine-tuning needs it."""
    tiny_per_pixel_model(use_transformer_decoder=plus).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.id2label = {index: str(index) for index in range(900)}
    loaded = maskformer.PerPixelBaselineForSemanticSegmentation.from_pretrained(
        tmp_path, config=config, ignore_mismatched_sizes=True
    )
    if plus:
        assert loaded.model.transformer_module.query_embeddings.weight.std().item() == pytest.approx(1, rel=0.05)
    else:
        classifier = loaded.segmentation_module.classifier
        assert classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 900), rel=0.05)
        assert (classifier.bias == 0).all()
    assert loaded(batch()["pixel_values"]).logits.shape == (2, 900, 16, 24)


def test_the_classifier_starts_as_in_the_official_code(tiny_per_pixel_model):
    """He's normal initialisation by the number of outputs; a new model and one without weights agree."""
    model = tiny_per_pixel_model(id2label={i: str(i) for i in range(400)}, mask_feature_size=64)
    assert model.segmentation_module.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    assert (model.segmentation_module.classifier.bias == 0).all()


def test_attention_implementations_agree(tiny_per_pixel_model, tmp_path):
    tiny_per_pixel_model(use_transformer_decoder=True).save_pretrained(tmp_path)
    pixel_values = batch()["pixel_values"]
    eager, sdpa = (
        AutoModelForSemanticSegmentation.from_pretrained(tmp_path, attn_implementation=name)(pixel_values).logits
        for name in ("eager", "sdpa")
    )
    torch.testing.assert_close(eager, sdpa, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients(tiny_per_pixel_model):
    fields = {"use_transformer_decoder": True, "pixel_decoder_encoder_layers": 1}
    plain, saving = (tiny_per_pixel_model(**fields).train() for _ in range(2))
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model(**batch()).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_half_precision_logits_are_scored_in_float32(tiny_per_pixel_model):
    model, inputs = tiny_per_pixel_model(use_transformer_decoder=True), batch()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**inputs)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    enlarged = F.interpolate(outputs.logits.float(), scale_factor=4, mode="bilinear")
    expected = F.cross_entropy(enlarged, inputs["labels"], ignore_index=255)
    torch.testing.assert_close(outputs.loss_dict["loss_sem_seg"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("fields", [{"use_transformer_decoder": "yes"}, {"ignore_index": "255"}, {"dropout": 1.0}])
def test_configurations_that_make_no_sense_are_refused(fields):
    with pytest.raises((ValueError, StrictDataclassError)):
        maskformer.PerPixelBaselineConfig(**fields)
