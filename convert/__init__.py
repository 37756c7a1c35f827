"""Conversion of weights between the official code, transformers and this project."""

from maskformer.convert.backbone import load_backbone_weights
from maskformer.convert.hugging_face import from_transformers, to_transformers
from maskformer.convert.official import from_official, to_official

__all__ = ["from_official", "from_transformers", "load_backbone_weights", "to_official", "to_transformers"]
