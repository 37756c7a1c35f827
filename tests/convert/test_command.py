"""`python -m maskformer.convert`: what it writes, and that it writes nothing for wrong input."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
)
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from maskformer import MaskFormerForUniversalSegmentation
from maskformer.convert import to_official
from maskformer.convert.__main__ import main
from maskformer.convert.folders import MODELS
from maskformer.recipes import load_recipe

WIDTHS = {
    **{"feature_size": 32, "mask_feature_size": 16, "hidden_size": 32, "intermediate_size": 16, "decoder_layers": 1},
    **{"num_attention_heads": 4, "num_queries": 5},
}
MODEL = {"backbone": "resnet50", "backbone_kwargs": {"layers": [1, 1, 1, 1]}, **WIDTHS}
PROCESSOR = {"size": {"shortest_edge": 96, "longest_edge": 200}, "resize_masks_first": True}


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A small recipe."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"labels": "cityscapes-19", "model": MODEL, "image_processor": PROCESSOR}))
    return path


@pytest.fixture
def official(recipe) -> dict:
    """Official weights for it."""
    torch.manual_seed(0)
    model = MaskFormerForUniversalSegmentation(load_recipe(recipe).build_config())
    return to_official(model.state_dict(), model.config)


def convert(capsys, *words) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    capsys.readouterr()  # bars of what the test wrote before
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, tmp_path, *words) -> str:
    """The line of an error, after exit code 2 with nothing written."""
    before = sorted(tmp_path.rglob("*"))
    code, _, error = convert(capsys, *words)
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    return error


def v1_arrays(official: dict) -> dict:
    """The layout of published files."""
    return {
        name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): value.numpy()
        for name, value in official.items()
        if name != "criterion.empty_weight"
    }


@pytest.mark.parametrize("form", ["published", "training"])
def test_official_checkpoints_become_folders_that_load_and_come_back(capsys, tmp_path, recipe, official, form):
    checkpoint, out = tmp_path / "model_final.pkl", tmp_path / "out"
    if form == "published":
        checkpoint.write_bytes(pickle.dumps({"model": v1_arrays(official), "__author__": "someone"}))
    else:
        torch.save({"model": official, "optimizer": {"state": [torch.ones(2)]}, "iteration": 9}, checkpoint)
    code, output, _ = convert(capsys, "from-official", checkpoint, out, "--recipe", recipe, "--verify")
    assert code == 0 and "entries are the same" in output and "finite" in output
    model, loading = AutoModelForUniversalSegmentation.from_pretrained(out, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.id2label[0] == "road" and model.config.num_queries == 5
    processor = AutoImageProcessor.from_pretrained(out)
    assert processor.size["shortest_edge"] == 96 and processor.resize_masks_first
    assert processor.label_ids_to_fuse == load_recipe(recipe).label_set().stuff_ids
    card = (out / "README.md").read_text()
    assert all(text in card for text in ("model_final.pkl", "CC BY-NC 4.0", "from_pretrained", str(recipe)))
    assert "shortest edge 96, longest at most 200" in card and "masks are resized, then combined" in card
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in card
    for name in ("back.pth", "back.pkl"):
        assert convert(capsys, "to-official", out, tmp_path / name, "--verify")[0] == 0
    tensors = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    arrays = pickle.loads((tmp_path / "back.pkl").read_bytes())["model"]
    assert b"numpy._core" not in (tmp_path / "back.pkl").read_bytes()  # which numpy 1 does not know
    assert tensors.keys() == arrays.keys() == official.keys()
    for name, value in official.items():
        assert torch.equal(tensors[name], value) and torch.equal(torch.from_numpy(arrays[name]), value)
    # The official head takes weights without this for the v1 layout, and renames them.
    assert tensors._metadata == arrays._metadata == {"sem_seg_head": {"version": 2}}


def test_the_recipe_is_inferred_where_one_fits(capsys, tmp_path, monkeypatch, recipe, official):
    other = yaml.safe_load(recipe.read_text())
    other["model"]["num_queries"] = 6
    (tmp_path / "six.yaml").write_text(yaml.safe_dump(other))
    (tmp_path / "twin.yaml").write_text(recipe.read_text())
    checkpoint, out = tmp_path / "model.pth", tmp_path / "out"
    torch.save({"model": official}, checkpoint)

    def known(*names: str) -> None:
        names = ("shapes/demo", *(str(tmp_path / f"{name}.yaml") for name in names))
        monkeypatch.setattr("maskformer.convert.recipe_inference.list_recipes", lambda: list(names))

    known("small", "twin", "six")
    error = refused(capsys, tmp_path, "from-official", checkpoint, out)
    assert "several recipes" in error and "small.yaml" in error and "twin.yaml" in error and "six.yaml" not in error
    known("six")
    error = refused(capsys, tmp_path, "from-official", checkpoint, out)
    assert "fit no recipe; the nearest is" in error and "query_embed.weight is (5, 32), not (6, 32)" in error
    known("small", "six")
    code, output, _ = convert(capsys, "from-official", checkpoint, out)
    assert code == 0 and "small.yaml, by the names and shapes" in output


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_bad_checkpoints_are_one_line_and_leave_nothing(capsys, tmp_path, recipe, official):
    out, path = tmp_path / "out", tmp_path / "bad.pth"
    torch.save({"model": official}, path)
    whole = path.read_bytes()
    cases = {
        "asks for builtins.exec": pickle.dumps({"model": Evil()}),
        "damaged, cut short": whole[: len(whole) // 2],
        "nothing left over, sem_seg_head.predictor.class_embed.bias (20,) missing": {
            name: value for name, value in official.items() if name != "sem_seg_head.predictor.class_embed.bias"
        },
        "floating-point numbers": {
            name: value.long() if name.endswith("class_embed.bias") else value for name, value in official.items()
        },
        "more than one precision": {
            name: value.half() if name.endswith("class_embed.bias") else value for name, value in official.items()
        },
        "extra.weight (1,) left over": official | {"extra.weight": torch.ones(1)},
        "query_embed.weight is (6, 32), not (5, 32)": official
        | {"sem_seg_head.predictor.query_embed.weight": torch.ones(6, 32)},
        "0.weight (2, 2), 0.bias (2,) left over": torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict(),
        "the file is empty": b"",
        "neither a pickle": b"<!DOCTYPE html>\n<html>",
    }
    for message, content in cases.items():
        path.write_bytes(content) if isinstance(content, bytes) else torch.save({"model": content}, path)
        error = refused(capsys, tmp_path, "from-official", path, out, "--recipe", recipe)
        assert message in error and str(path) in error
        if isinstance(content, bytes):
            for command in (["backbone", path, out, "--recipe", recipe], ["from-official", path, out]):
                assert message in refused(capsys, tmp_path, *command)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "hello")
    assert "zip is no checkpoint" in refused(capsys, tmp_path, "from-official", path, out, "--recipe", recipe)
    assert "no such file" in refused(capsys, tmp_path, "from-official", tmp_path / "none.pkl", out, "--recipe", recipe)
    assert "there is no recipe" in refused(capsys, tmp_path, "from-official", path, out, "--recipe", "nothing")


def test_the_program_itself_ends_with_code_2(tmp_path, recipe):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": Evil()}))
    command = [sys.executable, "-m", "maskformer.convert", "from-official", path, tmp_path / "out", "--recipe", recipe]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "code ran" not in result.stdout + result.stderr
    assert result.stderr.strip().splitlines()[-1].endswith("arrays, tensors and plain containers only")
    assert not (tmp_path / "out").exists()


def their_folder(folder: Path, dtype: torch.dtype = torch.float32, processor: bool = True) -> dict:
    """A folder of transformers' MaskFormer; returns its state dict."""
    config = MaskFormerConfig(
        backbone_config={
            "model_type": "resnet",
            "depths": [1, 1, 1, 1],
            "out_features": [f"stage{i + 1}" for i in range(4)],
        },
        decoder_config={
            **{"model_type": "detr", "d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 16, "num_queries": 5},
            "decoder_attention_heads": 4,
        },
        **{
            "fpn_feature_size": 32,
            "mask_feature_size": 16,
            "id2label": {0: "cat", 1: "sky"},
            "label2id": {"cat": 0, "sky": 1},
        },
    )
    torch.manual_seed(0)
    model = MaskFormerForInstanceSegmentation(config).to(dtype)
    model.save_pretrained(folder)
    if processor:
        MaskFormerImageProcessorPil(size={"shortest_edge": 99, "longest_edge": 300}).save_pretrained(folder)
    return model.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_folders_of_transformers_both_ways(capsys, tmp_path, dtype):
    their_folder(tmp_path / "theirs", dtype)
    code, output, _ = convert(capsys, "from-transformers", tmp_path / "theirs", tmp_path / "ours", "--verify")
    assert code == 0 and "logits before and after differ by" in output
    model = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "ours", dtype="auto")
    assert model.dtype == dtype and model.config.id2label == {0: "cat", 1: "sky"}
    assert AutoImageProcessor.from_pretrained(tmp_path / "ours").size["shortest_edge"] == 99
    code, output, _ = convert(capsys, "to-transformers", tmp_path / "ours", tmp_path / "back", "--verify")
    assert code == 0 and "verified" in output
    given, back = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert given.keys() == back.keys()
    assert all(torch.equal(value, back[name]) and value.dtype == back[name].dtype for name, value in given.items())
    processors = [(tmp_path / name / "preprocessor_config.json").read_text() for name in ("theirs", "back")]
    assert processors[0] == processors[1]


