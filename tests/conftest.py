"""Fixtures that several test files share."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import datasets
import pytest
import torch

from helpers import ROOT
from maskformer import (
    MaskFormerForUniversalSegmentation,
    MaskFormerUniversalConfig,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
)

TINY = {
    "backbone": "resnet18",
    "feature_size": 32,
    "mask_feature_size": 16,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "decoder_layers": 3,
    "num_queries": 7,
    "dropout": 0.0,
}


@pytest.fixture(scope="session", autouse=True)
def dataset_cache(tmp_path_factory):
    """The cache of `datasets`, of the suite's own."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder))  # of the processes that tests start
        yield


@pytest.fixture
def said():
    """What is said during a test: texts of a warning or worse, logged by anybody or warned of by this package."""
    texts = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    loggers = [logging.getLogger(), logging.getLogger("transformers")]  # whose records do not reach the root
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    for logger in loggers:
        logger.removeHandler(handler)
    ours = [w for w in caught if ROOT in Path(w.filename).parents and "site-packages" not in w.filename]
    texts.extend(str(warning.message) for warning in ours)


@pytest.fixture
def quiet(said):
    """The test fails if anything is said."""
    yield
    assert said == []


@pytest.fixture
def tiny_config():
    """A configuration of four labels that builds in no time; arguments replace fields."""

    def make(**fields) -> MaskFormerUniversalConfig:
        return MaskFormerUniversalConfig(**(TINY | {"id2label": {i: f"label {i}" for i in range(4)}} | fields))

    return make


@pytest.fixture
def tiny_model(tiny_config):
    """A model of that configuration, with weights of seed 0."""

    def make(**fields) -> MaskFormerForUniversalSegmentation:
        torch.manual_seed(0)
        return MaskFormerForUniversalSegmentation(tiny_config(**fields)).eval()

    return make


@pytest.fixture
def tiny_per_pixel_model():
    """A per-pixel baseline of the same size and number of labels, with weights of seed 0."""

    def make(**fields) -> PerPixelBaselineForSemanticSegmentation:
        values = {name: value for name, value in TINY.items() if name != "num_queries"}
        values |= {"id2label": {i: f"label {i}" for i in range(4)}} | fields
        torch.manual_seed(0)
        return PerPixelBaselineForSemanticSegmentation(PerPixelBaselineConfig(**values)).eval()

    return make
