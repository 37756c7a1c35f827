"""Every recipe of the paper takes two steps on a tiny dataset in its official layout, at full width."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ade20k_trees import blocks, write_ade20k, write_ade20k_full_prepared, write_mapillary_vistas
from cityscapes_trees import write_cityscapes
from coco_trees import box, write_coco_instances, write_coco_panoptic, write_image
from folders import write_panoptic_folder, write_semantic_folder
from maskformer import list_recipes, load_recipe
from script_runs import run

RECIPES = [name for name in list_recipes() if load_recipe(name).labels]
SMALL = ["--shortest_edges", "[64]", "--longest_edge", "128", "--batch_size", "2", "--dataloader_workers", "0"]


def write_coco(folder: Path) -> Path:
    """COCO 2017 with both kinds of annotations; its training split is its validation split."""
    write_coco_panoptic(folder)
    shutil.copytree(folder / "val2017", folder / "train2017")
    shutil.copytree(folder / "annotations" / "panoptic_val2017", folder / "annotations" / "panoptic_train2017")
    shutil.copy(folder / "annotations" / "panoptic_val2017.json", folder / "annotations" / "panoptic_train2017.json")
    for split in ("train2017", "val2017"):
        other = write_coco_instances(folder / split, split, [{"segmentation": [box(2, 2, 12, 20)]}])
        shutil.copy(other / "annotations" / f"instances_{split}.json", folder / "annotations")
        shutil.copy(other / split / f"{1:012d}.jpg", folder / split)
    return folder


def write_coco_stuff(folder: Path) -> Path:
    """One image of each split of COCO-Stuff 10K."""
    for name in ("imageLists", "annotations"):
        (folder / name).mkdir(parents=True)
    for index, part in enumerate(("train", "test")):
        name = f"COCO_train2014_{index:012d}"
        (folder / "imageLists" / f"{part}.txt").write_text(name)
        write_image(folder / "images" / f"{name}.jpg", index)
        values = blocks([[1, 2, 81], [82, 172, 2]])
        savemat(folder / "annotations" / f"{name}.mat", {"S": values, "names": np.array(["a"] * 172, dtype=object)})
    return folder


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A folder for each source of the recipes."""
    root = tmp_path_factory.mktemp("trees")
    ade20k, coco = write_ade20k(root / "ade20k"), write_coco(root / "coco")
    return {
        "ade20k": ade20k,
        "ade20k_panoptic": ade20k,
        "ade20k_full": write_ade20k_full_prepared(root / "full"),
        "cityscapes": write_cityscapes(root / "cityscapes"),
        "coco_panoptic": coco,
        "coco_instance": coco,
        "coco_stuff_10k": write_coco_stuff(root / "coco_stuff_10k"),
        "mapillary_vistas": write_mapillary_vistas(root / "mapillary_vistas"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_passes_a_dry_run(name, trees, tmp_path, capsys):
    recipe = load_recipe(name)
    crop = ["--crop_size", "[64, 64]"] if recipe.data.crop_size else ["--detr_crop", "[8, 20]"]
    words = ["--recipe", name, "--data_path", trees[recipe.data.source], "--backbone_weights", "null", *SMALL, *crop]
    run("train", *words, "--output_dir", tmp_path / "run", "--dry_run")
    text = capsys.readouterr().out
    assert f"recipe          {name}" in text and "two steps       losses" in text and "nan" not in text
    assert f"{recipe.training.max_steps:,} steps" in text and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_recipes() if not load_recipe(name).labels])
def test_a_recipe_for_ones_own_images_passes_a_dry_run(name, tmp_path, capsys):
    write = write_semantic_folder if load_recipe(name).data.source == "semantic_folder" else write_panoptic_folder
    words = ["--backbone_weights", "null", "--batch_size", "2", "--dataloader_workers", "0"]
    if name.partition("/")[0] != "shapes":
        words += ["--train_path", write(tmp_path / "train"), "--validation_path", write(tmp_path / "val")]
    run("train", "--recipe", name, *words, "--output_dir", tmp_path / "run", "--dry_run")
    text = capsys.readouterr().out
    assert f"recipe          {name}" in text and "two steps       losses" in text and "nan" not in text
    assert ("pixels in the median, so that is the size of the test" in text) == name.startswith("finetune/")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-panoptic/maskformer_r50", "ade20k-150/per_pixel_baseline_plus_r50"])
def test_what_a_recipe_trains_on_is_drawn(name, trees, tmp_path):
    source = trees[load_recipe(name).data.source]
    run(
        "train",
        "--recipe",
        name,
        "--data_path",
        source,
        "--backbone_weights",
        "null",
        "--output_dir",
        tmp_path,
        "--show_batch",
    )
    assert Image.open(tmp_path / "batch.png").size[0] > 1000
