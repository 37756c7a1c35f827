"""The recipes for people's own images: labels come from the dataset, whichever source that is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from folders import write_json, write_panoptic_folder, write_semantic_folder
from helpers import ROOT
from hub_trees import blocks, write_semantic
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.data.sources import SOURCES, load_source
from maskformer.recipes import load_recipe
from maskformer.recipes.command_line import parse_overrides

NAMES = ("finetune/semantic", "finetune/panoptic")


def batch_of(recipe):
    """The first training image of a recipe as a batch, and the labels."""
    source = load_source(recipe.data, "train")
    example = recipe.build_augmentation()(source[0], np.random.default_rng(0))
    image_processor = recipe.build_image_processor(source.labels)
    return recipe.build_collator(image_processor)([example]), source.labels


@pytest.mark.parametrize(
    ("name", "write", "labels"),
    [
        ("finetune/semantic", write_semantic_folder, ("road", "car", "sky")),
        ("finetune/panoptic", write_panoptic_folder, SHAPES_LABELS.names),
    ],
)
def test_a_folder_is_all_that_a_fine_tuning_recipe_needs(tmp_path, name, write, labels):
    recipe = load_recipe(name).override({"train_path": str(write(tmp_path / "train"))})
    assert recipe.labels is None and not recipe.model  # so that `initial_model` may be any
    batch, found = batch_of(recipe)
    assert found.names == labels and recipe.build_config(found).num_labels == len(labels)
    height, width = recipe.data.crop_size
    assert batch["pixel_values"].shape == (1, 3, height, width)
    assert set(batch["class_labels"][0].tolist()) <= set(range(len(labels)))


def test_a_dataset_of_the_hub_is_all_too(tmp_path):
    folder = write_semantic(tmp_path / "repository", [blocks(0, 1, 2)])
    write_json(folder / "id2label.json", {"0": "road", "1": "car", "2": "sky"})
    batch, found = batch_of(load_recipe(NAMES[0]).override({"source": "hub", "dataset": str(folder)}))
    assert found.names == ("road", "car", "sky") and batch["class_labels"][0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_the_comments_say_what_exists(name):
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines()
    header = "\n".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    command = re.search(rf"scripts/train.py --recipe {name} (.*\\\n.*)", header).group(1).replace("\\\n", "")
    settings = parse_overrides(command.split())
    assert settings.pop("output_dir") == "outputs/mine"
    load_recipe(name).override(settings)
    assert set(re.findall(r"--source (\w+)", header)) <= set(SOURCES)
    for option in set(re.findall(r"--(\w+)", header)) - {"recipe", "output_dir"}:
        load_recipe(name).override({option: getattr(load_recipe(name).data, option, None)})
