"""Recipes: every file loads, and mistakes are answered with what would be right."""

from __future__ import annotations

import dataclasses

import pytest

from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig, list_recipes, load_recipe
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.recipes.arguments import DataArguments, EvaluationArguments, TrainingArguments
from maskformer.recipes.command_line import parse_overrides


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_a_model_and_an_image_processor(name):
    recipe = load_recipe(name)
    config = recipe.build_config(SHAPES_LABELS)
    assert config.num_labels == len(SHAPES_LABELS) and config.id2label == SHAPES_LABELS.id2label
    assert recipe.build_image_processor(SHAPES_LABELS).label_ids_to_fuse == SHAPES_LABELS.stuff_ids
    assert MaskFormerForUniversalSegmentation(config).num_parameters() > 0


def test_setting_names_are_unique_so_that_an_override_means_one_thing():
    sections = (DataArguments, TrainingArguments, EvaluationArguments)
    names = [field.name for section in sections for field in dataclasses.fields(section)]
    own = set(MaskFormerUniversalConfig.__annotations__)
    assert len(names) == len(set(names)) and not own & set(names)


def test_overrides_reach_their_section():
    recipe = load_recipe("shapes/demo").override({"learning_rate": 3e-4, "num_queries": 9, "scene_size": 160})
    assert recipe.training.learning_rate == 3e-4
    assert recipe.build_config(SHAPES_LABELS).num_queries == 9
    assert recipe.data.scene_size == 160


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    recipe = load_recipe("shapes/demo").override({"learning_rate": 1e-5})
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").sections() == recipe.sections()


def test_words_of_the_command_line_become_values():
    words = ["--learning_rate", "1e-4", "--crop_size=[64, 64]", "--color-jitter", "true", "--max_minutes", "null"]
    assert parse_overrides(words) == {
        "learning_rate": 1e-4,
        "crop_size": [64, 64],
        "color_jitter": True,
        "max_minutes": None,
    }


@pytest.mark.parametrize(("words", "message"), [(["lr"], "'lr' is not an option"), (["--lr"], "--lr needs a value")])
def test_words_that_are_no_option_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse_overrides(words)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no recipe 'shapes/dmo'; did you mean 'shapes/demo'"):
        load_recipe("shapes/dmo")
    with pytest.raises(ValueError, match="no setting 'learning_rat'; did you mean 'learning_rate'"):
        load_recipe("shapes/demo").override({"learning_rat": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", "no section 'modle'"),
        ("training: {max_step: 3}", "section 'training' has no 'max_step'; did you mean 'max_steps'"),
        ("training: {max_steps: many}", "'max_steps' expected int, got str"),
        ("training: {batch_size: 0}", "batch_size must be at least 1, not 0"),
        ("evaluation: {best_metric: pg}", "best_metric must be one of pq, "),
        ("model: {num_queries: many}", "'num_queries' expected int, got str"),
        ("model: {hidden_size: 33}", "hidden_size must be a multiple of 32"),
        ("- a", "a recipe is a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)
