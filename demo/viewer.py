"""HTML of an answer: the picture, which says what the pointer is on, and the legend, which switches classes."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from maskformer.demo.answers import Answer
from maskformer.image_processing.visualization import draw_segments

PAGE = Path(__file__).parent
CSS, VIEWER_JS, LEGEND_JS = (
    (PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "viewer.js", "legend.js")
)
WIDEST = 800  # pixels that small images are enlarged to, by whole numbers, so that outlines and names are fine
SMALLEST_NAMED = 64  # pixels: names would cover what they name in smaller images


def draw(image: np.ndarray, answer: Answer, label_names: list[str], label_colors: np.ndarray) -> Image.Image:
    """The segments over the image (H, W, 3), small images enlarged."""
    panoptic = {"segmentation": answer.segmentation, "segments_info": answer.segments}
    scale = max(1, WIDEST // max(image.shape[:2]))
    colors, labels = label_colors.tolist(), max(image.shape[:2]) >= SMALLEST_NAMED
    return draw_segments(image, panoptic, label_names, colors, labels=labels, scale=scale)


def viewer_html(picture: Image.Image, answer: Answer, caption: str) -> str:
    """The picture of an answer, with the ids and segments that `viewer.js` shows under the pointer."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=92, subsampling=0)
    height, width = answer.segmentation.shape
    ids = zlib.compress(answer.segmentation.astype("<u2").tobytes(), 1)
    segments = {segment["id"]: _description(segment, height * width) for segment in answer.segments}
    names = ", ".join(dict.fromkeys(segment["label"] for segment in answer.segments)) or "nothing"
    return (
        f'<figure class="viewer" data-width="{width}" data-height="{height}" data-ids="{_base64(ids)}"'
        f' data-segments="{escape(json.dumps(segments))}"><div class="stage">'
        f'<img src="data:image/jpeg;base64,{_base64(content.getvalue())}" alt="{escape(f"Segments: {names}")}">'
        f'<canvas></canvas><div class="tip" hidden></div></div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def legend_html(answer: Answer, hidden: frozenset[int], label_colors: np.ndarray) -> str:
    """A button for each class of an answer, largest first; those of `hidden` label ids are not pressed."""
    areas, counts, names = Counter(), Counter(), {}
    for segment in answer.segments:
        label = segment["label_id"]
        areas[label] += segment["area"]
        counts[label] += 1
        names[label] = segment["label"]
    buttons = [
        f'<button type="button" data-label="{label}" aria-pressed="{str(label not in hidden).lower()}">'
        f'<span class="swatch" style="background: rgb{tuple(label_colors[label].tolist())}"></span>'
        f'<span class="name">{escape(names[label])}</span>'
        f'<span class="share">{f"×{counts[label]} · " if counts[label] > 1 else ""}'
        f"{percent(area, answer.segmentation.size)}</span></button>"
        for label, area in areas.most_common()
    ]
    return f'<div class="legend" role="group" aria-label="Classes shown">{"".join(buttons)}</div>'


def percent(area: int, total: int) -> str:
    """A share of an image, in words as short as they can be."""
    share = 100 * area / total
    if 0 < share < 0.1:
        return "< 0.1 %"
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"


def _description(segment: dict, total: int) -> list[str]:
    """Name and details of a segment, as the pointer shows them."""
    score = [f"score {segment['score']:.2f}"] if "score" in segment else []
    return [segment["label"], " · ".join([*score, percent(segment["area"], total)])]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
