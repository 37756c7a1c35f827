"""Draws the pictures of the documentation that no run of the scripts makes.

    python docs/draw.py

writes docs/images/network.png and docs/images/labels.png.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

IMAGES = Path(__file__).parent / "images"
INK = "#1e1e23"
PIXEL, TRANSFORMER, SEGMENTATION = "#dbe9f6", "#fde3c8", "#dff0d8"  # the three modules of Figure 2
# Name, colour, center and width of each box.
BOXES = {
    "image\n3 x H x W": ("white", 0.7, 3.0, 1.1),
    "backbone": (PIXEL, 2.5, 3.0, 1.5),
    "pixel decoder": (PIXEL, 5.4, 3.0, 1.7),
    "transformer decoder": (TRANSFORMER, 4.3, 1.2, 2.4),
    "N queries": ("white", 1.9, 1.2, 1.2),
    "three linear layers": (SEGMENTATION, 8.2, 1.7, 2.0),
    "linear layer": (SEGMENTATION, 8.2, 0.7, 2.0),
    "dot products": (SEGMENTATION, 8.8, 3.0, 1.5),
    "N masks\nN x H/4 x W/4": ("white", 11.4, 3.0, 1.6),
    "N classes\nN x (K + 1)": ("white", 11.4, 0.7, 1.6),
}
# From, to, what is handed on, and where that is written.
ARROWS = [
    ("image\n3 x H x W", "backbone", "", None),
    ("backbone", "pixel decoder", "F", (3.9, 3.15)),
    ("pixel decoder", "dot products", "E_pixel", (7.1, 3.15)),
    ("backbone", "transformer decoder", "F", (3.5, 2.15)),
    ("N queries", "transformer decoder", "", None),
    ("transformer decoder", "three linear layers", "Q", (6.2, 1.6)),
    ("transformer decoder", "linear layer", "Q", (6.2, 0.7)),
    ("three linear layers", "dot products", "E_mask", (9.0, 2.3)),
    ("dot products", "N masks\nN x H/4 x W/4", "", None),
    ("linear layer", "N classes\nN x (K + 1)", "", None),
]
HEIGHT = 0.7


def draw_network(axes: Axes) -> None:
    """Figure 2 of the paper, anew."""
    for text, (color, x, y, width) in BOXES.items():
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - HEIGHT / 2),
                width,
                HEIGHT,
                boxstyle="round,pad=0.03",
                facecolor=color,
                edgecolor=INK,
            )
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color=INK)
    for start, end, text, place in ARROWS:
        (_, x0, y0, w0), (_, x1, y1, w1) = BOXES[start], BOXES[end]
        sideways = abs(x1 - x0) > (w0 + w1) / 2
        tail = (
            (x0 + w0 / 2 + 0.05, y0)
            if sideways
            else (x0 + min(w0 / 4, 0.4), y0 + np.sign(y1 - y0) * (HEIGHT / 2 + 0.04))
        )
        head = (
            (x1 - w1 / 2 - 0.05, y1)
            if sideways
            else (x1 - min(w1 / 4, 0.4), y1 - np.sign(y1 - y0) * (HEIGHT / 2 + 0.04))
        )
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0})
        if place:
            axes.text(*place, text, ha="center", va="center", fontsize=9, style="italic", color=INK)
    for text, color, x in (
        ("pixel-level module", PIXEL, 1.0),
        ("transformer module", TRANSFORMER, 4.4),
        ("segmentation module", SEGMENTATION, 8.0),
    ):
        axes.add_patch(FancyBboxPatch((x, 3.95), 0.25, 0.2, boxstyle="round,pad=0.02", facecolor=color, edgecolor=INK))
        axes.text(x + 0.4, 4.05, text, va="center", fontsize=9, color=INK)
    axes.set(xlim=(0, 12.4), ylim=(0.1, 4.4), aspect="equal")
    axes.axis("off")


def draw_labels(panels: list[Axes]) -> None:
    """One file, read in three ways: what each pixel means to the model, and what is void."""
    values = np.array([[0, 0, 0, 255], [1, 1, 2, 2], [1, 1, 2, 3]])
    names = np.array(["wall", "building", "sky"])
    readings = {
        "values in the file": None,
        "no setting": lambda value: value if value < 3 else None if value == 255 else "error",
        "--reduce_labels true": lambda value: value - 1 if 0 < value < 4 else None,
        "--ignore_index 0": lambda value: None if value == 0 else value if value < 3 else "error",
    }
    colors = {0: "#b7a18c", 1: "#8fb2d9", 2: "#cfe8f7", None: "#ffffff", "error": "#f2a6a0"}
    for axes, (title, reading) in zip(panels, readings.items(), strict=True):
        for row, column in np.ndindex(values.shape):
            value = int(values[row, column])
            label = None if reading is None else reading(value)
            text = str(value) if reading is None else "void" if label is None else label
            text = names[label] if isinstance(label, int) else text
            color = "#eeeeee" if reading is None else colors[label]
            hatch = "///" if reading is not None and label is None else None
            axes.add_patch(
                plt.Rectangle((column, -row), 1, 1, facecolor=color, edgecolor="#999999" if hatch else INK, hatch=hatch)
            )
            axes.text(column + 0.5, 0.5 - row, text, ha="center", va="center", fontsize=7, color=INK)
        axes.set(xlim=(-0.05, 4.05), ylim=(-2.05, 1.05), aspect="equal")
        axes.set_title(title, fontsize=10, color=INK)
        axes.axis("off")


def save(figure: plt.Figure, name: str) -> None:
    """Writes a PNG without the version of what wrote it."""
    figure.savefig(IMAGES / name, dpi=150, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    plt.close(figure)
    print(IMAGES / name)


def main() -> None:
    figure, axes = plt.subplots(figsize=(10, 3.6))
    draw_network(axes)
    save(figure, "network.png")
    figure, panels = plt.subplots(1, 4, figsize=(12, 2.6))
    draw_labels(list(panels))
    save(figure, "labels.png")


if __name__ == "__main__":
    main()
