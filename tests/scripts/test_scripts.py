"""The scripts, run as a user runs them, on tiny models and data."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from folders import edit_json, write_panoptic_folder, write_semantic_folder
from maskformer import (
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
    PerPixelBaselineImageProcessorPil,
    load_recipe,
)
from maskformer.data.sources import load_source
from script_runs import TINY, fails, rows, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps on generated scenes."""
    folder = tmp_path_factory.mktemp("run") / "a"
    words = ["--eval_steps", "2", "--save_steps", "2", "--max_steps", "4"]
    run("train", "--recipe", "shapes/demo", "--output_dir", folder, *TINY, *words)
    return folder


def test_a_run_leaves_models_history_and_pictures(trained):
    for name in ("best/model.safetensors", "best/preprocessor_config.json", "last/training_state.pt", "recipe.yaml"):
        assert (trained / name).is_file()
    for picture in ("curves.png", "validation.png"):
        assert Image.open(trained / picture).size[0] > 300
    history = rows(trained)
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in history if "pq" in row] == [2, 4]
    assert {"loss_ce", "loss_mask_0", "loss_dice", "learning_rate", "seconds"} <= history[0].keys()
    assert {"images_per_second", "data_share", "memory_gb"} <= history[0].keys()
    assert not list(trained.glob(".*"))


def test_a_resumed_run_ends_with_the_same_weights(trained, tmp_path):
    """Stopped after two of four steps and resumed: bit for bit the run that was never stopped."""
    words = [*TINY, "--save_steps", "2", "--eval_steps", "2"]
    first = pytest.MonkeyPatch()
    with first.context() as patch:
        # Ends the run after its first checkpoint, as a kill would.
        import maskformer.training.recorder as recorder

        patch.setattr(recorder, "measure", lambda *a, **k: sys.exit(9))
        with pytest.raises(SystemExit):
            run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "b", *words, "--max_steps", "4")
    run("train", "--output_dir", tmp_path / "b", "--resume")
    expected, actual = (load_file(folder / "last" / "model.safetensors") for folder in (trained, tmp_path / "b"))
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert [row["step"] for row in rows(tmp_path / "b") if "loss" in row] == [1, 2, 3, 4]


def test_a_folder_that_holds_a_run_is_kept(trained, capsys):
    before = (trained / "history.jsonl").read_bytes()
    message = fails(capsys, "train", "--recipe", "shapes/demo", "--output_dir", trained)
    assert "holds another run" in message and "--resume" in message
    assert (trained / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "shapes/dem"], "did you mean 'shapes/demo'"),
        (["--recipe", "shapes/demo", "--learning_rte", "1"], "did you mean 'learning_rate'"),
        (["--recipe", "shapes/demo", "--source", "panoptic_folder"], "needs --train_path"),
        (["--recipe", "shapes/demo", "--source", "shpes"], "is not known; known are shapes, panoptic_folder"),
        (["--recipe", "shapes/demo", "--backbone_weights", "nowhere.pth"], "no such file of weights"),
        (["--recipe", "shapes/demo", "--resume", "checkpoint-00000007"], "no checkpoint 'checkpoint-00000007' to"),
        (["--recipe", "mapillary-vistas-65/maskformer_r50"], "the source 'mapillary_vistas' needs --data_path"),
        (
            ["--recipe", "shapes/demo", "--accumulation_steps", "3"],
            "batch_size (8) must be a multiple of 3: 1 processes",
        ),
        (["--recipe", "shapes/demo", "--initial_model", "nowhere"], "initial_model 'nowhere' is no model folder"),
    ],
)
def test_mistakes_on_the_command_line_are_named_and_leave_nothing(tmp_path, capsys, words, message):
    assert message in fails(capsys, "train", "--output_dir", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_the_first_batches_are_drawn_and_nothing_else_is_written(trained, tmp_path, capsys):
    run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "new", *TINY, "--show_batch")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["batch.png"]
    assert Image.open(tmp_path / "new" / "batch.png").size[0] > 300
    assert "batch.png" in capsys.readouterr().out
    before = sorted(path.name for path in trained.iterdir())
    run("train", "--output_dir", trained, "--show_batch")
    assert sorted(path.name for path in trained.iterdir()) == sorted([*before, "batch.png"])


def test_training_on_a_semantic_folder(tmp_path):
    folder = write_semantic_folder(tmp_path / "data")
    data = ["--source", "semantic_folder", "--train_path", folder, "--validation_path", folder]
    words = [*TINY, *data, "--crop_size", "[32, 32]", "--best_metric", "mean_iou", "--max_steps", "2"]
    run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "run", *words)
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["id2label"] == {"0": "road", "1": "car", "2": "sky"}


