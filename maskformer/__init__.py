"""MaskFormer, complete: semantic, instance and panoptic segmentation as transformers-style models.

Importing the package registers its models with transformers' Auto classes and pipelines.
"""

from __future__ import annotations

import importlib

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES

from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
)
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalModel

__version__ = "0.1.0"

# Public names that need not be loaded with the package, and where they live.
LAZY = {
    "list_recipes": "maskformer.recipes",
    "load_recipe": "maskformer.recipes",
}

__all__ = [
    "MaskFormerForUniversalSegmentation",
    "MaskFormerUniversalConfig",
    "MaskFormerUniversalImageProcessor",
    "MaskFormerUniversalImageProcessorPil",
    "MaskFormerUniversalModel",
    "PerPixelBaselineConfig",
    *LAZY,
]


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'maskformer' has no attribute {name!r}")
    return getattr(importlib.import_module(LAZY[name]), name)


def _register() -> None:
    """Makes `Auto...from_pretrained` and `pipeline("image-segmentation")` know the models; may be called again."""
    config, model = MaskFormerUniversalConfig, MaskFormerForUniversalSegmentation
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, MaskFormerUniversalModel, exist_ok=True)
    for auto_class in (
        AutoModelForUniversalSegmentation,
        AutoModelForImageSegmentation,
        AutoModelForSemanticSegmentation,
    ):
        auto_class.register(config, model, exist_ok=True)
    AutoImageProcessor.register(
        config,
        image_processor_classes={
            "torchvision": MaskFormerUniversalImageProcessor,
            "pil": MaskFormerUniversalImageProcessorPil,
        },
        exist_ok=True,
    )
    # The pipeline checks this table of names too, and logs an error for a model that is not in it.
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES[config.model_type] = model.__name__


_register()
