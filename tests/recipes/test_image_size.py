"""Recipes for people's own images take their sizes from these."""

from __future__ import annotations

import dataclasses

import datasets
import numpy as np
import pytest

from maskformer.data.example import BadSample, Source
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.recipes import load_recipe
from maskformer.recipes.image_size import fit_image_size

RECIPE = load_recipe("finetune/panoptic")  # 640 pixels


def source_of(sizes, streamed: bool = False) -> Source:
    """Images of these (height, width); a height of 0 cannot be read."""

    def decode(row):
        if not row["height"]:
            raise BadSample("no such file")
        return {"image": np.zeros((row["height"], row["width"], 3), np.uint8)}

    rows = datasets.Dataset.from_dict({"height": [size[0] for size in sizes], "width": [size[1] for size in sizes]})
    return Source(rows.to_iterable_dataset() if streamed else rows, SHAPES_LABELS, decode)


@pytest.mark.parametrize("streamed", [False, True])
def test_small_images_are_not_enlarged(streamed):
    recipe, line = fit_image_size(RECIPE, source_of([(250, 300), (320, 240), (0, 0), (200, 900)], streamed))
    assert recipe.image_processor["size"] == {"shortest_edge": 240, "longest_edge": 960}
    assert recipe.data.crop_size == [256, 256]
    edges = recipe.data.shortest_edges
    assert edges[0] == 120 and edges[-1] == 480 and len(edges) == len(RECIPE.data.shortest_edges)
    assert recipe.build_augmentation().crop_size == [256, 256]
    assert recipe.build_image_processor(SHAPES_LABELS).size["shortest_edge"] == 240
    assert "240 pixels" in line and "256 x 256" in line and "640" in line
    assert fit_image_size(recipe, source_of([(10, 10)])) == (recipe, None)  # as a saved recipe is read again


@pytest.mark.parametrize("sizes", [[(640, 900)], [(3000, 4000), (700, 700), (100, 100)], [], [(0, 0)]])
def test_large_images_and_none_leave_the_recipes_sizes(sizes):
    recipe, line = fit_image_size(RECIPE, source_of(sizes))
    assert line is None
    data = dataclasses.replace(RECIPE.data, fit_image_size=False)
    assert recipe == dataclasses.replace(RECIPE, data=data)


def test_recipes_of_the_paper_keep_their_sizes():
    recipe = load_recipe("ade20k-150/maskformer_r50")
    assert fit_image_size(recipe, source_of([(100, 100)])) == (recipe, None)


@pytest.mark.parametrize("settings", [{"do_resize": False}, {"size": {"height": 500, "width": 500}}])
def test_what_has_no_shortest_edge_stays(settings):
    recipe, line = fit_image_size(RECIPE.override(settings), source_of([(250, 300)]))
    assert line is None and recipe.data.crop_size == [640, 640]


def test_a_smaller_crop_stays():
    recipe, _ = fit_image_size(RECIPE.override({"crop_size": [96, 128]}), source_of([(250, 300)]))
    assert recipe.data.crop_size == [96, 128]