def test_bad_samples_stop_training_or_are_skipped(tmp_path):
    folder = write_panoptic_folder(tmp_path / "data", count=3)
    (folder / "images" / "1.png").write_bytes(b"no image")
    data = ["--source", "panoptic_folder", "--train_path", folder, "--validation_path", folder]
    words = ["--recipe", "shapes/demo", *TINY, *data, "--max_steps", "3", "--dataloader_workers", "0"]
    with pytest.raises(SystemExit, match="1.png"):
        run("train", "--output_dir", tmp_path / "a", *words)
    run("train", "--output_dir", tmp_path / "b", "--on_bad_sample", "skip", *words)
    assert [row["images"] for row in rows(tmp_path / "b") if "pq" in row] == [2]


def test_training_and_evaluation_take_images_that_are_all_void(tmp_path):
    folder = write_panoptic_folder(tmp_path / "data", count=2)
    for index in range(2):
        Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(folder / "panoptic" / f"{index}.png")
    edit_json(folder / "panoptic.json", lambda c: [a.update(segments_info=[]) for a in c["annotations"]])
    data = ["--source", "panoptic_folder", "--train_path", folder, "--validation_path", folder]
    run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "run", *TINY, *data, "--max_steps", "2")
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert len(losses) == 2 and all(np.isfinite(losses))


def test_evaluation_prints_and_writes_what_training_measured(trained, tmp_path, capsys):
    run("eval", "--model", trained / "best", "--output_dir", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    best = max(row["pq"] for row in rows(trained) if "pq" in row)
    assert results["pq"] == pytest.approx(best, abs=1e-6)
    assert results["images"] == 3 and len(results["per_label"]) == 8
    assert "mIoU" in capsys.readouterr().out.splitlines()[-1]
    assert "not a model folder" in fails(capsys, "eval", "--model", tmp_path)
    for setting in ("learning_rate", "num_queries", "size"):
        assert f"--{setting} has no effect here" in fails(
            capsys, "eval", "--model", trained / "best", f"--{setting}", "1"
        )
    assert "did you mean 'threshold'" in fails(capsys, "eval", "--model", trained / "best", "--treshold", "1")


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_prediction_writes_a_picture_and_a_json_for_each_image(trained, tmp_path, task):
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a.png", (50, 70, 3)), ("b.jpg", (90, 40, 3)), ("c.png", (33, 33))):
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(images / name)
    (images / "d.jpg").write_bytes(b"no image")
    words = ["--model", trained / "best", "--task", task, "--threshold", "0.05"]
    with pytest.raises(SystemExit) as stop:
        run("predict", images, *words, "--output_dir", tmp_path / "out")
    assert stop.value.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.json", "a.png", "b.json", "b.png", "c.json", "c.png")
    ]
    answer = json.loads((tmp_path / "out" / "b.json").read_text())
    assert (answer["height"], answer["width"], answer["task"]) == (90, 40, task)
    assert Image.open(tmp_path / "out" / "b.png").size == (40, 90)
    assert all(segment["area"] > 0 and segment["label"] for segment in answer["segments"])


@pytest.mark.slow
def test_evaluation_and_prediction_use_the_protocol_that_a_folder_carries(trained, tmp_path, capsys):
    """A folder without a recipe beside it; `--threshold` and `--recipe` say otherwise."""
    folder = shutil.copytree(trained / "best", tmp_path / "models" / "model")
    edit_json(folder / "preprocessor_config.json", lambda content: content["test_protocol"].update(threshold=0.0))
    data = ["--validation_scenes", "1", "--output_dir", tmp_path / "results"]

    def segments(*words) -> int:
        run("eval", "--model", folder, *data, *words)
        rows = json.loads((tmp_path / "results" / "results.json").read_text())["per_label"].values()
        return sum(row["tp"] + row["fp"] for row in rows)

    assert segments() > 0
    assert segments("--threshold", "1.0") == segments("--recipe", "shapes/demo", "--threshold", "1.0") == 0
    scene = load_source(load_recipe("shapes/demo").data, "validation")[0]  # which has answers, as was seen above
    Image.fromarray(scene["image"]).save(tmp_path / "a.png")
    for words, expected in ((), True), (("--threshold", "1.0"), False):
        with pytest.raises(SystemExit):
            run("predict", tmp_path / "a.png", "--model", folder, "--output_dir", tmp_path / "b", "--overwrite", *words)
        assert bool(json.loads((tmp_path / "b" / "a.json").read_text())["segments"]) == expected


