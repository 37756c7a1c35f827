"""Conversion of weights between the official code and this project."""

from maskformer.convert.backbone import load_backbone_weights
from maskformer.convert.official import from_official, to_official

__all__ = ["from_official", "load_backbone_weights", "to_official"]
