"""Charts and reports for label sets of any size."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.evaluation.charts import as_it_is, draw_bars, draw_confusion
from maskformer.evaluation.report import label_table, markdown


def counts_and_rows(labels) -> tuple[np.ndarray, dict]:
    """A confusion matrix, in which label 1 does not occur, and quality rows."""
    random = np.random.default_rng(0)
    confusion = random.integers(0, 50, (len(labels), len(labels) + 1))
    confusion[np.arange(len(labels)), np.arange(len(labels))] += 2000
    confusion[1] = confusion[:, 1] = 0
    rows = {
        name: {"iou": random.random(), "pq": 0.5, "sq": 1.0, "rq": 0.5, "tp": 1, "fp": 1, "fn": 1}
        for name in labels.names
    }
    rows[labels.names[1]] = {"iou": float("nan"), "pq": 0.0, "sq": 0.0, "rq": 0.0, "tp": 0, "fp": 0, "fn": 0}
    return confusion, rows


@pytest.mark.parametrize("name", ["shapes", "ade20k-150", pytest.param("ade20k-full-847", marks=pytest.mark.slow)])
def test_charts_fit_their_labels(tmp_path, name):
    labels = SHAPES_LABELS if name == "shapes" else load_label_set(name)
    confusion, rows = counts_and_rows(labels)
    draw_confusion(confusion, labels, tmp_path / "confusion.png")
    draw_bars(rows, labels, tmp_path / "bars.png")
    for name in ("confusion", "bars"):
        picture = Image.open(tmp_path / f"{name}.png")
        assert 300 < min(picture.size) and max(picture.size) < 4200
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert len(list(tmp_path.iterdir())) == 2


def test_charts_of_nothing_are_drawn_too(tmp_path):
    confusion = np.zeros((8, 9), np.int64)
    draw_confusion(confusion, SHAPES_LABELS, tmp_path / "confusion.png")
    draw_bars({name: {"iou": float("nan")} for name in SHAPES_LABELS.names}, SHAPES_LABELS, tmp_path / "bars.png")
    assert len(list(tmp_path.iterdir())) == 2


NAMES = ["$5", r"$\frac$", "a_$b$^c", "道路", "車 くるま", "하늘", "new\nline", "%s {} &"]


def test_names_of_any_language_and_of_formulas_are_written_as_they_are(tmp_path, capfd):
    labels = LabelSet.from_categories([{"id": index, "name": name} for index, name in enumerate(NAMES)])
    confusion, rows = counts_and_rows(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(confusion, labels, tmp_path / "confusion.png")
        draw_bars(rows, labels, tmp_path / "bars.png")
    assert len(list(tmp_path.iterdir())) == 2 and capfd.readouterr().err == ""


def test_a_font_of_eastern_letters_is_taken_where_there_is_one(tmp_path, monkeypatch, caplog):
    """Another font under such a name: its letters make another picture, and nothing is missed."""
    labels = LabelSet.from_categories([{"id": index, "name": name} for index, name in enumerate(("道路", "車"))])
    confusion, rows = counts_and_rows(labels)
    draw_bars(rows, labels, tmp_path / "without.png")
    other = next(font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Serif")
    font = font_manager.FontEntry(fname=other.fname, name="Noto Sans CJK JP")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, font])
    draw_bars(rows, labels, tmp_path / "with.png")
    assert as_it_is()["fontfamily"] == ["DejaVu Sans", "Noto Sans CJK JP"] and not caplog.records


def test_labels_that_nothing_was_measured_of_have_dashes():
    _, rows = counts_and_rows(SHAPES_LABELS)
    lines = label_table(rows, SHAPES_LABELS)
    assert lines[0] == "| label | kind | PQ | SQ | RQ | IoU | found | spurious | missed |"
    assert lines[3] == "| water | stuff | – | – | – | – | 0 | 0 | 0 |"
    assert lines[4].startswith("| brick | stuff | 50.0 | 100.0 | 50.0 |")


def test_bars_in_names_stay_in_their_cell():
    assert markdown(["a"], [["b|c"]])[-1] == "| b\\|c |"
