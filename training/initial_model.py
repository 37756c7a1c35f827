"""The model that a run starts with, and its image processor."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, PreTrainedConfig

from maskformer.convert import load_backbone_weights
from maskformer.data.label_set import LabelSet, check_same_labels
from maskformer.modeling.modeling_maskformer import MaskFormerForUniversalSegmentation
from maskformer.modeling.modeling_per_pixel_baseline import PerPixelBaselineForSemanticSegmentation
from maskformer.recipes import Recipe
from maskformer.training.model_folder import MODEL_TYPES

MODELS = dict(
    zip(MODEL_TYPES, (MaskFormerForUniversalSegmentation, PerPixelBaselineForSemanticSegmentation), strict=True)
)
# Settings of a model that leave the shapes and the meaning of its weights alone, so that they may change in a run.
CHANGEABLE = {"dropout", "deep_supervision", "label_colors", "ignore_index", "output_auxiliary_logits"}
CHANGEABLE |= {"class_weight", "mask_weight", "dice_weight", "no_object_weight"}
CHANGEABLE |= {"train_num_points", "oversample_ratio", "importance_sample_ratio"}
OF_THE_RECIPE = CHANGEABLE | {"num_queries"}  # where training starts from another model


def initial_model(recipe: Recipe, labels: LabelSet):
    """A model for `labels` and its image processor: new, with pre-trained backbone weights, or another's weights.

    Raises `ValueError` or `OSError` where weights cannot be read or do not fit.
    """
    if recipe.training.initial_model:
        return model_of_another(recipe, labels)
    model = MODELS[recipe.model_type](recipe.build_config(labels))
    if recipe.training.backbone_weights:
        load_backbone_weights(model, recipe.training.backbone_weights)
    return model, recipe.build_image_processor(labels)


def model_of_another(recipe: Recipe, labels: LabelSet):
    """The recipe's `initial_model` for `labels`: where their number differs, the weights that depend on it start anew.

    The architecture is the other's: of the recipe's `model` only `CHANGEABLE` and the number of queries count. The
    image processing is the other's too, but for what the recipe says of it.
    """
    name = recipe.training.initial_model
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"initial_model {name!r} is no model folder, nor one the Hub gave: {reason}") from error
    if config.model_type not in MODEL_TYPES:
        raise ValueError(f"initial_model {name} is a {config.model_type}; it must be a {' or '.join(MODEL_TYPES)}")
    if config.model_type != recipe.model_type:
        raise ValueError(f"initial_model {name} is a {config.model_type}, but the recipe trains a {recipe.model_type}")
    wanted = recipe.build_config(labels)
    same_labels = config.id2label == wanted.id2label
    values = {key: value for key, value in recipe.model.items() if key in OF_THE_RECIPE}
    values |= {key: getattr(wanted, key) for key in ("id2label", "label2id", "label_colors")}
    model = AutoModelForSemanticSegmentation.from_pretrained(
        name, **values, ignore_mismatched_sizes=not same_labels or bool(values)
    )
    processor = recipe.build_image_processor(labels)
    given = AutoImageProcessor.from_pretrained(name, backend="pil").to_dict()
    for key in ("size", "image_mean", "image_std", "size_divisor", "resize_masks_first"):
        if key in given and key not in recipe.image_processor:
            setattr(processor, key, given[key])
    return model, processor


def resumed_model(checkpoint: Path, recipe: Recipe, labels: LabelSet):
    """The model in a checkpoint of the same run, with the recipe's settings, and its image processor.

    Raises `ValueError` for other labels, and for settings that belong to another network.
    """
    config = AutoConfig.from_pretrained(checkpoint)
    known = [config.id2label[index] for index in range(config.num_labels)]
    check_same_labels(known, labels, "the checkpoint", "the training data")
    changes = changed_settings(config, recipe, labels)
    model = MODELS[recipe.model_type].from_pretrained(checkpoint, **changes)
    if recipe.training.initial_model:  # whose image processing the recipe does not know
        return model, AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    return model, recipe.build_image_processor(labels)


def changed_settings(saved: PreTrainedConfig, recipe: Recipe, labels: LabelSet) -> dict[str, Any]:
    """The recipe's settings of the model that differ from those `saved` with it.

    Raises `ValueError` for those that the weights do not fit, or would mean something else with.
    """
    if saved.model_type != recipe.model_type:
        raise ValueError(f"model_type was {saved.model_type}, and --resume cannot make it {recipe.model_type}")
    wanted = recipe.build_config(labels)
    every, general = ([field.name for field in dataclasses.fields(kind)] for kind in (type(wanted), PreTrainedConfig))
    names = [name for name in every if name not in (*general, "weights_license")]  # which recipes do not set
    if recipe.training.initial_model:  # whose other settings the recipe does not know
        names = [name for name in recipe.model if name in OF_THE_RECIPE]
    changes = {name: getattr(wanted, name) for name in names if getattr(wanted, name) != getattr(saved, name)}
    for name, value in changes.items():
        if name not in CHANGEABLE:
            raise ValueError(f"{name} was {getattr(saved, name)}, and --resume cannot make it {value}")
    return changes
