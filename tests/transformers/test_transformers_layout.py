"""Folders of transformers' own MaskFormer, as the Hub holds them, load directly and answer the same."""

from __future__ import annotations

import contextlib
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    pipeline,
)
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
)

STAGES = ["stage1", "stage2", "stage3", "stage4"]
BACKBONES = {
    "swin": {
        **{"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]},
        **{"window_size": 3, "out_features": STAGES},
    },
    "resnet": {
        **{"model_type": "resnet", "depths": [1, 2, 1, 1], "hidden_sizes": [32, 64, 64, 128]},
        "out_features": STAGES,
    },
}
DECODER = {
    **{"model_type": "detr", "d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 64},
    **{"decoder_attention_heads": 4, "num_queries": 5},
}


@pytest.fixture(params=BACKBONES)
def theirs(request, tmp_path):
    """A model of transformers, saved in `tmp_path` with its image processor."""
    torch.manual_seed(0)
    config = MaskFormerConfig(
        backbone_config=dict(BACKBONES[request.param]),
        decoder_config=dict(DECODER),
        fpn_feature_size=32,
        mask_feature_size=16,
        id2label={0: "sky", 1: "road", 2: "car"},
        label2id={"sky": 0, "road": 1, "car": 2},
    )
    model = MaskFormerForInstanceSegmentation(config).eval()
    model.save_pretrained(tmp_path)
    MaskFormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}, ignore_index=255).save_pretrained(
        tmp_path
    )
    return model


@pytest.fixture
def records(caplog):
    """What this package logs, of a warning or worse."""
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("maskformer")]


def logits(model) -> list[torch.Tensor]:
    pixel_values = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = model(pixel_values)
    return [outputs.class_queries_logits, outputs.masks_queries_logits]


def test_same_logits_and_one_line_that_says_so(theirs, tmp_path, records):
    ours = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path)
    assert type(ours.config) is MaskFormerUniversalConfig and not ours.training
    assert ours.config.id2label == {0: "sky", 1: "road", 2: "car"}
    for one, other in zip(logits(ours), logits(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    (line,) = records()
    assert str(tmp_path) in line and "\n" not in line


def test_arguments_of_from_pretrained_count(theirs, tmp_path):
    half = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="cpu")
    assert half.dtype == torch.bfloat16
    same = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path, dtype="auto", subfolder=None)
    assert same.dtype == torch.float32 and same.name_or_path == str(tmp_path)
    ours = MaskFormerForUniversalSegmentation.from_pretrained(
        tmp_path, id2label={0: "cat", 1: "dog"}, ignore_mismatched_sizes=True, attn_implementation="eager"
    )
    assert ours.config.num_labels == 2 and ours.config._attn_implementation == "eager"
    assert logits(ours)[0].shape == (2, 5, 3)
    state, before = ours.state_dict(), MaskFormerForUniversalSegmentation.from_pretrained(tmp_path).state_dict()
    changed = [name for name in state if state[name].shape != before[name].shape]
    assert changed == ["segmentation_module.class_head.weight", "segmentation_module.class_head.bias"]
    assert all(torch.equal(state[name], before[name]) for name in state if name not in changed)


def test_what_is_saved_is_ours(theirs, tmp_path, records):
    ours = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "ours")
    again = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "ours")
    assert type(again) is MaskFormerForUniversalSegmentation
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())
    assert len(records()) == 1  # of the conversion


def test_auto_classes_still_give_transformers_own(theirs, tmp_path):
    assert type(AutoModelForUniversalSegmentation.from_pretrained(tmp_path)) is type(theirs)


@pytest.mark.parametrize("ours", [MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil])
def test_their_image_processor(theirs, tmp_path, ours):
    processor = ours.from_pretrained(tmp_path)
    assert dict(processor.size) == {"shortest_edge": 64, "longest_edge": 96} and processor.ignore_index == 255
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    expected = MaskFormerImageProcessorPil.from_pretrained(tmp_path)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(processor(image, return_tensors="pt")["pixel_values"], expected, rtol=1e-4, atol=1e-4)


