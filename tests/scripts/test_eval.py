"""`scripts/eval.py`, run as a user runs it, on tiny models and data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ade20k_trees import write_ade20k
from coco_trees import box, write_coco_instances
from evaluations import same
from folders import write_panoptic_folder
from helpers import ROOT, with_segments
from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig, load_recipe
from maskformer.data.coco_instances import load_coco_instances
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.shapes import SHAPES_LABELS, load_shapes
from script_runs import fails, run

TINY = {"backbone": "resnet18", "feature_size": 32, "mask_feature_size": 16, "hidden_size": 32}
TINY |= {"num_attention_heads": 4, "intermediate_size": 32, "decoder_layers": 2, "num_queries": 20}
SCENES = ["--validation_scenes", "4", "--threshold", "0.05", "--overlap_mask_area_threshold", "0.1"]
LEFT_OUT = ("command", "model", "key", "seconds", "images_now", "worst", "best", "protocol", "recipe")

WRITTEN = {"bars.png", "confusion.png", "report.html", "report.md", "results.json", "validation.png", "worst.png"}


def save_model(folder, recipe: str, labels, change=lambda model: model, **image_processor):
    """A model folder of random weights, which `change` may change, with the recipe's image processor."""
    torch.manual_seed(0)
    config = MaskFormerUniversalConfig(**TINY, id2label=labels.id2label, label2id=labels.label2id)
    change(MaskFormerForUniversalSegmentation(config)).save_pretrained(folder)
    processor = load_recipe(recipe).override(image_processor).build_image_processor(labels)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of generated scenes."""
    return save_model(tmp_path_factory.mktemp("models") / "scenes", "shapes/demo", SHAPES_LABELS)


def results_of(folder) -> dict:
    """The numbers in `results.json`."""
    content = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in content.items() if name not in LEFT_OUT}


def numbers(value):
    """None, which JSON has for NaN, as NaN."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return float("nan") if value is None else value


def test_everything_is_written_and_nothing_else(model, tmp_path, capsys):
    run("eval", "--model", model, "--output_dir", tmp_path, "--task", "instance", "--save_predictions", *SCENES)
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN | {"predictions"}
    assert len(list((tmp_path / "predictions" / "panoptic").iterdir())) == 4
    assert {"instances.json", "panoptic.json", "semantic"} <= {p.name for p in (tmp_path / "predictions").iterdir()}
    report = (tmp_path / "report.md").read_text()
    results = results_of(tmp_path)
    assert results["images"] == 4 and results["ap"] is not None
    assert f"| {100 * results['pq']:.1f} |" in report and "--task instance" in report
    for name in ("grass", "ring", "`threshold` | `0.05`", "bars.png", "confusion.png", "worst.png"):
        assert name in report
    assert " AP " in capsys.readouterr().out.splitlines()[-1]


