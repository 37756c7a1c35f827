"""Files of weights: detectron2's pickles, PyTorch's `.pth` of any age, safetensors, and folders of models."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import reprlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

from maskformer.convert.pickles import LEGACY_MAGIC, Storages, as_tensor, load_legacy, load_pickle

HUB_NAME = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)|(timm/[\w.-]+)")
FILES = ("model.safetensors", "pytorch_model.bin")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of weights, or in its entry `model` or `state_dict`, by name.

    The content decides what the file is, not its name. Pickles are read without running anything (see `pickles`).
    Raises `ValueError` where the file is missing, damaged, asks for more than weights need, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights" + (", it is a folder" if path.is_dir() else ""))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content, storages = read_pickled(path)
        return select_tensors(content, storages, path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # whatever a damaged file makes zip, pickle, torch and safetensors raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: the file is damaged, cut short, or holds no weights ({reason})") from error


def read_pickled(path: Path) -> tuple[Any, Storages]:
    """The content of a pickle, or of a file that `torch.save` wrote, with records in place of tensors."""
    with path.open("rb") as file:
        start = file.read(9)
        file.seek(0)
        if not start:
            raise ValueError("the file is empty")
        if start.startswith(b"PK\x03\x04"):
            return read_zip(path)
        if start[0] != 0x80:  # a pickle of protocol 2 or newer
            raise ValueError("this is neither a pickle, nor a file of torch.save, nor safetensors")
        content = load_pickle(file)
        if content == LEGACY_MAGIC:
            file.seek(0)
            return load_legacy(file)
        return content, Storages({}.__getitem__)


def read_zip(path: Path) -> tuple[Any, Storages]:
    """The content of a file that `torch.save` writes since version 1.6."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its entries are compressed, which torch.save never does")
        if sum(entry.compress_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("its entries overlap: together they are larger than the file")
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("this zip is no checkpoint: it has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")
        content = load_pickle(io.BytesIO(archive.read(pickles[0])))

    def read(key: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{folder}data/{key}")

    return content, Storages(read)


def select_tensors(content: Any, storages: Storages, most_bytes: int) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's `model` or `state_dict`; of itself, if it has neither.

    Raises `ValueError` where it holds anything else, or tensors of more than `most_bytes`, which a file of that size
    has only where they are made of the same bytes over and over.
    """
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"a file of weights maps names to tensors; this one holds {type(content).__name__}")
    tensors, memory = {}, {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise ValueError(f"a file of weights maps names to tensors; {reprlib.repr(name)} is no name")
        try:
            tensors[name] = as_tensor(value, storages)
        except Exception as error:
            raise ValueError(f"{name[:200]}: {error}") from error
        storage = tensors[name].untyped_storage()
        most_bytes -= 0 if storage.data_ptr() in memory else storage.nbytes()
        memory[storage.data_ptr()] = storage
        if most_bytes < 0:
            raise ValueError(f"{name[:200]}: with this tensor, they are larger than the file that they come from")
    return tensors


def read_folder(folder: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a folder that `save_pretrained` wrote, in one file or several.

    Raises `ValueError` where there is none, or a file of it is missing or cannot be read.
    """
    return {key: value for file in find_folder_weights(folder) for key, value in read_weights(file).items()}


def find_folder_weights(folder: str | Path) -> list[Path]:
    """The files with the weights of a model folder. Raises `ValueError` where there are none."""
    folder = Path(folder)
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / part for part in read_index(index)]
    raise ValueError(f"{folder}: this is not the folder of a model, it has no {' or '.join(FILES)}")


def read_index(path: Path) -> list[str]:
    """The names of the files that an index of several lists. Raises `ValueError` where it is none."""
    try:
        return sorted({Path(part).name for part in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: this needs a weight_map from names of weights to names of files") from error


def find_weights(name: str) -> Path:
    """The file that `name` stands for: a path, `package:NAME/PATH` inside an installed package, or a timm model of the
    Hub, as `timm/resnet50.a1_in1k` or `hf-hub:owner/name`.

    Raises `ValueError` where the package is not installed, or the Hub has no such model or cannot be reached.
    """
    if name.startswith("package:"):
        package, _, inside = name.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f'{name}: the package {package!r} is not installed; pip install ".[demo]" brings the demo\'s'
            )
        return Path(spec.submodule_search_locations[0]) / inside
    match = HUB_NAME.fullmatch(name)
    if match is None or Path(name).exists():
        return Path(name)
    errors = []
    for file in FILES:
        try:
            return Path(hf_hub_download(match[1] or match[2], file))
        except Exception as error:  # no connection, no such model, no such file, no permission
            errors.append(f"{file}: {' '.join(str(error).split())[:200]}")
    raise ValueError(f"{name}: there is no such file, and the Hub did not give it ({'; '.join(errors)})")
