"""The HTML of an answer."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from maskformer.demo.answers import Answer
from maskformer.demo.viewer import draw, legend_html, percent, viewer_html

EVIL = "<img src=x onerror=alert(1)> & \"quote\" 'q'"
COLORS = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)
SEGMENTATION = np.array([[1, 1, 2], [3, 3, 0]], np.int32)
SEGMENTS = [
    {"id": 1, "label_id": 0, "label": EVIL, "score": 0.987, "area": 2},
    {"id": 2, "label_id": 1, "label": "sky", "score": 0.5, "area": 1},
    {"id": 3, "label_id": 0, "label": EVIL, "score": 0.6, "area": 2},
]


class Elements(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_viewer_knows_every_pixels_segment():
    elements = Elements(viewer_html(Image.new("RGB", (6, 4)), Answer(SEGMENTATION, SEGMENTS), "2 < 3"))
    assert [tag for tag, _ in elements.tags] == ["figure", "div", "img", "canvas", "div", "figcaption"]
    figure, image = elements.tags[0][1], elements.tags[2][1]
    ids = np.frombuffer(zlib.decompress(base64.b64decode(figure["data-ids"])), "<u2")
    np.testing.assert_array_equal(ids.reshape(int(figure["data-height"]), int(figure["data-width"])), SEGMENTATION)
    assert json.loads(figure["data-segments"])["1"] == [EVIL, "score 0.99 · 33 %"]
    assert Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size == (6, 4)
    assert image["alt"] == f"Segments: {EVIL}, sky" and elements.text == "2 < 3"


def test_the_legend_names_each_class_once_largest_first():
    html = legend_html(Answer(SEGMENTATION, SEGMENTS), frozenset({1}), COLORS)
    elements = Elements(html)
    buttons = [attributes for tag, attributes in elements.tags if tag == "button"]
    assert [(b["data-label"], b["aria-pressed"]) for b in buttons] == [("0", "true"), ("1", "false")]
    assert "img" not in [tag for tag, _ in elements.tags] and elements.text == f"{EVIL}×2 · 67 %sky17 %"
    assert re.findall(r"rgb\((.*?)\)", html) == ["10, 20, 30", "200, 100, 50"]


def test_pictures_have_the_legends_colours_and_small_ones_are_enlarged():
    grey = np.full((40, 50, 3), 128, np.uint8)
    answer = Answer(np.full((40, 50), 1, np.int32), [SEGMENTS[1] | {"id": 1}])
    picture = draw(grey, answer, ["a", "sky"], COLORS)
    assert picture.size == (800, 640)
    np.testing.assert_array_equal(np.array(picture)[300, 300], (COLORS[1].astype(int) + 128) // 2)


def test_shares_are_short():
    assert [percent(n, 10000) for n in (0, 1, 123, 2550, 10000)] == ["0 %", "< 0.1 %", "1.2 %", "26 %", "100 %"]
