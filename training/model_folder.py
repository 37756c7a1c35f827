"""Model folders, as the scripts read them."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, PreTrainedModel

from maskformer.data.nearest import nearest_path
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig

MODEL_TYPES = (MaskFormerUniversalConfig.model_type, PerPixelBaselineConfig.model_type)


def load_model_folder(folder: Path, model_types: tuple[str, ...] = MODEL_TYPES) -> tuple[PreTrainedModel, object]:
    """The model in `folder`, in evaluation mode, and its image processor, which resizes with PIL.

    Raises `ValueError`, in one line, where the folder holds no model or none of `model_types`, and where its files
    cannot be read or are not the whole model: weights that are missing would be random numbers.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a model folder: it has no config.json{near_model_folder(folder)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind not in model_types:
        hint = "; python -m maskformer.convert from-transformers makes one of it" if kind == "maskformer" else ""
        raise ValueError(f"{path}: the model_type must be {' or '.join(model_types)} here, not {kind!r}{hint}")
    try:
        # The one Auto class that knows both kinds of model.
        model, loading = AutoModelForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
        image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    except Exception as error:  # strict configurations, safetensors and transformers raise classes of their own
        raise ValueError(f"{folder}: {' '.join(str(error).split())}") from error
    for problem in ("missing", "unexpected"):
        if names := sorted(loading[f"{problem}_keys"]):
            raise ValueError(f"{folder}: {len(names)} weights are {problem}, such as {names[0]}")
    return model.eval(), image_processor


def near_model_folder(folder: Path) -> str:
    """`; did you mean ...?` for a `folder` that is none: its `best/`, or the nearest path that exists."""
    best = folder / "best"
    return f"; did you mean '{best}'?" if (best / "config.json").is_file() else nearest_path(folder)
