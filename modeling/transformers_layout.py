"""Checkpoints of transformers' own MaskFormer, as the Hub holds them (`model_type` "maskformer"), read directly."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import MaskFormerConfig, PreTrainedConfig

# Arguments of `from_pretrained` that say where files come from, and those of them that `snapshot_download` has.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
DOWNLOAD_ARGUMENTS = HUB_ARGUMENTS[:-1]


@contextmanager
def without_warnings(name: str) -> Iterator[None]:
    """Keeps the logger `name` to errors: transformers warns of the very Swin Transformers that it saves."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def is_transformers_layout(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether `name`, a folder or a repository, holds a model of transformers' own MaskFormer."""
    hub = {key: kwargs[key] for key in HUB_ARGUMENTS if kwargs.get(key) is not None}
    try:
        values, _ = PreTrainedConfig.get_config_dict(name, **hub)
    except (OSError, ValueError):
        return False  # whoever loads it says what is wrong
    return values.get("model_type") == MaskFormerConfig.model_type


def read_transformers_layout(name: str, kwargs: dict[str, Any]) -> tuple[PreTrainedConfig, dict]:
    """Our configuration and state dict of transformers' own MaskFormer in `name`, a folder or a repository.

    Raises `ImportError` where this package is not installed (this file travels without it), and `ValueError` for
    configurations that cannot be expressed here, and weights that do not fit.
    """
    try:
        convert = importlib.import_module("maskformer.convert.hugging_face")
        configs = importlib.import_module("maskformer.convert.hugging_face_config")
        weights = importlib.import_module("maskformer.convert.weights")
    except ImportError as error:
        raise ImportError(
            f"{name} holds transformers' own MaskFormer; to convert it, the package maskformer must be installed:"
            " pip install maskformer-universal"
        ) from error
    folder = Path(name)
    if not folder.is_dir():
        hub = {key: kwargs[key] for key in DOWNLOAD_ARGUMENTS if key in kwargs}
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin"], **hub))
    folder = folder / (kwargs.get("subfolder") or "")
    with without_warnings("transformers.models.maskformer.configuration_maskformer"):
        theirs = MaskFormerConfig.from_pretrained(folder)
    config = configs.config_from_transformers(theirs)
    return config, convert.from_transformers(weights.read_folder(folder), config)
