"""A run's history as a picture: losses, learning rate, evaluation metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskformer.data.files import replace_file

LOSS = re.compile(r"loss(_[a-z]+)*")  # `loss`, `loss_ce`, ...; not the auxiliary layers' `loss_ce_0`
METRICS = {"pq": "PQ", "pq_things": "PQ things", "pq_stuff": "PQ stuff", "mean_iou": "mIoU"}


def draw_curves(history_path: str | Path, picture_path: str | Path) -> None:
    """Draws a history, one JSON object a line, as a PNG of three panels: losses, learning rate, metrics in percent.

    Rows of training hold `step` and `loss`, `loss_ce`, ... and `learning_rate`; rows of evaluation hold `step` and, as
    fractions, any of `pq`, `pq_things`, `pq_stuff`, `mean_iou`. Lines that are no complete JSON object are passed over,
    as a run that was killed leaves one; where a resumed run went back to an earlier step, its rows replace the old.
    The picture replaces an older one in one move, so that a reader never sees half of it. Raises `FileNotFoundError` if
    there is no history.
    """
    panels = history_panels(Path(history_path))
    figure = Figure(figsize=(16, 4.5), dpi=100, layout="constrained")
    for draw, axes in zip(panels, figure.subplots(1, len(panels)), strict=True):
        draw(axes)

    with replace_file(Path(picture_path)) as temporary:
        figure.savefig(temporary, format="png")


def history_panels(history_path: Path) -> list[Callable[[Axes], None]]:
    """What draws each panel: losses, learning rate and metrics."""
    rows = _read_rows(history_path)
    training = _latest(row for row in rows if "learning_rate" in row)
    evaluation = _latest(row for row in rows if METRICS.keys() & row.keys())
    panels = ((_draw_losses, training), (_draw_learning_rate, training), (_draw_metrics, evaluation))
    return [partial(draw, rows=part) for draw, part in panels]


def _read_rows(path: Path) -> list[dict]:
    """The file's complete JSON objects that name a step."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int | float):
            rows.append(row)
    return rows


def _latest(rows: Iterable[dict]) -> list[dict]:
    """The rows by ascending step; a row takes the place of those before it that have its step or a later one."""
    latest: list[dict] = []
    for row in rows:
        while latest and latest[-1]["step"] >= row["step"]:
            latest.pop()
        latest.append(row)
    return latest


def _series(rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (n,) of the rows that hold a finite number under `key`."""
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T  # (n,), (n,)
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Geometric mean (n,) of positive values over a centred window of a twentieth of them, narrower at the ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(np.log(values))])
    here = np.arange(len(values))
    left, right = np.maximum(here - reach, 0), np.minimum(here + reach + 1, len(values))
    return np.exp((total[right] - total[left]) / (right - left))


def _finish(axes: Axes, title: str) -> None:
    """Title, grid and legend, or a note that there is nothing to see yet."""
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing recorded yet", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _draw_losses(axes: Axes, rows: list[dict]) -> None:
    names = dict.fromkeys(key for row in rows for key in row if LOSS.fullmatch(key))
    for number, name in enumerate(sorted(names, key=lambda name: (name != "loss", name))):
        steps, values = _series(rows, name)
        steps, values = steps[values > 0], values[values > 0]  # what a log scale can show
        if not len(values):
            continue
        color, width = ("0.15", 2.2) if name == "loss" else (f"C{number - 1}", 1.5)
        axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.25)
        smooth = _smooth(values)
        label = f"{name} {smooth[-1]:.3g}"
        axes.plot(steps, smooth, color=color, linewidth=width, label=label, marker="." if len(steps) == 1 else None)
    if axes.lines:
        axes.set_yscale("log")
    _finish(axes, "training loss (weighted)")


def _draw_learning_rate(axes: Axes, rows: list[dict]) -> None:
    steps, values = _series(rows, "learning_rate")
    if len(values):
        axes.plot(steps, values, color="C0", linewidth=2, marker="." if len(steps) == 1 else None)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.set_ylim(bottom=0)
    _finish(axes, "learning rate")


def _draw_metrics(axes: Axes, rows: list[dict]) -> None:
    for number, (key, name) in enumerate(METRICS.items()):
        steps, values = _series(rows, key)
        if not len(values):
            continue
        width = 2.4 if key == "pq" else 1.5
        label = f"{name} {100 * values[-1]:.1f}"
        axes.plot(steps, 100 * values, color=f"C{number}", linewidth=width, marker="o", markersize=4, label=label)
    if axes.lines:
        axes.set_ylim(0, 100)
    axes.set_ylabel("%")
    _finish(axes, "evaluation")
