"""The recipes for people's own images: labels come from the dataset, whichever source that is."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import torch

from folders import write_json, write_panoptic_folder, write_semantic_folder
from helpers import ROOT
from hub_trees import blocks, write_semantic
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.data.sources import SOURCES, load_source
from maskformer.recipes import load_recipe
from maskformer.recipes.command_line import parse_overrides
from maskformer.recipes.recipe import section_of
from maskformer.training.initial_model import changed_settings, initial_model

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
    assert recipe.labels is None and recipe.model == {
        "pre_norm": True,
        "decoder_stride": 8,
    }  # the rest of an `initial_model` stays
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


def header_of(name):
    """The comments at the head of a recipe, with lines that go on joined."""
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines()
    return "\n".join(line.lstrip("# ") for line in lines if line.startswith("#")).replace("\\\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_the_comments_say_what_exists(name):
    header = header_of(name)
    settings = parse_overrides(re.search(rf"scripts/train.py --recipe {name} (.*)", header).group(1).split())
    assert settings.pop("output_dir") == "outputs/mine"
    load_recipe(name).override(settings)
    assert set(re.findall(r"--source (\w+)", header)) <= set(SOURCES)
    assert all(section_of(option) for option in set(re.findall(r"--(\w+)", header)) - {"recipe", "output_dir"})


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_for_a_laptop_is_a_recipe(name):
    words = shlex.split(re.search(r"On a laptop without a GPU: (.*)", header_of(name)).group(1))
    recipe = load_recipe(name).override(parse_overrides(words))
    assert recipe.training.backbone_weights == "timm/tf_efficientnet_lite0.in1k" and recipe.training.max_steps == 1000
    assert recipe.build_config(SHAPES_LABELS).backbone == "tf_efficientnet_lite0"
    assert recipe.build_image_processor(SHAPES_LABELS).image_mean == (0.5, 0.5, 0.5)  # of these weights
    assert recipe.build_augmentation().crop_size == [256, 256]


@pytest.mark.parametrize("name", NAMES)
def test_small_budgets_clip_little_and_spare_the_backbone(name):
    """What docs/training.md found to help, in the recipes for little data."""
    recipe = load_recipe(name)
    training, config = recipe.training, recipe.build_config(SHAPES_LABELS)
    assert (training.learning_rate, training.backbone_multiplier, training.clip_norm) == (5e-4, 0.1, 1.0)
    assert config.pre_norm and config.dropout == 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_paper_answers_as_before(tiny_model, tmp_path, name):
    """With the recipe's `pre_norm` its weights would mean something else."""
    given = tiny_model()
    given.save_pretrained(tmp_path)
    load_recipe(name).build_image_processor(SHAPES_LABELS).save_pretrained(tmp_path)
    assert "--initial_model FOLDER" in header_of(name)
    recipe = load_recipe(name).override({"initial_model": str(tmp_path)})
    model, _ = initial_model(recipe, SHAPES_LABELS)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = [network.eval()(pixel_values=images).masks_queries_logits for network in (given, model)]
    assert torch.equal(*answers)
    assert changed_settings(model.config, recipe, SHAPES_LABELS) == {}  # so the run can be resumed
