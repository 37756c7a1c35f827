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

from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineImageProcessor,
    PerPixelBaselineImageProcessorPil,
)
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalModel
from maskformer.modeling.modeling_per_pixel_baseline import (
    PerPixelBaselineForSemanticSegmentation,
    PerPixelBaselineModel,
)

__version__ = "0.1.0"

# Public names that need not be loaded with the package, and where they live.
LAZY = {
    "SegmentationMetrics": "maskformer.training.trainer_metrics",
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
    "PerPixelBaselineForSemanticSegmentation",
    "PerPixelBaselineImageProcessor",
    "PerPixelBaselineImageProcessorPil",
    *LAZY,
]


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'maskformer' has no attribute {name!r}")
    return getattr(importlib.import_module(LAZY[name]), name)


def _register() -> None:
    """Makes `Auto...from_pretrained` and `pipeline("image-segmentation")` know the models; may be called again."""
    _register_model(
        MaskFormerUniversalConfig,
        MaskFormerUniversalModel,
        MaskFormerForUniversalSegmentation,
        (AutoModelForUniversalSegmentation, AutoModelForImageSegmentation, AutoModelForSemanticSegmentation),
        {"torchvision": MaskFormerUniversalImageProcessor, "pil": MaskFormerUniversalImageProcessorPil},
    )
    _register_model(
        PerPixelBaselineConfig,
        PerPixelBaselineModel,
        PerPixelBaselineForSemanticSegmentation,
        (AutoModelForSemanticSegmentation,),
        {"torchvision": PerPixelBaselineImageProcessor, "pil": PerPixelBaselineImageProcessorPil},
    )


def _register_model(config, base_model, model, auto_classes, image_processors) -> None:
    """Registers one configuration, its models and its image processors; saved folders will hold their code."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, base_model, exist_ok=True)
    for auto_class in auto_classes:
        auto_class.register(config, model, exist_ok=True)
    AutoImageProcessor.register(config, image_processor_classes=image_processors, exist_ok=True)
    config.register_for_auto_class()
    base_model.register_for_auto_class()
    model.register_for_auto_class(auto_classes[0])
    for image_processor in image_processors.values():
        image_processor.register_for_auto_class()


_register()