def test_prediction_keeps_answers_that_are_there(trained, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    words = [tmp_path / "a.png", "--model", trained / "best", "--output_dir"]
    message = fails(capsys, "predict", *words, tmp_path, "--overwrite")
    assert "a.png is one of the images, and would be replaced" in message
    (tmp_path / "out").mkdir()
    for name in ("a.png", "a.json"):
        (tmp_path / "out" / name).write_text("an earlier answer")
        assert f"already holds answers ({name})" in fails(capsys, "predict", *words, tmp_path / "out")
        (tmp_path / "out" / name).unlink()
    assert "no image of this name" in fails(capsys, "predict", tmp_path / "x*.png", *words[1:], tmp_path / "out")


@pytest.fixture
def per_pixel_folder(tmp_path):
    """A per-pixel model and its image processor, saved."""
    fields = {"feature_size": 32, "mask_feature_size": 16, "id2label": {0: "road", 1: "car", 2: "sky"}}
    torch.manual_seed(0)
    model = PerPixelBaselineForSemanticSegmentation(PerPixelBaselineConfig(backbone="resnet18", **fields))
    model.save_pretrained(tmp_path / "per_pixel")
    PerPixelBaselineImageProcessorPil(size={"shortest_edge": 64}).save_pretrained(tmp_path / "per_pixel")
    return tmp_path / "per_pixel"


def test_prediction_of_a_per_pixel_model_is_its_own_answer(per_pixel_folder, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        words = ["--model", per_pixel_folder, "--task", "semantic", "--output_dir", tmp_path / "out"]
        run("predict", tmp_path / "a.png", *words)
    assert stop.value.code == 0
    model = PerPixelBaselineForSemanticSegmentation.from_pretrained(per_pixel_folder).eval()
    image_processor = PerPixelBaselineImageProcessorPil.from_pretrained(per_pixel_folder)
    with torch.inference_mode():
        outputs = model(**image_processor(images=pixels, return_tensors="pt"))
    (labels,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 96)])
    segments = json.loads((tmp_path / "out" / "a.json").read_text())["segments"]
    areas = dict(zip(*(values.tolist() for values in labels.unique(return_counts=True)), strict=True))
    assert {segment["label_id"]: segment["area"] for segment in segments} == areas


def test_models_and_tasks_that_a_script_cannot_do_are_named(per_pixel_folder, trained, tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    words = [tmp_path / "a.png", "--output_dir", tmp_path / "out", "--model"]
    for task in ("panoptic", "instance"):
        message = fails(capsys, "predict", *words, per_pixel_folder, "--task", task)
        assert f"a per_pixel_baseline model has no {task} answers; use --task semantic" in message
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for content, kind in (('{"model_type": "segformer"}', "'segformer'"), ("[1]", "None"), ("{}", "None")):
        (foreign / "config.json").write_text(content)
        for message in (fails(capsys, "predict", *words, foreign), fails(capsys, "eval", "--model", foreign)):
            assert f"not {kind}" in message.splitlines()[-1] and "the model_type must be" in message
    (foreign / "config.json").write_text("{")
    assert "not valid JSON" in fails(capsys, "predict", *words, foreign)
    assert not (tmp_path / "out").exists()


def test_a_model_folder_that_lacks_weights_is_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "best", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert f"1 weights are missing, such as {name}" in fails(capsys, "eval", "--model", folder)


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_training_and_evaluation_read_prepared_data(tmp_path, streaming):
    shards, model = tmp_path / "shards", tmp_path / "run" / "best"
    run(
        "prepare_dataset",
        "--source",
        "shapes",
        "--output_dir",
        shards,
        "--train_scenes",
        "8",
        "--validation_scenes",
        "3",
    )
    words = ["--source", "prepared", "--data_path", shards, "--streaming", streaming, "--dataloader_workers", "0"]
    run("train", "--recipe", "shapes/demo", "--output_dir", tmp_path / "run", *TINY, *words, "--max_steps", "3")
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == [1, 2, 3]
    run("eval", "--model", model, "--output_dir", tmp_path, "--data_path", shards)
    assert json.loads((tmp_path / "results.json").read_text())["images"] == 3


def test_streaming_needs_prepared_data(tmp_path, capsys):
    message = fails(
        capsys,
        "train",
        "--recipe",
        "nuclei/maskformer_efficientnet_lite0",
        "--output_dir",
        tmp_path / "a",
        "--train_path",
        tmp_path,
        "--streaming",
        "true",
    )
    assert "--streaming reads prepared data" in message
