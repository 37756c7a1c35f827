"""Makes transformers' Auto classes and pipelines know the models, at the moment they are loaded themselves.

Whoever imports `maskformer` and never asks for an Auto class does not wait for models, image processors and what they
need; whoever does waits for transformers' own tables at the same time.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

import transformers  # noqa: F401  (its lazy top: threads that import it all at once get in each other's way)


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
    from transformers.models.auto import modeling_auto

    from maskformer.modeling.saved_folder import AUTO_MAPS

    for model_type, classes in AUTO_MAPS.items():
        names = {auto_class: path.rpartition(".")[2] for auto_class, path in classes.items()}
        config = names.pop("AutoConfig")
        for auto_class, name in names.items():
            table = getattr(modeling_auto, auto_class)._model_mapping
            table._model_mapping[model_type] = name
            table._reverse_config_mapping[config] = model_type
            table._modules[model_type] = sys.modules["maskformer"]


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