def test_the_image_processor_of_an_older_file(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                **{"feature_extractor_type": "MaskFormerFeatureExtractor", "size": 640, "max_size": 2560},
                **{"size_divisibility": 16, "reduce_labels": True, "ignore_index": 255, "do_normalize": True},
                **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "resample": 2, "do_resize": True},
            }
        )
    )
    processor = MaskFormerUniversalImageProcessorPil.from_pretrained(tmp_path)
    assert dict(processor.size) == {"shortest_edge": 640, "longest_edge": 2560}
    assert (processor.size_divisor, processor.do_reduce_labels, processor.ignore_index) == (16, True, 255)
    assert list(processor.image_mean) == [0.5, 0.5, 0.5]


def test_what_cannot_be_expressed_is_named(theirs, tmp_path):
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["decoder_config"]["activation_function"] = "gelu"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="activation_function"):
        MaskFormerForUniversalSegmentation.from_pretrained(tmp_path)


def test_a_name_that_is_nothing_gets_the_message_of_transformers(tmp_path):
    with pytest.raises(OSError, match="nothing-here"):
        MaskFormerForUniversalSegmentation.from_pretrained(tmp_path / "nothing-here")


@pytest.fixture
def decisive(theirs, tmp_path):
    """transformers' model with class and mask heads that are of several minds, saved anew."""
    with torch.no_grad():
        numbers = torch.Generator().manual_seed(0)
        queries = theirs.model.transformer_module.queries_embedder.weight
        for weight, scale in ((queries, 20), (theirs.class_predictor.weight, 20)):
            weight.copy_(scale * torch.randn(weight.shape, generator=numbers))
        # What all queries share says nothing: only their differences are left.
        batch = torch.randn(1, 3, 64, 96, generator=numbers)
        shared = theirs(batch, output_hidden_states=True).transformer_decoder_last_hidden_state.mean((0, 1))
        theirs.class_predictor.bias.copy_(-theirs.class_predictor.weight @ shared)
        theirs.class_predictor.bias[-1] -= 50  # "no object"
        list(theirs.mask_embedder.parameters())[-2].mul_(20)
    theirs.save_pretrained(tmp_path)
    return theirs


@pytest.mark.parametrize("subtask", ["semantic", "panoptic", "instance"])
def test_the_pipeline_answers_with_a_converted_checkpoint(decisive, tmp_path, subtask):
    """On an image that neither pads. Where transformers' answer is right it is the same, but for the order of its
    steps: semantic. Elsewhere the answer is that of our image processor to the outputs of transformers' model.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    ours = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path)
    processor = MaskFormerUniversalImageProcessorPil.from_pretrained(tmp_path)
    segmenter = pipeline("image-segmentation", model=ours, image_processor=processor)
    answer = {(s["label"], np.array(s["mask"]).tobytes()) for s in segmenter(image, subtask=subtask, threshold=0.3)}
    if subtask == "semantic":
        theirs = pipeline("image-segmentation", model=str(tmp_path))(image, subtask=subtask)
        expected = {s["label"]: np.array(s["mask"]) for s in theirs}
        found = {label: np.frombuffer(mask, np.uint8).reshape(64, 96) for label, mask in answer}
        assert found.keys() == expected.keys() and len(found) > 1
        assert np.mean([found[label] != expected[label] for label in found]) < 0.1
        return
    with torch.no_grad():
        outputs = decisive(**processor(image, return_tensors="pt"))
    method = getattr(processor, f"post_process_{subtask}_segmentation")
    (expected,) = method(outputs, threshold=0.3, overlap_mask_area_threshold=0.5, target_sizes=[(64, 96)])
    maps = expected["segmentation"].numpy()
    wanted = {
        (decisive.config.id2label[info["label_id"]], (255 * (maps == info["id"])).astype(np.uint8).tobytes())
        for info in expected["segments_info"]
    }
    assert answer == wanted and answer


def test_loading_says_one_line_and_can_tell_what_it_loaded(theirs, tmp_path, caplog):
    with caplog.at_level("WARNING"), attached(caplog.handler):
        model, info = MaskFormerForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, MaskFormerForUniversalSegmentation) and model.name_or_path == str(tmp_path)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} holds transformers' own MaskFormer; its configuration and weights are converted."
    ]


@contextlib.contextmanager
def attached(handler):
    """transformers' messages do not reach the root logger, where caplog listens."""
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