def test_folders_of_another_kind_are_refused(capsys, tmp_path, recipe, official):
    their_folder(tmp_path / "theirs", processor=False)
    out = tmp_path / "out"
    assert "must be maskformer_universal" in refused(
        capsys, tmp_path, "to-official", tmp_path / "theirs", tmp_path / "x.pth"
    )
    assert "must be maskformer_universal" in refused(capsys, tmp_path, "to-transformers", tmp_path / "theirs", out)
    assert "it has no config.json" in refused(capsys, tmp_path, "from-transformers", tmp_path, out)
    assert convert(capsys, "from-transformers", tmp_path / "theirs", out)[0] == 0
    assert "must be maskformer here" in refused(capsys, tmp_path, "from-transformers", out, tmp_path / "again")
    assert "ends in .pth or .pkl" in refused(capsys, tmp_path, "to-official", out, tmp_path / "x.bin")
    (out / "config.json").write_text("{")
    assert "config.json" in refused(capsys, tmp_path, "to-official", out, tmp_path / "x.pth")


def test_outputs_are_replaced_on_request_only(capsys, tmp_path):
    their_folder(tmp_path / "theirs")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    command = ("from-transformers", tmp_path / "theirs", out)
    assert "exists already" in refused(capsys, tmp_path, *command)
    assert "something else than a maskformer_universal" in refused(capsys, tmp_path, *command, "--overwrite")
    (out / "config.json").write_text('{"model_type": "bert"}')
    assert "something else than a maskformer_universal" in refused(capsys, tmp_path, *command, "--overwrite")
    (out / "config.json").unlink()
    inside = ("from-transformers", tmp_path / "theirs", tmp_path / "theirs", "--overwrite")
    assert "holds what is read" in refused(capsys, tmp_path, *inside)
    assert "holds what is read" in refused(capsys, tmp_path, *inside[:2], tmp_path, "--overwrite")
    (out / "notes.txt").unlink()
    assert convert(capsys, *command, "--overwrite")[0] == 0
    (out / "stale.txt").write_text("stale")
    assert convert(capsys, *command, "--overwrite")[0] == 0
    assert not (out / "stale.txt").exists() and (out / "model.safetensors").exists()
    assert convert(capsys, "to-official", out, tmp_path / "x.pth")[0] == 0
    assert "exists already" in refused(capsys, tmp_path, "to-official", out, tmp_path / "x.pth")


