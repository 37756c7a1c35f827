"""A saved folder is loaded by its own code where this package is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

import maskformer
from helpers import with_segments

SIZE = {"shortest_edge": 64, "longest_edge": 128}
# Run with the packages of this environment but without the finders that would make `maskformer` importable.
PROGRAM = """
import sys
sys.path.append(sys.argv[1])
import importlib.util, json, logging
assert importlib.util.find_spec("maskformer") is None
import transformers
records = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: records.append(record.getMessage())
transformers.utils.logging.add_handler(handler)
folder, image, out = sys.argv[2:5]
answers = {}
for name in sys.argv[5:]:
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    answers[name] = type(model).__name__
segmenter = transformers.pipeline("image-segmentation", model=folder, trust_remote_code=True)
for subtask in (None, "semantic"):
    found = segmenter(image, subtask=subtask, threshold=0.2)
    answers[str(subtask)] = [[s["label"], s["score"], sum(v > 0 for v in s["mask"].tobytes())] for s in found]
pil = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=True)
answers["processors"] = [type(segmenter.image_processor).__name__, type(pil).__name__]
segmenter.model.save_pretrained(out)
segmenter.image_processor.save_pretrained(out)
again = transformers.AutoModelForSemanticSegmentation.from_pretrained(out, trust_remote_code=True)
answers["again"] = type(again).__name__
assert "maskformer" not in sys.modules
answers["warnings"] = records
print(json.dumps(answers))
"""


def save(model, processor, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run_elsewhere(folder: Path, tmp_path: Path, auto_classes: list[str]) -> dict:
    """What the program says of `folder`, run in a directory, an environment and a cache of its own."""
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(image)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    packages = str(Path(transformers.__file__).resolve().parent.parent)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(elsewhere),
        "HF_HOME": str(elsewhere / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    # -I -S: neither this directory nor the .pth files by which an editable installation is found.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, packages, str(folder), str(image), str(tmp_path / "again")]
    result = subprocess.run([*command, *auto_classes], cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def expected_answers(folder: Path, tmp_path: Path) -> dict:
    """The same answers by the installed package."""
    segmenter = transformers.pipeline("image-segmentation", model=str(folder))
    answers = {}
    for subtask in (None, "semantic"):
        found = segmenter(str(tmp_path / "image.png"), subtask=subtask, threshold=0.2)
        answers[str(subtask)] = [[s["label"], s["score"], int((np.array(s["mask"]) > 0).sum())] for s in found]
    return answers


def test_a_folder_names_its_classes_and_holds_their_files(tiny_model, tmp_path):
    save(tiny_model(), maskformer.MaskFormerUniversalImageProcessorPil(size=SIZE), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    named = [*config["auto_map"].values(), *processor["auto_map"]["AutoImageProcessor"].values()]
    assert set(config["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForImageSegmentation",
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
    }
    for reference in named:
        module, name = reference.split(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-segmentation\n") and "label 3" in card


def test_a_model_card_that_is_there_is_kept(tiny_model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    tiny_model().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.slow
def test_maskformer_without_the_package(tiny_model, tmp_path):
    model = with_segments(tiny_model(backbone="swin_tiny_patch4_window7_224", pixel_decoder_encoder_layers=1))
    folder = save(model, maskformer.MaskFormerUniversalImageProcessor(size=SIZE, label_ids_to_fuse=[0]), tmp_path / "m")
    names = [f"AutoModel{kind}" for kind in ("", *(f"For{task}Segmentation" for task in ("Universal", "Image")))]
    answers = run_elsewhere(folder, tmp_path, names)
    expected = expected_answers(folder, tmp_path)
    assert expected["None"]
    assert {key: answers[key] for key in expected} == expected
    model_class = "MaskFormerForUniversalSegmentation"
    assert [answers[name] for name in names] == ["MaskFormerUniversalModel", model_class, model_class]
    assert answers["again"] == model_class
    assert answers["processors"] == ["MaskFormerUniversalImageProcessor", "MaskFormerUniversalImageProcessorPil"]
    assert answers["warnings"] == []


@pytest.mark.slow
def test_a_per_pixel_baseline_without_the_package(tiny_per_pixel_model, tmp_path):
    model = tiny_per_pixel_model(use_transformer_decoder=True)
    folder = save(model, maskformer.PerPixelBaselineImageProcessorPil(size=SIZE), tmp_path / "m")
    names = ["AutoModel", "AutoModelForSemanticSegmentation"]
    answers = run_elsewhere(folder, tmp_path, names)
    expected = expected_answers(folder, tmp_path)
    assert {key: answers[key] for key in expected} == expected
    assert [answers[name] for name in names] == ["PerPixelBaselineModel", "PerPixelBaselineForSemanticSegmentation"]
    assert answers["processors"] == ["PerPixelBaselineImageProcessor", "PerPixelBaselineImageProcessorPil"]
    assert answers["warnings"] == []
