"""The pages of docs/ are true: commands name what exists, links lead somewhere, and the Python of deployment runs.

That of migration has a test of its own, tests/test_migration.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from documents import check_command, commands, leads_somewhere, links, python_blocks
from PIL import Image
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from helpers import ROOT, with_segments
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.export import main as export

PAGES = sorted((ROOT / "docs").glob("*.md"))
DEPLOYMENT = python_blocks(ROOT / "docs" / "deployment.md")
ELSEWHERE = ("Trainer(", "peft", "OnnxModel")  # in examples with a test of their own


def of_pages(read) -> list:
    return [pytest.param(page, item, id=f"{page.stem}: {item}") for page in PAGES for item in read(page)]


@pytest.mark.parametrize(("page", "command"), of_pages(commands))
def test_commands_name_what_exists(page, command, monkeypatch):
    check_command(command, monkeypatch)


@pytest.mark.parametrize(("page", "target"), of_pages(links))
def test_links_lead_somewhere(page, target):
    assert leads_somewhere(page, target)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the examples of deployment name, made tiny."""
    return tmp_path_factory.mktemp("deployment")


@pytest.fixture
def named(place, tiny_model, monkeypatch):
    """What the examples take for granted."""
    monkeypatch.chdir(place)
    random = np.random.default_rng(0)
    if not (place / "photo.jpg").exists():
        for folder in (place / "outputs/demo/best", place / "some/folder"):
            with_segments(tiny_model()).save_pretrained(folder)
            MaskFormerUniversalImageProcessorPil(
                size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
            ).save_pretrained(folder)
        theirs = place / "facebook/maskformer-swin-tiny-ade"
        MaskFormerForInstanceSegmentation(tiny_config_of_transformers()).save_pretrained(theirs)
        MaskFormerImageProcessorPil().save_pretrained(theirs)
        Image.fromarray(random.integers(0, 255, (50, 70, 3), np.uint8)).save(place / "photo.jpg")
    examples = [{"image": random.integers(0, 255, (64, 64, 3), np.uint8), "labels": np.eye(64, dtype=np.uint8)}] * 2
    return {"training_examples": examples, "validation_examples": examples}


def tiny_config_of_transformers() -> MaskFormerConfig:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    decoder = {"model_type": "detr", "d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 64, "num_queries": 5}
    return MaskFormerConfig(
        backbone_config=backbone | {"window_size": 3, "out_features": stages},
        decoder_config=decoder | {"decoder_attention_heads": 4},
        fpn_feature_size=32,
        mask_feature_size=16,
    )


def run(code: str, names: dict) -> dict:
    exec(compile(code, "deployment.md", "exec"), names)
    return names


@pytest.mark.parametrize(
    "code", [code for code in DEPLOYMENT if not any(word in code for word in ELSEWHERE)], ids=lambda code: code[-60:]
)
def test_examples_of_deployment_run(code, named):
    run(code, named)


def test_the_examples_of_the_trainer_and_of_lora_after_it(named, place):
    (trainer,), (lora,) = ([code for code in DEPLOYMENT if word in code] for word in ("Trainer(", "peft"))
    before = {name: value.clone() for name, value in run(trainer, named)["model"].state_dict().items()}
    run(lora, named)
    merged = type(named["model"]).from_pretrained(place / "outputs/merged")
    assert merged.state_dict().keys() == before.keys()


@pytest.mark.slow
def test_the_example_of_onnx(named, place):
    export(["outputs/demo/best", "--output", "model.onnx"])
    (code,) = (code for code in DEPLOYMENT if "OnnxModel" in code)
    assert run(code, named)["panoptic"]["segmentation"].shape == torch.Size([50, 70])