def run_many(*words, processes: int = 2) -> subprocess.CompletedProcess:
    """Runs the script in several processes."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", str(processes)]
    script = [str(ROOT / "scripts" / "eval.py"), *map(str, words)]
    return subprocess.run([*launch, *script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def with_several_labels(model):
    """`model`, with weights of which scenes have answers of several labels and segments."""
    head = with_segments(model).segmentation_module.class_head
    torch.nn.init.normal_(head.weight, std=3.0, generator=torch.Generator().manual_seed(0))
    return model


def as_dataset(predictions, scenes):
    """Panoptic predictions of `scenes` as a folder of data."""
    content = json.loads((predictions / "panoptic.json").read_text())
    (predictions / "images").mkdir()
    for index, image in enumerate(content["images"]):
        Image.fromarray(np.asarray(scenes[index]["image"])).save(predictions / "images" / f"{image['id']}.png")
        image |= {"file_name": f"{image['id']}.png", "height": 128, "width": 128}
    (predictions / "panoptic.json").write_text(json.dumps(content))
    return predictions


@pytest.mark.slow
def test_an_error_of_one_process_is_one_of_all(tmp_path):
    """The second image, and so the second process, has a damaged file; two recipes of the table have a model."""
    data, models = write_ade20k(tmp_path / "data", count=3), tmp_path / "models"
    names = ["ade20k-150/maskformer_r50", "ade20k-150/maskformer_r101"]
    for name in names:
        size = {"shortest_edge": 32, "longest_edge": 64}
        save_model(models / name, name, load_label_set("ade20k-150"), size=size)
    image = "ADEChallengeData2016/images/validation/ADE_val_00000002.jpg"
    (data / image).write_bytes(b"no picture")
    words = ["--data_path", data, "--output_dir", tmp_path / "out", "--tta_shortest_edges", "[32]"]
    done = run_many("--table", "1", "--models", models, *words)
    assert done.returncode == 0 and (tmp_path / "out" / "table1.md").is_file(), done.stderr
    assert done.stderr.count("left blank: ") == 4 and image in done.stderr  # two models, single and multi scale
    done = run_many("--model", models / names[0], "--recipe", names[0], *words)
    assert done.returncode != 0 and done.stderr.count("--on_bad_sample skip leaves such examples out") == 1
    assert image in done.stderr


@pytest.mark.slow
def test_two_and_three_processes_measure_what_one_does(tmp_path):
    """Four images, of answers of several labels, right in part: the truth is what other thresholds let through."""
    model = save_model(tmp_path / "model", "shapes/demo", SHAPES_LABELS, change=with_several_labels)
    run("eval", "--model", model, *SCENES, "--save_predictions", "--output_dir", tmp_path / "truth")
    data = as_dataset(tmp_path / "truth" / "predictions", load_shapes("validation", 4, 128))
    words = ["--model", str(model), "--task", "instance", "--threshold", "0.02"]
    words += ["--source", "panoptic_folder", "--validation_path", str(data)]
    run("eval", *words, "--output_dir", tmp_path / "one")
    one = numbers(results_of(tmp_path / "one"))
    for processes in (2, 3):
        folder = tmp_path / str(processes)
        assert run_many(*words, "--output_dir", folder, processes=processes).returncode == 0
        assert same(one, numbers(results_of(folder))) and not list(folder.glob("progress*"))
    assert one["images"] == 4
    assert sum(row["tp"] > 0 for row in one["per_label"].values()) > 1 and 0 < one["pq"] < 1


def test_an_evaluation_that_was_stopped_goes_on(model, tmp_path, monkeypatch):
    words = ["--model", model, "--output_dir", tmp_path / "a", "--save_predictions", "--save_every", "1", *SCENES]
    from maskformer.evaluation.predictions import PredictionFolder

    write, written = PredictionFolder.write, []

    def stopping_write(self, example, answer):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(example["index"])
        write(self, example, answer)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFolder, "write", stopping_write)
        with pytest.raises(KeyboardInterrupt):
            run("eval", *words)
    assert len(list((tmp_path / "a").glob("progress-*"))) == 2 and not (tmp_path / "a" / "results.json").exists()
    run("eval", *words)
    assert json.loads((tmp_path / "a" / "results.json").read_text())["images_now"] == 2
    run("eval", "--model", model, "--output_dir", tmp_path / "b", *SCENES)
    assert same(numbers(results_of(tmp_path / "a")), numbers(results_of(tmp_path / "b")))
    assert len(list((tmp_path / "a" / "predictions" / "semantic").iterdir())) == 4


@pytest.mark.parametrize("save_every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_evaluation_that_was_stopped_after_its_last_image_ends_with_everything(
    model, tmp_path, monkeypatch, save_every
):
    """Three images: two files of progress of one, or one of two and one of one. It stops at a picture, or just before
    the end, when predictions lie in their place already and are counted again."""
    words = ["--model", model, "--output_dir", tmp_path, "--save_predictions", "--save_every", save_every, *SCENES]
    words += ["--limit", "3"]

    def stop(*arguments) -> None:
        raise KeyboardInterrupt

    for place, answered in (
        ("maskformer.evaluation.evaluate_model.draw_validation", 0),
        ("maskformer.evaluation.progress.Progress.clear", 3),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, stop)
            with pytest.raises(KeyboardInterrupt):
                run("eval", *words)
        assert results_of(tmp_path)["images"] == 3 and list(tmp_path.glob("progress-*"))
        run("eval", *words)
        assert json.loads((tmp_path / "results.json").read_text())["images_now"] == answered
        assert {path.name for path in tmp_path.iterdir()} == WRITTEN | {"predictions"}
        folder = tmp_path / "predictions"
        assert {path.name for path in folder.iterdir()} == {"panoptic", "panoptic.json", "semantic"}
        assert all(len(list((folder / kind).iterdir())) == 3 for kind in ("panoptic", "semantic"))
        assert len(json.loads((folder / "panoptic.json").read_text())["annotations"]) == 3


def test_a_picture_that_fails_is_named_and_loses_no_number(model, tmp_path, monkeypatch, caplog):
    def fail(*arguments) -> None:
        raise RuntimeError("no room for it")

    monkeypatch.setattr("maskformer.evaluation.evaluate_model.draw_bars", fail)
    (tmp_path / "bars.png").write_bytes(b"of an earlier evaluation")
    run("eval", "--model", model, "--output_dir", tmp_path, "--limit", "1", *SCENES)
    assert f"{tmp_path / 'bars.png'} could not be drawn: no room for it" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN - {"bars.png"}


@pytest.mark.parametrize(
    "words",
    [["--tta", "true", "--tta_shortest_edges", "[64, 96]"], ["--sliding_window", "[96, 96]", "--stride", "[64, 64]"]],
)
def test_averages_of_views_have_no_segments_and_say_so(model, tmp_path, capsys, words):
    run("eval", "--model", model, "--output_dir", tmp_path, "--limit", "2", *SCENES, *words)
    results = results_of(tmp_path)
    assert results["images"] == 2 and "pq" not in results and 0 <= results["semantic_pq"] <= 1
    out = capsys.readouterr().out
    assert "semantic answers only: segments of several views of an image cannot be averaged" in out


def test_average_precision_of_instance_data(tmp_path, capsys):
    annotations = [{"segmentation": [box(0, 0, 8, 8)]}, {"segmentation": [box(4, 4, 16, 16)], "category_id": 1}]
    data = write_coco_instances(tmp_path / "data", annotations=annotations, images=2)
    source = ["--recipe", "coco-instance/maskformer_r50", "--source", "coco_instances", "--validation_path"]
    path = data / "annotations" / "instances_val2017.json"
    folder = tmp_path / "set"
    shutil.copytree(data / "val2017", folder / "images")
    shutil.copy(path, folder / "annotations.json")
    labels = load_coco_instances(folder).labels
    model = save_model(tmp_path / "model", "coco-instance/maskformer_r50", labels, size={"shortest_edge": 64})
    run("eval", "--model", model, *source, folder, "--output_dir", tmp_path / "out")
    results = results_of(tmp_path / "out")
    assert 0 <= results["ap"] <= 1 and sum(row["instances"] for row in results["per_label"].values()) == 2
    assert " AP " in capsys.readouterr().out.splitlines()[-1]


def test_a_table_holds_the_models_that_are_there(tmp_path, capsys):
    data, models = write_ade20k(tmp_path / "data"), tmp_path / "models"
    name = "ade20k-150/maskformer_r50"
    save_model(models / name, name, load_label_set("ade20k-150"), size={"shortest_edge": 32, "longest_edge": 64})
    words = ["--table", "1", "--models", models, "--output_dir", tmp_path / "out", "--data_path", data]
    words += ["--tta_shortest_edges", "[32, 48]"]
    run("eval", *words)
    first = capsys.readouterr().out
    rows = {line.split("`")[1]: line for line in first.splitlines() if line.startswith("| `")}
    single, multi = (results_of(tmp_path / "out" / name / part) for part in ("", "multi_scale"))
    cells = [cell.strip() for cell in rows[name].split("|")[2:-1]]
    assert cells == ["44.5", f"{100 * single['mean_iou']:.1f}", "46.7", f"{100 * multi['mean_iou']:.1f}"]
    assert rows["ade20k-150/maskformer_r101"].split("|")[3].strip() == "" and len(rows) == 8
    written = (tmp_path / "out" / name / "results.json").stat().st_mtime_ns
    run("eval", *words)  # nothing is measured twice
    again = capsys.readouterr()
    assert again.out == first and f"taken from {tmp_path / 'out' / name / 'results.json'}" in again.err
    assert (tmp_path / "out" / name / "results.json").stat().st_mtime_ns == written
    shutil.rmtree(data)
    run("eval", *words[:4], "--output_dir", tmp_path / "again", "--data_path", data)
    assert "left blank: " in capsys.readouterr().err


def test_a_map_of_another_size_than_its_image_is_named(tmp_path, model, capsys):
    data = write_panoptic_folder(tmp_path / "data", count=2)
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(data / "images" / "1.png")
    words = ["--source", "panoptic_folder", "--validation_path", data, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit) as stop:
        run("eval", "--model", model, *words)
    assert "(128, 128) pixels, but its image has (10, 12)" in str(stop.value)
    assert not (tmp_path / "out" / "results.json").exists()


def test_labels_of_model_and_dataset_are_compared_by_name(model, tmp_path, capsys, caplog):
    """In another order, or others: refused. Some in other words, or without names: evaluated."""
    names = list(SHAPES_LABELS.names)
    swapped = [names[1], names[0], *names[2:]]
    for number, (given, message) in enumerate(
        (
            (swapped, f"label 0 of the model is {names[1]!r}, which is label 1 of the dataset"),
            ([*names[:2], *"abcdef"], f"label 2 is 'a' in the model and {names[2]!r} in the dataset; 6 of 8 differ"),
            (names[:7], "the model has 7 labels, the dataset 8"),
            ([*names[:7], "something"], None),
            ([f"{name.upper()}, synonym" for name in names], None),
            ([f"LABEL_{index}" for index in range(8)], None),
        )
    ):
        labels = LabelSet.from_categories([{"id": index, "name": name} for index, name in enumerate(given)])
        folder = save_model(tmp_path / f"{number}", "shapes/demo", labels)
        words = ["--model", folder, "--limit", "1", *SCENES]
        if message:
            assert message in fails(capsys, "eval", *words)
            continue
        caplog.clear()
        run("eval", *words)
        assert ("'something' in the model" in caplog.text) == ("something" in given)
        assert results_of(folder)["per_label"].keys() == set(names)


def test_the_recipe_beside_a_model_is_found_from_within_its_folder(model, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(model, tmp_path / "run" / "best")
    monkeypatch.chdir(folder)
    message = fails(capsys, "eval", "--model", ".", "--data_path", tmp_path)
    assert f"there is no {tmp_path / 'run' / 'recipe.yaml'}; --recipe NAME, or --source, says where the data" in message
    load_recipe("shapes/demo").override({"validation_scenes": 3, "threshold": 0.125}).save(tmp_path / "run/recipe.yaml")
    run("eval", "--model", ".")
    results = json.loads((folder / "results.json").read_text())
    assert results["images"] == 3 and results["protocol"]["threshold"] == 0.125


def test_settings_of_a_table_are_refused_before_anything_is_measured(tmp_path, capsys):
    """Though no model is there."""
    words = ["--table", "1", "--models", tmp_path]
    for given, message in (
        (["--tta", "true"], "--table has its own columns; --tta has no effect"),
        (["--sliding-window=[64, 64]"], "--table has its own columns; --sliding_window has no effect"),
        (["--tta_shortest_edges", "[0, 64]"], "tta_shortest_edges must be at least 1, not [0, 64]"),
        (["--tta_longest_edge", "0"], "tta_longest_edge must be at least 1, not 0"),
        (["--tta_shortest_edges", "[]"], "tta needs tta_shortest_edges"),
    ):
        assert message in fails(capsys, "eval", *words, *given)
    assert not list(tmp_path.iterdir())


def test_a_table_measures_again_where_annotations_have_changed(model, tmp_path):
    """The key of an evaluation, by which a table knows results, is another one for other rows."""
    data = write_panoptic_folder(tmp_path / "data", count=2)
    words = ["--model", model, "--source", "panoptic_folder", "--validation_path", data, "--output_dir", tmp_path]

    def key() -> str:
        run("eval", *words)
        return json.loads((tmp_path / "results.json").read_text())["key"]

    before = key()
    assert key() == before
    content = json.loads((data / "panoptic.json").read_text())
    content["annotations"][0]["segments_info"][0]["iscrowd"] = 1
    (data / "panoptic.json").write_text(json.dumps(content))
    assert key() != before


def test_options_that_contradict_each_other_are_named(model, tmp_path, capsys):
    for words, message in (
        ([], "one of --model and --table is needed"),
        (["--model", model, "--table", "1"], "one of --model and --table is needed"),
        (["--table", "1"], "--table needs --models, a folder"),
        (["--model", model, "--limit", "0"], "--limit must be at least 1, not 0"),
        (["--model", "somebody/model"], "--output_dir is needed for somebody/model"),
        (["--model", "somebody/model", "--output_dir", tmp_path], "nor a model that the Hub gave"),
        (["--model", model, *SCENES, "--tta", "true"], "tta needs tta_shortest_edges"),
        (["--model", model, *SCENES, "--stride", "[8, 8]"], "stride has no effect without sliding_window"),
        (["--model", model, *SCENES, "--tta", "true", "--tta_shortest_edges", "[0]"], "must be at least 1, not [0]"),
    ):
        assert message in fails(capsys, "eval", *words)
    assert not list(tmp_path.iterdir())
