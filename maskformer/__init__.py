"""MaskFormer, complete: semantic, instance and panoptic segmentation as transformers-style models.

Importing the package makes transformers' Auto classes and pipelines know its models; the models themselves are loaded
when they are first asked for.
"""

from __future__ import annotations

import importlib

from maskformer.registration import register

__version__ = "0.1.0"

# Public names, and the modules where they live.
NAMES = {
    "MaskFormerForUniversalSegmentation": "maskformer.modeling.modeling_maskformer",
    "MaskFormerUniversalConfig": "maskformer.modeling.configuration_maskformer",
    "MaskFormerUniversalImageProcessor": "maskformer.image_processing.image_processing_maskformer",
    "MaskFormerUniversalImageProcessorPil": "maskformer.image_processing.image_processing_maskformer",
    "MaskFormerUniversalModel": "maskformer.modeling.modeling_maskformer",
    "PerPixelBaselineConfig": "maskformer.modeling.configuration_maskformer",
    "PerPixelBaselineForSemanticSegmentation": "maskformer.modeling.modeling_per_pixel_baseline",
    "PerPixelBaselineImageProcessor": "maskformer.image_processing.image_processing_maskformer",
    "PerPixelBaselineImageProcessorPil": "maskformer.image_processing.image_processing_maskformer",
    "PerPixelBaselineModel": "maskformer.modeling.modeling_per_pixel_baseline",
    "SegmentationMetrics": "maskformer.training.trainer_metrics",
    "list_recipes": "maskformer.recipes",
    "load_recipe": "maskformer.recipes",
}

PACKAGES = ("convert", "data", "evaluation", "image_processing", "metrics", "modeling", "recipes", "training")

__all__ = [*NAMES]


def __getattr__(name: str):
    if name in PACKAGES:
        return importlib.import_module(f"maskformer.{name}")
    if name not in NAMES:
        raise AttributeError(f"module 'maskformer' has no attribute {name!r}")
    return getattr(importlib.import_module(NAMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *NAMES, *PACKAGES]


register()
