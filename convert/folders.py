"""Folders and files that a conversion reads and writes: whole, or not at all."""

from __future__ import annotations

import json
import pickle
import pickletools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from maskformer.convert.official import is_constant
from maskformer.convert.weights import read_folder
from maskformer.data.files import replace_file
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
    state_dict = read_folder(folder)
    check_numbers(state_dict)
    return config, state_dict


def check_numbers(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Raises `ValueError` where weights are no floating-point numbers, or not all of one precision."""
    weights = {
        key: value
        for key, value in state_dict.items()
        if not is_constant(key) and not key.endswith(".num_batches_tracked")
    }
    for key, value in weights.items():
        if not value.is_floating_point():
            raise ValueError(f"weights are floating-point numbers, {key} is {value.dtype}")
    precisions = {value.dtype: f"{key} is {value.dtype}" for key, value in weights.items()}
    if len(precisions) > 1:
        raise ValueError(f"these weights have more than one precision: {', '.join(precisions.values())}")


def fill(model: PreTrainedModel, state_dict: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """`model` with the weights of `state_dict`, strictly, in their precision; in evaluation mode."""
    check_numbers(state_dict)
    model.load_state_dict(state_dict, strict=True, assign=True)
    return model.eval()


def build_model(config: PreTrainedConfig, state_dict: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Our model of `config` with those weights."""
    return fill(MODELS[type(config)](config), state_dict)


def check_output(out: Path, overwrite: bool, sources: Sequence[Path], model_types: Sequence[str]) -> None:
    """Raises `ValueError` if `out` exists, unless it may be overwritten: a file, an empty folder, or that of a model of
    one of `model_types`; and never if one of `sources` lies there."""
    if not out.exists():
        return
    if not overwrite:
        raise ValueError(f"{out}: this exists already; --overwrite replaces it")
    for source in sources:
        if source.resolve().is_relative_to(out.resolve()):
            raise ValueError(f"{out}: this holds what is read, {source}, and is not replaced")
    if out.is_dir() and any(out.iterdir()) and read_model_type(out) not in model_types:
        raise ValueError(f"{out}: this folder holds something else than a {' or '.join(model_types)}, and is kept")


def read_model_type(folder: Path) -> str | None:
    """The kind of model in `folder`, if any."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("model_type") if isinstance(content, dict) else None


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
    with replace_file(out) as temporary:
        save(temporary)


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
    write_file(out, lambda path: path.write_bytes(portable(pickle.dumps(content, protocol=3))))


def portable(pickled: bytes) -> bytes:
    """A pickle of protocol 3 under the names that every version of numpy knows; numpy 2 writes its own, new ones."""
    parts, done = [], 0
    for opcode, argument, position in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument.startswith("numpy._core."):
            parts += [pickled[done:position], b"cnumpy.core."]
            done = position + len(b"cnumpy._core.")
    return b"".join([*parts, pickled[done:]])
