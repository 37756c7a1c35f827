"""The page, without a server."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pytest

from maskformer.demo.app import EMPTY, Demo, build_page
from maskformer.demo.memory import Memory

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3)).astype(np.uint8)
THRESHOLDS = (0.1, 0.5, 0.1)


def test_a_per_pixel_baseline_has_neither_tasks_nor_sliders_to_choose(per_pixel_network, tmp_path):
    demo = Demo(per_pixel_network, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        page = build_page(demo, [])
    shown = {block.elem_id: block.visible for block in page.blocks.values() if block.elem_id}
    assert not shown["task"] and not shown["thresholds"] and shown["answer"]
    viewer, legend, _ = demo.show(demo.memory.put(per_pixel_network.predict(IMAGE)), frozenset(), "semantic", 0, 0, 0)
    assert "void" in viewer and "aria-pressed" in legend


def test_a_prediction_that_made_room_is_asked_for_again(network, tmp_path):
    network = network()
    demo = Demo(network, tmp_path, Memory(most=1))
    first, second = (demo.memory.put(network.predict(IMAGE)) for _ in range(2))
    with pytest.raises(gr.Error, match="This image is no longer in memory"):
        demo.show(first, frozenset(), "panoptic", *THRESHOLDS)
    assert "data-ids" in demo.show(second, frozenset(), "panoptic", *THRESHOLDS)[0]


def test_a_busy_server_and_a_missing_file_are_errors_for_people(network, tmp_path, monkeypatch):
    network = network()
    demo = Demo(network, tmp_path)
    with pytest.raises(gr.Error, match="There is no file; upload the image itself"):
        demo.look({"path": None, "url": "data:image/png;base64,AAAA"})
    monkeypatch.setattr("maskformer.demo.app.read_image", lambda path: IMAGE)
    network.seconds = 0
    with pytest.raises(gr.Error, match="The server is busy: no answer within 0 seconds"):
        demo.look({"path": "a.png"})


def test_a_new_image_begins_with_all_classes(network, tmp_path):
    network = network()
    demo = Demo(network, tmp_path)
    ticket = demo.memory.put(network.predict(IMAGE))
    assert demo.forget(ticket) == (None, frozenset()) and len(demo.memory) == 0
    assert demo.show(None, frozenset(), "panoptic", *THRESHOLDS)[:2] == (EMPTY, "")
