"""Demos of tiny models."""

from __future__ import annotations

import socket

import pytest

from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil, PerPixelBaselineImageProcessorPil
from maskformer.demo.examples import generated_examples
from maskformer.demo.network import Network
from maskformer.demo.server import serve

SIZE = {"shortest_edge": 64, "longest_edge": 256}


@pytest.fixture
def network(tiny_model):
    """A MaskFormer of which answers have segments; arguments replace fields of its configuration."""

    def make(**fields) -> Network:
        return Network(with_segments(tiny_model(**fields)), MaskFormerUniversalImageProcessorPil(size=SIZE))

    return make


@pytest.fixture
def per_pixel_network(tiny_per_pixel_model):
    """A per-pixel baseline, which knows semantic segmentation only."""
    return Network(tiny_per_pixel_model(), PerPixelBaselineImageProcessorPil(size=SIZE))


@pytest.fixture
def served(network, tmp_path, monkeypatch, free_port):
    """The page of a demo that is served on a free port of this machine, and the folder of its files."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # the server sets them, and they are to be as before
    folder = tmp_path / "served"
    folder.mkdir()
    page = serve(network(), generated_examples(folder, count=2), folder, "127.0.0.1", free_port)
    yield page, folder
    page.close(verbose=False)


@pytest.fixture
def free_port() -> int:
    """A port that nobody serves at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