def test_backbone_weights_go_into_folders_and_files(capsys, tmp_path, recipe, official):
    arrays = {name.removeprefix("backbone."): value.numpy() for name, value in official.items() if "backbone." in name}
    checkpoint, folder, file = tmp_path / "R-50.pkl", tmp_path / "model", tmp_path / "backbone.safetensors"
    checkpoint.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision"}))
    code, output, _ = convert(capsys, "backbone", checkpoint, folder, "--recipe", recipe, "--verify")
    assert code == 0 and "finite" in output
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    found = to_official(model.state_dict(), model.config)
    assert all(torch.equal(found[f"backbone.{name}"], torch.from_numpy(value)) for name, value in arrays.items())
    assert convert(capsys, "backbone", checkpoint, file, "--model", folder)[0] == 0
    assert torch.equal(load_file(file)["conv1.weight"], torch.from_numpy(arrays["stem.conv1.weight"]))
    for path in (folder, tmp_path / "second"):
        assert convert(capsys, "backbone", file, path, "--model", folder, "--overwrite")[0] == 0
        again = AutoModelForUniversalSegmentation.from_pretrained(path).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    whole = tmp_path / "whole.pth"
    torch.save({"model": official}, whole)
    assert "not the weights of 'resnet50'" in refused(
        capsys, tmp_path, "backbone", whole, tmp_path / "x", "--recipe", recipe
    )


@pytest.mark.parity
def test_the_recipe_of_published_weights_is_found(tmp_path, capsys):
    for name, expected in {
        "ade20k-150/maskformer_swin_tiny": "ade20k-150/maskformer_swin_tiny",
        "cityscapes-19/per_pixel_baseline_r101": "cityscapes-19/per_pixel_baseline_r101",
        "coco-panoptic/maskformer_r50": None,  # DETR's post-processing has the same network
    }.items():
        config = load_recipe(name).build_config()
        with torch.device("meta"):
            model = MODELS[type(config)](config)
        state = to_official(model.to_empty(device="cpu").state_dict(), config)
        torch.save({"model": state}, tmp_path / "model.pth")
        code, output, error = convert(capsys, "from-official", tmp_path / "model.pth", tmp_path / "out", "--overwrite")
        if expected is None:
            assert code == 2 and "coco-panoptic/maskformer_r50, " not in output
            assert "coco-panoptic/maskformer_detr_r50" in error and "coco-panoptic/maskformer_r50" in error
        else:
            assert code == 0 and f"recipe: {expected}, by" in output
