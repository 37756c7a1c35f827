"""Folders and files that a conversion reads and writes: whole, or not at all."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from maskformer.convert.weights import read_folder
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentation
from maskformer.modeling.modeling_per_pixel_baseline import PerPixelBaselineForSemanticSegmentation
from maskformer.training.checkpoint import replace_folder

MODELS = {
    MaskFormerUniversalConfig: MaskFormerForUniversalSegmentation,
    PerPixelBaselineConfig: PerPixelBaselineForSemanticSegmentation,
}
CONFIG, PROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"


def read_model_folder(folder: Path, *classes: type[PreTrainedConfig]) -> tuple[PreTrainedConfig, dict]:
    """Configuration, of one of `classes` (ours, if none is given), and state dict of the model in `folder`.

    Raises `ValueError` where the folder holds no model, or another kind of model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: this is not the folder of a model, it has no {CONFIG}")
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        config_class = {cls.model_type: cls for cls in classes or MODELS}.get(kind)
        config = config_class.from_pretrained(folder) if config_class else None
    except Exception as error:  # no JSON, no mapping, or values that the strict dataclasses refuse
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if config is None:
        known = " or ".join(cls.model_type for cls in classes or MODELS)
        raise ValueError(f"{path}: the model_type must be {known} here, not {kind!r}")
    return config, read_folder(folder)


def fill(model: PreTrainedModel, state_dict: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """`model` with the weights of `state_dict`, strictly, in their precision; in evaluation mode."""
    model.load_state_dict(state_dict, strict=True, assign=True)
    return model.eval()


def build_model(config: PreTrainedConfig, state_dict: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Our model of `config` with those weights."""
    return fill(MODELS[type(config)](config), state_dict)


def check_output(out: Path, overwrite: bool) -> None:
    """Raises `ValueError` if `out` exists, unless it may be overwritten: a file, an empty folder, or a model's."""
    if not out.exists():
        return
    if not overwrite:
        raise ValueError(f"{out}: this exists already; --overwrite replaces it")
    if out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file():
        raise ValueError(f"{out}: this folder holds something else than a model, and is not replaced")


def write_model_folder(out: Path, model: PreTrainedModel, card: str, save_processor: Callable[[Path], None]) -> None:
    """Writes `model`, its image processor and its model card into the folder `out`, all or nothing."""
    if out.is_file():
        raise ValueError(f"{out}: this is a file, and a folder is to be written")
    with replace_folder(out) as new:
        model.save_pretrained(new)
        save_processor(new)
        (new / CARD).write_text(card, encoding="utf-8")


def write_file(out: Path, save: Callable[[Path], None]) -> None:
    """Lets `save` write the file `out`, all or nothing."""
    if out.is_dir():
        raise ValueError(f"{out}: this is a folder, and a file is to be written")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.new")
    try:
        save(temporary)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def save_official(state_dict: Mapping[str, torch.Tensor], out: Path) -> None:
    """Writes an official checkpoint as detectron2 loads it: `.pth` of tensors, or `.pkl` of arrays.

    Raises `ValueError` for another ending, and for numbers that arrays do not have.
    """
    if out.suffix == ".pth":
        write_file(out, lambda path: torch.save({"model": state_dict}, path))
        return
    if out.suffix != ".pkl":
        raise ValueError(f"{out}: an official checkpoint ends in .pth or .pkl")
    arrays = type(state_dict)()
    for name, value in state_dict.items():
        if value.dtype == torch.bfloat16:
            raise ValueError(f"{name} is bfloat16, which arrays are not; write a .pth")
        arrays[name] = value.numpy()
    arrays._metadata = state_dict._metadata
    content = {"model": arrays, "__author__": "maskformer"}
    write_file(out, lambda path: path.write_bytes(pickle.dumps(content, protocol=4)))
