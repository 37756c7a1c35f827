"""Charts of an evaluation: which labels are taken for which, and how good each is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet

MOST_CELLS = 150  # labels that a matrix of readable names holds
ROWS = 50  # bars below one another, or twice as many of very many labels
LONGEST_NAME = 22
# Fonts of Chinese, Japanese and Korean, as systems have them.
EASTERN_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("IPAexGothic", "NanumGothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
)


def draw_confusion(confusion: np.ndarray, labels: LabelSet, path: Path) -> None:
    """Draws pixels by true (rows) and predicted label, int64 (K, K + 1), as shares of each row.

    Labels without a true pixel have no row to show and are left out, unless something was taken for them; beyond 150,
    so are the rarest.
    """
    counts = confusion[:, : len(labels)]  # (K, K)
    seen = np.flatnonzero(counts.sum(axis=0) + confusion.sum(axis=1))
    by_size = seen[np.argsort(-confusion.sum(axis=1)[seen], kind="stable")][:MOST_CELLS]
    shown = np.sort(by_size)
    total = confusion[shown].sum(axis=1, keepdims=True)  # (n, 1)
    shares = np.divide(100.0 * counts[np.ix_(shown, shown)], total, out=np.zeros((len(shown),) * 2), where=total > 0)

    cell = 0.5 if len(shown) <= 30 else 0.16  # inches
    side = cell * max(len(shown), 4)
    figure = Figure(figsize=(side + 3.2, side + 2.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    size, large = (10, 11) if cell == 0.5 else (7.5, 20)
    names = [short(labels.names[label]) for label in shown]
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=size, **as_it_is())
    axes.set_yticks(range(len(shown)), names, fontsize=size, **as_it_is())
    axes.tick_params(length=0)
    left_out = "" if len(shown) == len(seen) else f", the {len(shown)} most frequent of {len(seen)} labels"
    axes.set_title(f"share of the true pixels, in %{left_out}", fontsize=large)
    axes.set_xlabel("predicted", fontsize=large)
    axes.set_ylabel("true", fontsize=large)
    if cell == 0.5:
        for row, column in zip(*np.nonzero(shares >= 0.5), strict=True):
            dark = shares[row, column] > 40
            text = f"{shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "0.2")
    else:  # lines to follow, since cells are small
        axes.set_xticks(np.arange(9.5, len(shown), 10), minor=True)
        axes.set_yticks(np.arange(9.5, len(shown), 10), minor=True)
        axes.grid(which="minor", color="0.85", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(picture, ax=axes, shrink=min(1.0, 4 / side), ticks=[0, 5, 25, 50, 100])
    bar.outline.set_visible(False)
    save(figure, path)


def draw_bars(per_label: dict[str, dict], labels: LabelSet, path: Path) -> None:
    """Draws a bar for each label that was evaluated, best first: panoptic quality, where there is one, else IoU.

    With panoptic quality, a dot shows the IoU beside it.
    """
    quality = all("pq" in row for row in per_label.values())
    key = "pq" if quality else "iou"
    rows = [
        (name, 100 * row[key], 100 * row["iou"], thing)
        for (name, row), thing in zip(per_label.items(), labels.is_thing, strict=True)
        if (row["tp"] + row["fp"] + row["fn"] if quality else row["iou"] == row["iou"])
    ]
    rows.sort(key=lambda row: -row[1])
    columns = max(1, -(-len(rows) // (ROWS if len(rows) <= 6 * ROWS else 2 * ROWS)))
    height = -(-len(rows) // columns)
    size = 10 if len(rows) <= 30 else 8
    inch = 0.3 if len(rows) <= 30 else 0.18
    figure = Figure(figsize=(max(7, 4.2 * columns), inch * max(height, 4) + 1.3), dpi=100, layout="constrained")
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = rows[column * height : (column + 1) * height]
        places = range(len(part))
        colors = ["#3b76af" if thing else "#7aa874" for *_, thing in part]
        axes.barh(places, [value for _, value, _, _ in part], color=colors, height=0.75)
        if quality:
            axes.plot([iou for _, _, iou, _ in part], places, "o", color="0.2", markersize=3)
        for place, (_, value, iou, _) in enumerate(part):
            numbers = f"{value:.1f}" + (f"  /  {iou:.1f}" if quality and iou == iou else "")
            axes.text(103, place, numbers, va="center", fontsize=size - 1, color="0.3")
        axes.set_yticks(places, [short(name) for name, *_ in part], fontsize=size, **as_it_is())
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_xlim(0, 128 if quality else 115)
        axes.set_xticks(range(0, 101, 20))
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(bars_title(rows, quality), fontsize=11)
    save(figure, path)


def bars_title(rows: list[tuple], quality: bool) -> str:
    """What the bars and their colours mean."""
    kinds = {thing for *_, thing in rows}
    colors = "; things blue, stuff green" if len(kinds) == 2 else ""
    return ("panoptic quality (bar) / IoU (dot) of each label in %" if quality else "IoU of each label in %") + colors


def as_it_is() -> dict:
    """How to write text of any language, in which a dollar is a dollar: matplotlib would parse formulas."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return {"parse_math": False, "fontfamily": ["DejaVu Sans", *(name for name in EASTERN_FONTS if name in there)]}


def short(name: str) -> str:
    """A label's name as an axis has room for."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, all or nothing."""
    with replace_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # where no font has a letter, its box says so
        figure.savefig(temporary, format="png")
