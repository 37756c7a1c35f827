"""The paper's tables, published beside measured."""

from __future__ import annotations

import pytest

from maskformer.evaluation.tables import TABLES, fill, model_folder_of, recipes_of

# Rows of MaskFormer in the paper: table 1 by backbone, table 2 by dataset and method, table 3 by backbone.
PUBLISHED = {
    1: [(44.5, 46.7), (45.5, 47.2), (46.0, 48.1), (46.7, 48.8), (49.8, 51.0), (51.1, 52.3), (52.7, 53.9), (54.1, 55.6)],
    2: [
        *((77.4, 58.9), (78.5, 60.2), (78.5, 63.1)),
        *((39.2, 21.6), (41.9, 28.3), (44.5, 33.4)),
        *((32.4, 15.5), (34.2, 24.6), (37.1, 28.9)),
        *((12.4, 5.8), (13.9, 9.0), (17.4, 11.9)),
    ],
    3: [
        (45.6, 50.0, 39.0, 80.2, 55.8),
        (46.5, 51.0, 39.8, 80.4, 56.8),
        (47.6, 52.5, 40.3, 80.7, 58.0),
        (47.7, 51.7, 41.7, 80.4, 58.3),
        (49.7, 54.4, 42.6, 80.9, 60.4),
        (51.1, 56.3, 43.2, 81.4, 61.8),
        (51.8, 56.9, 44.1, 81.4, 62.6),
        (52.7, 58.5, 44.0, 81.8, 63.5),
    ],
}


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_published_numbers_are_those_of_the_paper_and_missing_models_are_blank(number):
    rows = cells(fill(TABLES[number], recipes_of(TABLES[number], {}), lambda recipe, tta: None))
    assert [tuple(float(cell) for cell in row[1::2]) for row in rows] == PUBLISHED[number]
    assert all(cell == "" for row in rows for cell in row[2::2])


def test_measured_numbers_stand_beside_the_published_ones():
    def measure(recipe, tta: bool) -> dict | None:
        assert recipe.evaluation.tta == tta and recipe.data.data_path == "here"
        return {"mean_iou": 0.4712 if tta else 0.4449} if recipe.name.endswith("_r50") else None

    rows = cells(fill(TABLES[1], recipes_of(TABLES[1], {"data_path": "here"}), measure))
    assert rows[0] == ["`ade20k-150/maskformer_r50`", "44.5", "44.5", "46.7", "47.1"]
    assert rows[1] == ["`ade20k-150/maskformer_r101`", "45.5", "", "47.2", ""]


def test_models_lie_where_their_recipes_are_called_and_detrs_row_has_maskformers_weights(tmp_path):
    detr, plain = "coco-panoptic/maskformer_detr_r50", "coco-panoptic/maskformer_r50"
    assert model_folder_of(plain, tmp_path) is None
    (tmp_path / plain).mkdir(parents=True)
    (tmp_path / plain / "config.json").write_text("{}")
    assert model_folder_of(plain, tmp_path) == model_folder_of(detr, tmp_path) == tmp_path / plain
    (tmp_path / detr).mkdir()
    (tmp_path / detr / "config.json").write_text("{}")
    assert model_folder_of(detr, tmp_path) == tmp_path / detr
