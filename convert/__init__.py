"""Conversion of weights between the official code and this project."""

from maskformer.convert.official import from_official, to_official

__all__ = ["from_official", "to_official"]
