"""Panoptic quality of semantic answers."""
