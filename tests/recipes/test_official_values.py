"""Every official configuration against its recipe, value for value, and the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers import ROOT, fixture
from maskformer import (
    MaskFormerForUniversalSegmentation,
    PerPixelBaselineForSemanticSegmentation,
    list_recipes,
    load_recipe,
)
from maskformer.modeling.swin import NAME as SWIN_NAME
from maskformer.modeling.swin import VARIANTS

OFFICIAL = fixture("recipes")
RESNETS = {
    "resnet50": [50, "basic", [1, 1, 1]],
    "resnet101": [101, "basic", [1, 1, 1]],
    "resnet101s": [101, "deeplab", [1, 2, 4]],
}
SOURCES = {
    "ade20k": "ade20k_sem_seg_train",
    "ade20k_full": "ade20k_full_sem_seg_train",
    "ade20k_panoptic": "ade20k_panoptic_train",
    "cityscapes": "cityscapes_fine_sem_seg_train",
    "coco_panoptic": "coco_2017_train_panoptic",
    "coco_stuff_10k": "coco_2017_train_stuff_10k_sem_seg",
    "mapillary_vistas": "mapillary_vistas_sem_seg_train",
}
# Each has its crop and says whether segments without a pixel are learnt.
MAPPERS = {
    (True, True): "detr_panoptic",
    (False, True): "mask_former_panoptic",
    (False, False): "mask_former_semantic",
}


def backbone_values(config) -> dict:
    """The backbone under official names: depth, stem and dilations of a ResNet, or what defines a Swin."""
    kwargs = config.backbone_kwargs or {}
    swin = SWIN_NAME.fullmatch(config.backbone)
    if not swin:
        depth, stem, dilations = RESNETS[config.backbone]
        assert kwargs.get("multi_grid", [1, 1, 1]) == dilations and config.freeze_batch_norm
        return {"model.resnet": [depth, stem, dilations], "model.swin": None}
    width, depths, heads = VARIANTS[swin[1]]
    pretrained_at = int(config.backbone.rsplit("_", 1)[1])
    values = [pretrained_at, width, list(depths), list(heads), int(swin[2]), kwargs["drop_path_rate"]]
    return {"model.resnet": None, "model.swin": values}


def model_values(config) -> dict:
    """The model under official names."""
    values = backbone_values(config) | {
        "model.sem_seg_head.num_classes": config.num_labels,
        "model.sem_seg_head.convs_dim": config.feature_size,
        "model.sem_seg_head.mask_dim": config.mask_feature_size,
        "model.sem_seg_head.transformer_enc_layers": config.pixel_decoder_encoder_layers,
        "model.mask_former.deep_supervision": config.deep_supervision,
        "model.mask_former.nheads": config.num_attention_heads,
        "model.mask_former.dropout": config.dropout,
        "model.mask_former.dim_feedforward": config.intermediate_size,
        "model.mask_former.dec_layers": config.decoder_layers,
        "model.mask_former.pre_norm": config.pre_norm,
        "model.mask_former.hidden_dim": config.hidden_size,
    }
    if config.model_type == "maskformer_universal":
        return values | {
            "model.sem_seg_head.name": "MaskFormerHead",
            "model.mask_former.no_object_weight": config.no_object_weight,
            "model.mask_former.dice_weight": config.dice_weight,
            "model.mask_former.mask_weight": config.mask_weight,
            "model.mask_former.num_object_queries": config.num_queries,
        }
    if not config.use_transformer_decoder:
        return values | {"model.sem_seg_head.name": "PerPixelBaselineHead"}
    queries = {"model.mask_former.num_object_queries": config.num_queries}
    return values | {"model.sem_seg_head.name": "PerPixelBaselinePlusHead"} | queries


def processing_values(recipe) -> dict:
    """Data and test under official names."""
    data, evaluation, processor = recipe.data, recipe.evaluation, recipe.build_image_processor()
    config = recipe.build_config()
    if config.model_type == "per_pixel_baseline":
        assert config.ignore_index == processor.ignore_index
    return {
        "model.pixel_mean": [round(255 * value, 9) for value in processor.image_mean],
        "model.pixel_std": [round(255 * value, 9) for value in processor.image_std],
        "model.sem_seg_head.ignore_value": processor.ignore_index,
        "model.mask_former.size_divisibility": processor.size_divisor,
        "model.mask_former.test.panoptic_on": processor.resize_masks_first,
        "model.mask_former.test.object_mask_threshold": evaluation.threshold,
        "model.mask_former.test.overlap_threshold": evaluation.overlap_mask_area_threshold,
        "data.train": [SOURCES[data.source]],
        "data.min_size_train": data.shortest_edges,
        "data.max_size_train": data.longest_edge,
        "data.min_size_test": processor.size["shortest_edge"],
        "data.max_size_test": processor.size["longest_edge"],
        "data.crop.type": "absolute" if data.crop_size else "absolute_range",
        "data.crop.size": data.crop_size or data.detr_crop,
        "data.crop.single_category_max_area": data.single_category_max_area,
        "data.color_aug_ssd": data.color_jitter,
        "data.mapper": MAPPERS[bool(data.detr_crop), data.keep_emptied_segments],
        "tta.min_sizes": evaluation.tta_shortest_edges,
        "tta.max_size": evaluation.tta_longest_edge,
        "tta.flip": evaluation.tta_flip,
    }


def solver_values(training) -> dict:
    """The optimisation under official names."""
    values = {
        "solver.max_iter": training.max_steps,
        "solver.base_lr": training.learning_rate,
        "solver.weight_decay": training.weight_decay,
        "solver.weight_decay_norm": 0.0,  # see test_optimization.py
        "solver.weight_decay_embed": 0.0,
        "solver.warmup_factor": training.warmup_factor,
        "solver.warmup_iters": training.warmup_steps,
        "solver.ims_per_batch": training.batch_size,
        "solver.backbone_multiplier": training.backbone_multiplier,
        "solver.clip_gradients.clip_value": training.clip_norm,
        "solver.clip_gradients.norm_type": 2.0,
        "solver.gamma": training.decay_factor,
    }
    if training.decay_steps:
        return values | {"solver.lr_scheduler_name": "WarmupMultiStepLR", "solver.steps": training.decay_steps}
    return values | {"solver.lr_scheduler_name": "WarmupPolyLR", "solver.poly_lr_power": training.poly_power}


@pytest.mark.parametrize("name", OFFICIAL["configurations"])
def test_a_recipe_has_the_values_of_its_official_configuration(name):
    expected = OFFICIAL["common"] | OFFICIAL["configurations"][name]
    for key in ("official", "params", "macs", "macs_input_hw"):
        expected.pop(key)
    recipe = load_recipe(name)
    weights = expected.pop("model.weights")
    assert Path(recipe.training.backbone_weights).stem == Path(weights).stem  # Swin: .pth, which the .pkl is made from
    values = model_values(recipe.build_config()) | processing_values(recipe) | solver_values(recipe.training)
    assert values == expected


@pytest.mark.parametrize("name", OFFICIAL["configurations"])
def test_parameters_are_counted_as_officially(name):
    config = load_recipe(name).build_config()
    with torch.device("meta"):
        if config.model_type == "per_pixel_baseline":
            model = PerPixelBaselineForSemanticSegmentation(config)
        else:
            model = MaskFormerForUniversalSegmentation(config)
    assert model.num_parameters() == OFFICIAL["configurations"][name]["params"]


def test_published_numbers():
    published = {name: load_recipe(name).published for name in list_recipes()}
    assert {name: values for name, values in published.items() if values} == {
        name: values for name, values in OFFICIAL["published"].items() if values
    }


@pytest.mark.parametrize("name", OFFICIAL["published"])
def test_a_recipe_of_the_paper_is_short_and_says_what_it_is(name):
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines()
    assert len(lines) <= 30
    header = "\n".join(line for line in lines if line.startswith("#"))
    for words in ("of the paper", "V100 GPUs", f"scripts/train.py --recipe {name} "):
        assert words in header or words == "of the paper" and "official model zoo, not in tables" in header
    assert f"{load_recipe(name).training.max_steps:,} steps of {load_recipe(name).training.batch_size} images" in header


@pytest.mark.parametrize(
    ("name", "parent", "differing"),
    [
        ("ade20k-150/maskformer_swin_base_in1k", "maskformer_swin_base_in21k_384", {"training": {"backbone_weights"}}),
        (
            "coco-panoptic/maskformer_swin_base_in1k",
            "maskformer_swin_base_in21k_384",
            {"training": {"backbone_weights"}},
        ),
        (
            "coco-panoptic/maskformer_detr_r50",
            "maskformer_r50",
            {"evaluation": {"panoptic_method", "threshold"}},
        ),
        (
            "cityscapes-19/per_pixel_baseline_r101",
            "maskformer_r101",
            {"model": {"model_type"}, "image_processor": {"size_divisor"}},
        ),
        (
            "cityscapes-19/per_pixel_baseline_plus_r101",
            "maskformer_r101",
            {"model": {"model_type", "use_transformer_decoder"}, "image_processor": {"size_divisor"}},
        ),
    ],
)
def test_rows_without_an_official_file_differ_from_their_sibling_only_in_what_they_are_about(name, parent, differing):
    sections, others = load_recipe(name).sections(), load_recipe(f"{name.split('/')[0]}/{parent}").sections()
    assert sections.pop("published") != others.pop("published")
    assert sections.pop("labels") == others.pop("labels")
    for section, values in sections.items():
        keys = {key for key in values | others[section] if values.get(key) != others[section].get(key)}
        assert keys == differing.get(section, set())
