"""Recipes: every file loads, and mistakes are answered with what would be right."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor

from maskformer import (
    MaskFormerForUniversalSegmentation,
    PerPixelBaselineForSemanticSegmentation,
    list_recipes,
    load_recipe,
)
from maskformer.data.label_set import load_label_set
from maskformer.data.shapes import SHAPES_LABELS
from maskformer.data.sources import load_source
from maskformer.recipes.arguments import DataArguments, EvaluationArguments, TrainingArguments
from maskformer.recipes.command_line import parse_overrides
from maskformer.recipes.recipe import known_names, section_of


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_a_model_and_an_image_processor(name):
    recipe = load_recipe(name)
    config = recipe.build_config(SHAPES_LABELS)
    assert config.num_labels == len(SHAPES_LABELS) and config.id2label == SHAPES_LABELS.id2label
    assert config.label_colors == [list(color) for color in SHAPES_LABELS.colors]
    image_processor = recipe.build_image_processor(SHAPES_LABELS)
    assert image_processor.label_ids_to_fuse == SHAPES_LABELS.stuff_ids and image_processor.ignore_index is None
    with torch.device("meta"):
        model = PerPixelBaselineForSemanticSegmentation if "per_pixel" in name else MaskFormerForUniversalSegmentation
        assert model(config).num_parameters() > 0


@pytest.mark.parametrize("name", [name for name in list_recipes() if load_recipe(name).labels])
def test_a_recipe_with_a_label_set_needs_no_other(name, tmp_path):
    recipe = load_recipe(name)
    labels = load_label_set(recipe.labels)
    config, image_processor = recipe.build_config(), recipe.build_image_processor()
    assert config.id2label == labels.id2label and config.label2id == labels.label2id
    assert config.label_colors == [list(color) for color in labels.colors]
    assert image_processor.label_ids_to_fuse == labels.stuff_ids
    assert image_processor.ignore_index == recipe.data.ignore_index
    config.save_pretrained(tmp_path)
    image_processor.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == config.to_dict() | {"_name_or_path": str(tmp_path)}
    assert type(AutoImageProcessor.from_pretrained(tmp_path, backend="pil")) is type(image_processor)


def test_the_image_processor_carries_the_test_protocol(tmp_path):
    """Through saving, in the words of the post-processing; its own defaults are those of the paper's code."""
    recipe = load_recipe("coco-panoptic/maskformer_detr_r50").override({"mask_threshold": 0.4})
    expected = {"threshold": 0.85, "mask_threshold": 0.4, "overlap_mask_area_threshold": 0.8, "method": "detr"}
    recipe.build_image_processor().save_pretrained(tmp_path)
    for backend in ("pil", "torchvision"):
        image_processor = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
        assert image_processor.test_protocol == expected
    post_process = inspect.signature(image_processor.post_process_panoptic_segmentation).parameters
    defaults = {"threshold": 0.8, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.8, "method": "maskformer"}
    assert {name: post_process[name].default for name in expected} == defaults
    assert load_recipe("ade20k-150/per_pixel_baseline_r50").build_image_processor().test_protocol is None


def test_a_recipe_without_a_label_set_needs_one():
    with pytest.raises(ValueError, match="shapes/demo names no label set; the labels of a dataset are needed"):
        load_recipe("shapes/demo").build_config()


@pytest.mark.parametrize("name", ["shapes/demo", "cityscapes-19/per_pixel_baseline_plus_r101"])
def test_a_recipe_survives_saving(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "recipe.yaml")
    assert dataclasses.replace(load_recipe(tmp_path / "recipe.yaml"), name=name) == recipe


def test_a_source_that_does_not_exist_is_named():
    recipe = load_recipe("shapes/demo").override({"source": "coco_panoptik"})
    with pytest.raises(ValueError, match="the source 'coco_panoptik' is not known; known are shapes,"):
        load_source(recipe.data, "train")


@pytest.mark.parametrize("crop", [[384], [600, 384], [0, 10]])
def test_a_crop_of_detr_has_two_sides(crop):
    with pytest.raises(ValueError, match="detr_crop must be a shortest and a longest side"):
        load_recipe("coco-panoptic/maskformer_r50").override({"detr_crop": crop})


def test_training_images_have_the_scale_of_the_test_unless_the_recipe_says_otherwise():
    recipe = load_recipe("shapes/demo").override({"crop_size": None, "horizontal_flip": False})
    size = {"shortest_edge": 80, "longest_edge": 100}
    image = np.zeros((240, 400, 3), np.uint8)
    example = {"image": image, "segmentation": np.zeros((240, 400), np.int32), "segments_info": [], "image_id": "0"}
    trained = recipe.override({"size": size}).build_augmentation()(example, np.random.default_rng(0))["image"]
    tested = recipe.override({"size": size}).build_image_processor(SHAPES_LABELS)(image, size_divisor=0)
    assert trained.shape[:2] == tuple(tested["pixel_values"][0].shape[-2:]) == (60, 100)
    assert recipe.override({"shortest_edges": [33]}).build_augmentation().shortest_edges == [33]


def test_setting_names_are_unique_so_that_an_override_means_one_thing():
    sections = (DataArguments, TrainingArguments, EvaluationArguments)
    names = [field.name for section in sections for field in dataclasses.fields(section)]
    own = set(known_names()["model"])
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


