"""The picture of a run's history."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from maskformer.training.curves import draw_curves


def history(steps) -> list[dict]:
    rows = []
    for step in steps:
        loss = {"loss": 9 / step, "loss_ce": 3 / step, "loss_mask": 4 / step, "loss_dice": 2 / step, "loss_ce_0": 3.0}
        rows.append({"step": step, **loss, "learning_rate": 1e-3, "seconds": 0.5 * step})
        if step % 10 == 0:
            rows.append({"step": step, "pq": 0.5, "pq_things": 0.4, "pq_stuff": float("nan"), "mean_iou": 0.7})
    return rows


def picture(folder, text: str) -> np.ndarray:
    (folder / "metrics.jsonl").write_text(text)
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    return np.asarray(Image.open(folder / "curves.png").convert("RGB"))


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_draws_three_panels_and_leaves_nothing_else(tmp_path):
    image = picture(tmp_path, lines(history(range(1, 41))))
    panels = np.array_split(image, 3, axis=1)
    assert all((panel < 200).any() for panel in panels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        '{"step": 1, "lo',
        "[1, 2]\nnull\n3\n",
        '{"loss": 1.0, "learning_rate": 0.1}\n',
        '{"step": 1, "loss": null, "learning_rate": "high"}\n',
        lines(history([1])),
        lines([{"step": 10, "mean_iou": 0.5}]),
        '{"step": 1, "loss": NaN, "loss_ce": Infinity, "loss_dice": 0.0, "learning_rate": 0.0}\n',
    ],
    ids=["empty", "blank", "torn", "no objects", "no step", "no numbers", "one step", "evaluation", "not finite"],
)
def test_draws_partial_histories(tmp_path, text):
    assert picture(tmp_path, text).ndim == 3


def test_a_torn_line_changes_nothing(tmp_path):
    whole = lines(history(range(1, 21)))
    np.testing.assert_array_equal(picture(tmp_path, whole), picture(tmp_path, whole + '{"step": 21, "loss": 0.'))


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    went_on = history(range(1, 31))
    wild = [row | {"loss": 1e6} if "loss" in row else row | {"pq": 0.0} for row in history(range(21, 31))]
    resumed = history(range(1, 21)) + wild + history(range(21, 31))
    np.testing.assert_array_equal(picture(tmp_path, lines(went_on)), picture(tmp_path, lines(resumed)))


def test_a_missing_history_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl"):
        draw_curves(tmp_path / "nowhere.jsonl", tmp_path / "curves.png")


def test_leaves_matplotlibs_global_state_alone(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    picture(tmp_path, lines(history(range(1, 5))))
    assert ("matplotlib.pyplot" in sys.modules) == loaded
