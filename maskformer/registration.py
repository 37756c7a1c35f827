"""Makes transformers' Auto classes and pipelines know the models, at the moment they are loaded themselves.

Whoever imports `maskformer` and never asks for an Auto class does not wait for models, image processors and what they
need; whoever does waits for transformers' own tables at the same time.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

import transformers  # noqa: F401  (its lazy top: threads that import it all at once get in each other's way)

CONFIGURATIONS = {"maskformer_universal": "MaskFormerUniversalConfig", "per_pixel_baseline": "PerPixelBaselineConfig"}


def register_configurations() -> None:
    """`AutoConfig` knows both configurations; may be called again."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig

    for config in (MaskFormerUniversalConfig, PerPixelBaselineConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)


def register_models() -> None:
    """`AutoModel` and the Auto classes of segmentation know the models by name; may be called again.

    Not by `AutoModel.register`, which needs the classes: transformers loads these tables in the middle of modules that
    the models themselves need. A name is looked up in the package when a model is asked for, as those of transformers
    are looked up in its own.
    """
    from transformers.models.auto import modeling_auto as auto

    head = "MaskFormerForUniversalSegmentation"
    baseline = "PerPixelBaselineForSemanticSegmentation"
    enter(
        auto.MODEL_MAPPING, maskformer_universal="MaskFormerUniversalModel", per_pixel_baseline="PerPixelBaselineModel"
    )
    enter(auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING, maskformer_universal=head)
    enter(auto.MODEL_FOR_IMAGE_SEGMENTATION_MAPPING, maskformer_universal=head)
    enter(auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, maskformer_universal=head, per_pixel_baseline=baseline)


def enter(mapping, **names: str) -> None:
    """Adds the models of `names`, by type, to one of transformers' lazy tables."""
    for model_type, name in names.items():
        mapping._model_mapping[model_type] = name
        mapping._reverse_config_mapping[CONFIGURATIONS[model_type]] = model_type
        mapping._modules[model_type] = sys.modules["maskformer"]


def register_image_processors() -> None:
    """`AutoImageProcessor` knows the image processors, both backends of each; may be called again."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from maskformer.image_processing import image_processing_maskformer as processing
    from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig

    backends = {
        MaskFormerUniversalConfig: {
            "torchvision": processing.MaskFormerUniversalImageProcessor,
            "pil": processing.MaskFormerUniversalImageProcessorPil,
        },
        PerPixelBaselineConfig: {
            "torchvision": processing.PerPixelBaselineImageProcessor,
            "pil": processing.PerPixelBaselineImageProcessorPil,
        },
    }
    for config, classes in backends.items():
        AutoImageProcessor.register(config, image_processor_classes=classes, exist_ok=True)


REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": register_configurations,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.models.auto.image_processing_auto": register_image_processors,
}


class RegisterAfterwards(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTRATIONS` as they are found anyway, and registers after they have been executed."""

    def __init__(self):
        self.asked = set()

    def find_spec(self, name, path=None, target=None):
        if name not in REGISTRATIONS or name in self.asked:
            return None
        self.asked.add(name)  # the other finders answer
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asked.remove(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                REGISTRATIONS[name]()

            spec.loader.exec_module = execute_and_register
        return spec


def register() -> None:
    """Registers now with what is loaded, and later with what is going to be."""
    if not any(isinstance(finder, RegisterAfterwards) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisterAfterwards())
    for name, registration in REGISTRATIONS.items():
        if name in sys.modules:
            registration()
