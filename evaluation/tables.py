"""The paper's tables 1 to 3: which recipes are their rows, and what was published and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskformer.evaluation.report import markdown
from maskformer.recipes import Recipe, load_recipe


@dataclass(frozen=True)
class Column:
    """A number of a table: its title, its name in a recipe's `published` and in results, and whether it needs tta."""

    title: str
    published: str
    metric: str
    tta: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    columns: tuple[Column, ...]
    recipes: tuple[str, ...]


MIOU = Column("mIoU", "miou_ss", "mean_iou")
BACKBONES = ("swin_tiny", "swin_small", "swin_base_in1k", "swin_base_in21k_384", "swin_large_in21k_384")
TABLES = {
    1: Table(
        "Table 1: ADE20K val, 150 labels",
        (Column("mIoU ss", "miou_ss", "mean_iou"), Column("mIoU ms", "miou_ms", "mean_iou", tta=True)),
        tuple(f"ade20k-150/maskformer_{backbone}" for backbone in ("r50", "r101", "r101c", *BACKBONES)),
    ),
    2: Table(
        "Table 2: per-pixel and mask classification, single scale",
        (MIOU, Column("PQ of label maps", "pq_st", "semantic_pq")),
        tuple(
            f"{dataset}/{method}_{backbone}"
            for dataset, backbone in (
                ("cityscapes-19", "r101"),
                ("ade20k-150", "r50"),
                ("coco-stuff-10k-171", "r50"),
                ("ade20k-full-847", "r50"),
            )
            for method in ("per_pixel_baseline", "per_pixel_baseline_plus", "maskformer")
        ),
    ),
    3: Table(
        "Table 3: COCO panoptic val, 133 labels",
        (
            Column("PQ", "pq", "pq"),
            Column("PQ things", "pq_th", "pq_things"),
            Column("PQ stuff", "pq_st", "pq_stuff"),
            Column("SQ", "sq", "sq"),
            Column("RQ", "rq", "rq"),
        ),
        tuple(f"coco-panoptic/maskformer_{backbone}" for backbone in ("detr_r50", "r50", "r101", *BACKBONES)),
    ),
}
# A row whose weights are another's.
SAME_WEIGHTS = {"coco-panoptic/maskformer_detr_r50": "coco-panoptic/maskformer_r50"}


def model_folder_of(recipe: str, models: Path) -> Path | None:
    """The folder of the recipe's model in `models`: DATASET/MODEL, as recipes are called; None where it is missing."""
    for name in (recipe, SAME_WEIGHTS.get(recipe, recipe)):
        if (models / name / "config.json").is_file():
            return models / name
    return None


def recipes_of(table: Table, overrides: dict) -> list[dict[bool, Recipe]]:
    """A row's recipe, its settings replaced by `overrides`, without and, where a column needs it, with augmentation.

    Raises `ValueError` for settings that one of them cannot have.
    """
    augmented = dict.fromkeys(column.tta for column in table.columns)
    return [{tta: load_recipe(name).override({**overrides, "tta": tta}) for tta in augmented} for name in table.recipes]


def fill(table: Table, recipes: list[dict[bool, Recipe]], measure: Callable[[Recipe, bool], dict | None]) -> str:
    """The table as Markdown, published and measured side by side.

    `measure` gives the results of each of the recipes of `recipes_of`, without and with test-time augmentation; None
    is a blank.
    """
    heads = ["model", *(f"{column.title} {who}" for column in table.columns for who in ("paper", "here"))]
    rows = []
    for name, versions in zip(table.recipes, recipes, strict=True):
        results = {tta: measure(recipe, tta) for tta, recipe in versions.items()}
        row = [f"`{name}`"]
        for column in table.columns:
            published = versions[column.tta].published.get(column.published)
            row += ["" if published is None else f"{published:.1f}", cell(results[column.tta], column.metric)]
        rows.append(row)
    return "\n".join([f"**{table.title}**, in %", "", *markdown(heads, rows)])


def cell(results: dict | None, metric: str) -> str:
    """A measured number in percent, or nothing."""
    value = (results or {}).get(metric)
    return "" if value is None or value != value else f"{100 * value:.1f}"
