"""transformers' own MaskFormer with the weights of one of ours, to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import MaskFormerForInstanceSegmentation, MaskFormerImageProcessor

from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalImageProcessor
from maskformer.convert.hugging_face import to_transformers
from maskformer.convert.hugging_face_config import config_to_transformers
from maskformer.recipes import Recipe


@dataclass
class Pair:
    """A model and its image processor."""

    model: torch.nn.Module
    processor: Any


def our_pair(recipe: Recipe, device: str = "cpu") -> Pair:
    """The model of a recipe with random weights, and its image processor, as a user loads them."""
    torch.manual_seed(0)
    config = recipe.build_config()
    config.output_auxiliary_logits = False  # neither answers nor the peer need them
    model = MaskFormerForUniversalSegmentation(config).to(device).eval()
    settings = recipe.build_image_processor().to_dict()
    return Pair(model, MaskFormerUniversalImageProcessor.from_dict(settings))


def transformers_pair(ours: Pair, device: str = "cpu") -> Pair:
    """transformers' model with the weights of `ours`, and its image processor with the same sizes.

    Raises `ValueError` where transformers has no such model (R101c, the transformer encoder).
    """
    model = transformers_model(ours.model)
    processor = ours.processor
    theirs = MaskFormerImageProcessor(
        size=dict(processor.size), image_mean=list(processor.image_mean), image_std=list(processor.image_std)
    )
    return Pair(model.to(device).eval(), theirs)


def transformers_model(
    ours: MaskFormerForUniversalSegmentation, training: bool = False
) -> MaskFormerForInstanceSegmentation:
    """transformers' model with the weights of `ours`; `ValueError` where it has none.

    For `training` with the losses of all layers, which needs `output_hidden_states=True` whenever it is called.
    """
    config = config_to_transformers(ours.config)
    config.use_auxiliary_loss = training and ours.config.deep_supervision
    model = MaskFormerForInstanceSegmentation(config)
    model.load_state_dict(to_transformers(ours.state_dict(), ours.config))
    return model