@pytest.mark.parametrize(
    "word", ["/tmp/photos #2/train", "2024-05-01", "123", "a: b", "12345e7", "1e-4", "true", "[x", "a=b", "~", ""]
)
@pytest.mark.parametrize("name", ["train_path", "dataset_revision", "source", "backbone_weights", "backbone"])
def test_text_is_taken_as_it_is_and_survives_saving(tmp_path, name, word):
    for words in ([f"--{name}", word], [f"--{name}={word}"]):
        assert parse_overrides(words) == {name: word}
    recipe = load_recipe("shapes/demo").override({name: word})
    recipe.save(tmp_path / "recipe.yaml")
    for again in (recipe, load_recipe(tmp_path / "recipe.yaml"), recipe.override({"seed": 1})):
        assert again.sections()[section_of(name)][name] == word


def test_null_is_no_text():
    overrides = parse_overrides(["--backbone_weights", "null", "--train-path=null"])
    assert overrides == {"backbone_weights": None, "train_path": None}
    assert load_recipe("shapes/demo").override(overrides).training.backbone_weights is None
    with pytest.raises(ValueError, match="'source' expected str, got NoneType"):
        load_recipe("shapes/demo").override(parse_overrides(["--source", "null"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "'lr' is not an option"),
        (["--lr"], "--lr needs a value"),
        (["--crop_size", "[128, 128"], r"the value of --crop_size is not valid YAML: '\[128, 128'"),
    ],
)
def test_words_that_are_no_option_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse_overrides(words)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_size": [128]}, r"crop_size must be a height and a width, as \[128, 128\], not \[128\]"),
        ({"crop_size": [0, 128]}, "crop_size must be"),
        ({"shortest_edges": [0]}, "shortest_edges must be at least 1"),
        ({"max_minutes": 0}, "max_minutes must be above 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, not nan"),
        ({"warmup_factor": -5}, "warmup_factor must lie in 0 to 1, not -5"),
        ({"warmup_factor": 1.5}, "warmup_factor must lie in 0 to 1, not 1.5"),
        ({"clip_norm": 0}, "clip_norm must be above 0, not 0"),
        ({"clip_norm": -1}, "clip_norm must be above 0, not -1"),
        ({"backbone_multiplier": -1}, "backbone_multiplier must be at least 0, not -1"),
        ({"poly_power": -1}, "poly_power must be at least 0, not -1"),
        ({"poly_power": float("nan")}, "poly_power must be at least 0, not nan"),
        ({"weight_decay": -0.05}, "weight_decay must be at least 0, not -0.05"),
        ({"decay_factor": -0.1}, "decay_factor must be at least 0, not -0.1"),
        ({"decay_steps": [80, 60]}, r"decay_steps must be numbers of steps that increase, .* not \[80, 60\]"),
        ({"decay_steps": [60, 60]}, "decay_steps must be"),
        ({"decay_steps": [-1]}, "decay_steps must be"),
        ({"seed": -1}, "seed must lie in 0 to 2147483647, not -1"),
        ({"seed": 2**31}, "seed must lie in"),
        ({"dataloader_workers": -1}, "dataloader_workers must lie in"),
        ({"warmup_steps": -1}, "warmup_steps must lie in"),
        ({"threshold": 1.5}, "threshold must lie in 0 to 1, not 1.5"),
        ({"mask_threshold": -0.1}, "mask_threshold must lie in"),
        ({"overlap_mask_area_threshold": 2}, "overlap_mask_area_threshold must lie in"),
        ({"train_scenes": 0}, "train_scenes must be at least 1"),
        ({"validation_scenes": 0}, "validation_scenes must be at least 1"),
        ({"scene_size": 31}, "scene_size must be at least 32, not 31"),
    ],
)
def test_values_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("shapes/demo").override(values)


def test_the_ends_of_what_makes_sense_are_taken():
    values = {"warmup_factor": 0, "backbone_multiplier": 0, "weight_decay": 0, "poly_power": 0, "decay_factor": 0}
    training = load_recipe("shapes/demo").override(values | {"decay_steps": [1, 2], "clip_norm": 1e-9}).training
    assert {name: getattr(training, name) for name in values} == values


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
        ("evaluation: {panoptic_method: d}", "panoptic_method must be maskformer or detr, not 'd'"),
        ("labels: ade20k", "no label set 'ade20k'; there are ade20k-150"),
        ("model: {model_type: bert}", "no model_type 'bert'; there are maskformer_universal, per_pixel_baseline"),
        ("model: {use_transformer_decoder: true}", "section 'model' has no 'use_transformer_decoder'"),
        ("model: {num_queries: many}", "'num_queries' expected int, got str"),
        ("model: {hidden_size: 33}", "hidden_size must be a multiple of 32"),
        *(
            (f"{section}: 3", f"section '{section}' must be a mapping of names to values, not 3")
            for section in ("data", "training", "evaluation", "model", "image_processor", "published")
        ),
        ("model: {1: 2}", "section 'model' has no 1"),
        ("image_processor: {size: abc}", "abc"),
        ("- a", "a recipe is a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet50", r"timm's 'resnet50' does not take the backbone_kwargs {'foo': 1}: .*unexpected keyword"),
        ("swin_tiny_patch4_window7_224", "a Swin Transformer has no backbone_kwargs foo; it has drop_path_rate, "),
    ],
)
def test_unknown_changes_of_a_backbone_are_refused(backbone, message):
    recipe = load_recipe("shapes/demo").override({"backbone": backbone, "backbone_kwargs": {"foo": 1}})
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        MaskFormerForUniversalSegmentation(recipe.build_config(SHAPES_LABELS))
