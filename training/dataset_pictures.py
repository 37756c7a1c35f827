"""Pictures of a dataset: how often its labels occur, and what its examples look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from maskformer.data.example import BadSample, Example, Source, without_overlap
from maskformer.data.files import replace_file
from maskformer.data.validation import Report
from maskformer.evaluation.charts import as_it_is, save
from maskformer.image_processing.visualization import draw_segments, on_square, side_by_side

BARS = 60  # labels of a histogram that can still be read
TILE = 320  # pixels, the sides of a picture on the contact sheet


def draw_histogram(report: Report, path: Path) -> None:
    """Writes a PNG: pixels, segments and images of each label, things an image and pixels a segment.

    Of more than `BARS` labels the most frequent are shown.
    """
    order = np.argsort(-report.pixels_per_label, kind="stable")[:BARS]
    figure = Figure(figsize=(15, 3 + max(1.5, 0.2 * len(order))), dpi=100, layout="constrained")
    panels = figure.subplot_mosaic([["pixels", "counts", "things"], ["pixels", "counts", "areas"]])
    draw_labels(panels["pixels"], panels["counts"], report, order)
    draw_segment_counts(panels["things"], panels["areas"], report)
    for axes in panels.values():
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_labels(pixels: Axes, counts: Axes, report: Report, order: np.ndarray) -> None:
    """Bars for the labels `order`, from the top: pixels on one side, images and segments on the other."""
    places = np.arange(len(order))
    colors = [np.array(report.labels.colors[label]) / 255 for label in order]
    share = 100 * report.pixels_per_label[order] / max(report.pixels, 1)
    pixels.barh(places, share, color=colors, edgecolor="0.4", linewidth=0.5)
    pixels.set(title=title_of(report), xlabel="share of all pixels in percent")
    images, segments = report.images_per_label[order], report.segments_per_label[order]
    counts.barh(places, segments, color="0.8")
    counts.barh(places, images, height=0.3, color="C0")
    counts.set(title="images (blue) and segments (grey) of each label", xscale="symlog")  # 0 has a place on this scale
    pixels.set_yticks(places, [report.labels.names[label][:28] for label in order], fontsize=9, **as_it_is())
    counts.set_yticks(places, [""] * len(order))
    for axes in (pixels, counts):
        axes.set_ylim(len(order) - 0.4, -0.6)


def draw_segment_counts(things: Axes, areas: Axes, report: Report) -> None:
    """How many things an image holds, and how large segments are."""
    numbers = np.repeat(list(report.things), list(report.things.values()))
    things.hist(numbers, bins=thing_bins(numbers), color="C2")
    things.set(title="things an image", ylabel="images")
    for axis in (things.xaxis, things.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    powers = np.arange(min(report.areas, default=0), max(report.areas, default=0) + 1)
    areas.bar(2.0**powers, [report.areas[power] for power in powers], width=2.0**powers, align="edge", color="C1")
    areas.set(title="pixels a segment", ylabel="segments", xscale="log")


def title_of(report: Report) -> str:
    """What the bars are of."""
    count = len(report.labels)
    return f"{report.usable} images, " + (f"{count} labels" if count <= BARS else f"{BARS} commonest of {count} labels")


def thing_bins(numbers: np.ndarray) -> np.ndarray:
    """Edges of at most 30 equal bins with whole numbers in their middle."""
    largest = int(numbers.max(initial=0))
    width = -(-(largest + 1) // 30)
    return np.arange(0, largest + width + 1, width) - 0.5


def draw_contact_sheet(source: Source, path: Path, limit: int | None = None, rows: int = 4, pairs: int = 3) -> bool:
    """Writes a PNG of `rows` x `pairs` examples, each beside its segments; they are spread evenly over the dataset.

    Examples that cannot be used are left out, and so is the picture where there is none: the result is then False.
    """
    length = min(limit or len(source), len(source))
    indices = np.unique(np.linspace(0, length - 1, rows * pairs).round().astype(int))
    pictures = []
    for index in indices.tolist():
        try:
            pictures += draw_pair(source[index], source)
        except BadSample:
            continue  # the report names it
    if not pictures:
        return False
    pictures += [np.full((TILE, TILE, 3), 255, np.uint8)] * (-len(pictures) % (2 * pairs))
    with replace_file(path) as temporary:
        side_by_side(pictures, ["image", "segments"] * pairs).save(temporary, format="png")
    return True


def draw_pair(example: Example, source: Source) -> list[Image.Image]:
    """An example and its segments, on squares of `TILE` pixels."""
    image = example["image"]
    scale = max(1, round(TILE / max(image.shape[:2])))
    drawn = draw_segments(image, without_overlap(example), source.labels.names, source.labels.colors, scale=scale)
    return [on_square(picture, TILE) for picture in (Image.fromarray(image), drawn)]
