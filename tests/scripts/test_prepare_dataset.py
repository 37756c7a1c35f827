"""`scripts/prepare_dataset.py`: the same shards however a run went, and mistakes that are named."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from coco_trees import assert_same_example
from folders import edit_json, write_json, write_panoptic_folder, write_semantic_folder
from helpers import ROOT
from hub_trees import blocks, write_semantic
from maskformer.data.example import BadSample, Source
from maskformer.data.hub import HubDataset, load_hub
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.preparation import Job, prepare, verify
from maskformer.data.prepared import load_prepared
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.shapes import render_scene
from script_runs import fails, run

SCRIPT = "prepare_dataset"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("panoptic") / "data", count=6, size=32)


def words(folder: Path, out: Path, *more) -> list:
    return ["--source", "panoptic_folder", "--input", folder, "--split", "train", "--output_dir", out, *more]


def test_shapes_become_two_splits(tmp_path, capsys):
    sizes = ("--train_scenes", 3, "--validation_scenes", 2, "--scene_size", 32)
    run(SCRIPT, "--source", "shapes", *sizes, "--output_dir", tmp_path / "out")
    for split, count in (("train", 3), ("validation", 2)):
        source = load_prepared(tmp_path / "out", split)
        assert len(source) == count
        for index in range(count):
            assert (source[index]["image"] == render_scene(split, index, 32)["image"]).all()
            assert source[index]["segments_info"] == render_scene(split, index, 32)["segments_info"]
    said = capsys.readouterr().out
    assert "images/s" in said and "validation: 2 examples in 1 shards" in said


def test_settings_of_a_source_are_used_and_written_down(tmp_path):
    folder = write_semantic_folder(tmp_path / "data")
    for path in (folder / "labels").iterdir():
        path.write_bytes((folder / "labels" / "0.png").read_bytes())
    edit_json(folder / "labels.json", lambda content: content.append("tree"))
    more = ("--input", folder, "--split", "train", "--ignore_index", 1, "--reduce_labels", "true")
    run(SCRIPT, "--source", "semantic_folder", *more, "--on_bad_sample", "skip", "--output_dir", tmp_path / "out")
    manifest = verify(tmp_path / "out")["splits"]["train"]
    assert manifest["source"] == "semantic_folder" and manifest["input"] == str(folder)
    assert manifest["options"] == {"ignore_index": 1, "reduce_labels": True}
    assert manifest["shards"][0]["rows"] == 0  # 255 is no label then
    assert [problem.split(":")[0] for problem in manifest["shards"][0]["skipped"]] == [
        str(folder / "labels" / f"{index}.png") for index in range(3)
    ]


def test_a_dataset_of_the_hub_is_prepared_by_its_name(tmp_path):
    folder = tmp_path / "repository"
    for split in ("train", "validation"):
        write_semantic(folder, [blocks(0, 1), blocks(1, 255)], split, files=2)
    write_json(folder / "id2label.json", {"0": "road", "1": "car"})
    run(SCRIPT, "--source", "hub", "--dataset", folder, "--output_dir", tmp_path / "out")
    assert verify(tmp_path / "out")["splits"]["train"]["options"] == {"dataset": str(folder)}
    for split in ("train", "validation"):
        source, expected = load_prepared(tmp_path / "out", split), load_hub(HubDataset(str(folder)), split)
        assert source.labels == expected.labels and len(source) == 2
        for index in range(2):
            assert_same_example(source[index], expected[index])


def test_splits_may_be_prepared_one_after_the_other(tmp_path, panoptic):
    other = write_panoptic_folder(tmp_path / "other", count=2, split="validation", size=32)
    inputs = ("--input", panoptic, other, "--split", "train", "validation")
    run(SCRIPT, "--source", "panoptic_folder", *inputs, "--output_dir", tmp_path / "at_once")
    run(SCRIPT, *words(panoptic, tmp_path / "apart"))
    run(SCRIPT, "--source", "panoptic_folder", *("--input", other), "--split", "validation", *out(tmp_path / "apart"))
    assert contents(tmp_path / "at_once") == contents(tmp_path / "apart")


def out(folder: Path) -> tuple:
    return "--output_dir", folder


class KilledAt:
    """A decoder whose process is killed at one image, while the file `armed` exists."""

    def __init__(self, decode, image_id: str, armed: Path):
        self.decode, self.image_id, self.armed = decode, image_id, armed

    def __call__(self, row: dict):
        if row["image_id"] == self.image_id and self.armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.decode(row)


@pytest.mark.parametrize("place", range(6))
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, panoptic, place):
    source = load_panoptic_folder(panoptic)
    whole = prepare([Job.of("train", source, {}, 3, skip_bad=False)], tmp_path / "whole")
    armed = tmp_path / "armed"
    armed.touch()
    deadly = Source(source.rows, source.labels, KilledAt(source.decode, str(place), armed))
    job = Job.of("train", deadly, {}, 3, skip_bad=False)
    process = multiprocessing.get_context("fork").Process(target=prepare, args=([job], tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(ValueError, match="manifest.json: there is no such file"):
        load_prepared(tmp_path / "out", "train")
    done = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(done) == place // 2
    times = [path.stat().st_mtime_ns for path in done]

    armed.unlink()
    reports = []
    assert prepare([job], tmp_path / "out", progress=reports.append) == whole
    assert reports[0] == 2 * len(done) and sum(reports) == 6
    assert [path.stat().st_mtime_ns for path in done] == times
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_processes_give_the_same_bytes_and_end_with_the_program(tmp_path):
    program = [sys.executable, ROOT / "scripts" / f"{SCRIPT}.py", "--source", "shapes", "--split", "train"]
    program += ["--train_scenes", "400", "--num_shards", "8"]
    subprocess.run([*program, *out(tmp_path / "one")], check=True)
    several = [*map(str, program), "--workers", "2", *map(str, out(tmp_path / "two"))]
    process = subprocess.Popen(several)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "two").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "two" / "manifest.json").exists()
    time.sleep(1)
    temporary = list((tmp_path / "two").glob(".*.parquet.new"))
    sizes = [path.stat().st_size for path in temporary]
    time.sleep(2)
    assert [path.stat().st_size for path in temporary] == sizes  # nobody writes any more
    subprocess.run(several, check=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_damaged_shard_is_written_anew_and_others_are_kept(tmp_path, panoptic):
    command = words(panoptic, tmp_path / "out", "--num_shards", 3)
    run(SCRIPT, *command)
    before = contents(tmp_path / "out")
    path, kept = (tmp_path / "out" / f"train-0000{index}-of-00003.parquet" for index in (1, 2))
    time_of_kept = kept.stat().st_mtime_ns
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 4))
    run(SCRIPT, *command)
    assert contents(tmp_path / "out") == before and kept.stat().st_mtime_ns == time_of_kept


def test_bad_samples_stop_the_run_or_are_skipped(tmp_path, capsys):
    folder = write_panoptic_folder(tmp_path / "data", count=5, size=32)
    (folder / "images" / "3.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        run(SCRIPT, *words(folder, tmp_path / "out", "--num_shards", 5))
    assert "images/3.png: not a readable image" in stop.value.code and "--on_bad_sample skip" in stop.value.code
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3

    run(SCRIPT, *words(folder, tmp_path / "skipped", "--num_shards", 2, "--on_bad_sample", "skip"))
    source = load_prepared(tmp_path / "skipped", "train")
    assert [source[index]["image_id"] for index in range(4)] == ["0", "1", "2", "4"]
    assert "train: 4 examples in 2 shards" in (said := capsys.readouterr().out) and "1 skipped" in said
    shards = verify(tmp_path / "skipped")["splits"]["train"]["shards"]
    assert [shard["rows"] for shard in shards] == [2, 2] and "images/3.png" in shards[1]["skipped"][0]


def test_a_bad_sample_in_another_process_is_named(tmp_path):
    error = BadSample("images/3.png: not a readable image")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_shards_are_even_and_at_most_one_an_example(panoptic):
    source = load_panoptic_folder(panoptic)
    job = Job.of("train", source, {}, 4, skip_bad=False)
    assert [list(job.indices(shard)) for shard in range(4)] == [[0], [1, 2], [3], [4, 5]]
    assert Job.of("train", source, {}, 100, skip_bad=False).num_shards == 6
    assert Job.of("train", source, {}, None, skip_bad=False).num_shards == 1
    many = Source(range(2001), source.labels, source.decode)
    assert Job.of("train", many, {}, None, skip_bad=False).num_shards == 3


def test_folders_of_something_else_are_refused(tmp_path, panoptic, capsys):
    (tmp_path / "notes.txt").touch()
    assert "holds 'notes.txt', which is no prepared data" in fails(capsys, SCRIPT, *words(panoptic, tmp_path))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-00000-of-00001.parquet").touch()
    assert "but not the manifest.json of prepared data" in fails(capsys, SCRIPT, *words(panoptic, foreign))
    assert contents(foreign) == {"train-00000-of-00001.parquet": b""}


def test_a_run_with_other_words_is_refused(tmp_path, panoptic, capsys):
    target = tmp_path / "out"
    run(SCRIPT, *words(panoptic, target, "--num_shards", 2))
    before = contents(target)
    assert "train split has num_shards 2, not 3" in fails(capsys, SCRIPT, *words(panoptic, target, "--num_shards", 3))
    other = write_panoptic_folder(tmp_path / "data", count=6, size=32)
    assert "train split has input" in fails(capsys, SCRIPT, *words(other, target, "--num_shards", 2))
    edit_json(other / "panoptic.json", lambda content: content["categories"][0].update(name="lawn"))
    command = words(other, target, "--num_shards", 2)
    command[command.index("train")] = "validation"
    assert "label 0 is 'grass' in" in fails(capsys, SCRIPT, *command)
    assert contents(target) == before


def test_two_programs_do_not_write_into_one_folder(tmp_path, panoptic):
    (tmp_path / "out").mkdir()
    with (
        filelock.FileLock(tmp_path / "out" / ".lock", is_singleton=False),
        pytest.raises(ValueError, match="another process is preparing data"),
    ):
        prepare([Job.of("train", load_panoptic_folder(panoptic), {}, 1, skip_bad=False)], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[2:], "--source is needed: one of shapes, panoptic_folder"),
        (lambda c: [*c, "--crop_size", "[8, 8]"], "--crop_size has no effect here"),
        (lambda c: [*c, "--ignore_indx", 3], "no 'ignore_indx'; did you mean 'ignore_index'"),
        (lambda c: [*c, "--num_shards", 0], "num_shards must be at least 1, not 0"),
        (lambda c: [*c, "--input", "a", "b"], "--input names 2 folders for 1 splits"),
        (lambda c: [*c, "--verify"], "--verify looks at --output_dir alone"),
        (lambda c: [*c, "--split", "train", "validation"], "holds one split, not train and validation"),
        (lambda c: [word for word in c if word != "--input" and "data" not in str(word)], "needs --train_path"),
    ],
)
def test_mistakes_are_named(tmp_path, panoptic, capsys, change, message):
    assert message in fails(capsys, SCRIPT, *change(words(panoptic, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_verify_says_what_is_there_and_what_is_wrong(tmp_path, panoptic, capsys):
    run(SCRIPT, *words(panoptic, tmp_path / "out", "--num_shards", 2))
    run(SCRIPT, "--verify", *out(tmp_path / "out"))
    assert "train: 6 examples in 2 shards" in (said := capsys.readouterr().out) and "every checksum is right" in said
    (tmp_path / "out" / "train-00001-of-00002.parquet").unlink()
    assert "train-00001-of-00002.parquet: the shard is missing" in fails(
        capsys, SCRIPT, "--verify", *out(tmp_path / "out")
    )


def test_semantic_folders_are_prepared_as_they_are(tmp_path):
    folder = write_semantic_folder(tmp_path / "data")
    run(SCRIPT, "--source", "semantic_folder", "--input", folder, "--split", "train", *out(tmp_path / "out"))
    result, source = load_prepared(tmp_path / "out", "train"), load_semantic_folder(folder)
    for index in range(3):
        for key in ("image", "segmentation"):
            assert (result[index][key] == source[index][key]).all()
        assert result[index]["segments_info"] == source[index]["segments_info"]


def test_what_has_changed_since_is_prepared_anew(tmp_path):
    """Files that were mended, corrected or renamed; all other shards are kept."""
    data, out = write_semantic_folder(tmp_path / "data", count=4), tmp_path / "out"
    words = ["--source", "semantic_folder", "--input", data, "--split", "train", "--output_dir", out]
    words += ["--num_shards", "4", "--on_bad_sample", "skip"]
    good = (data / "images" / "2.jpg").read_bytes()
    (data / "images" / "2.jpg").write_bytes(good[:100])
    run("prepare_dataset", *words)
    for streaming in (False, True):  # one of the shards is empty
        assert [row["image_id"] for row in load_prepared(out, "train", streaming).rows] == ["0", "1", "3"]
    (data / "images" / "2.jpg").write_bytes(good)
    kept = (out / "train-00000-of-00004.parquet").stat().st_mtime_ns
    run("prepare_dataset", *words)
    assert len(load_prepared(out, "train")) == 4
    assert (out / "train-00000-of-00004.parquet").stat().st_mtime_ns == kept
    # A label map is corrected.
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(data / "labels" / "1.png")
    run("prepare_dataset", *words)
    assert [info["label_id"] for info in load_prepared(out, "train")[1]["segments_info"]] == [0]
    # The first becomes the last: every shard holds another image.
    for folder, suffix in (("images", "jpg"), ("labels", "png")):
        (data / folder / f"0.{suffix}").rename(data / folder / f"9.{suffix}")
    run("prepare_dataset", *words)
    assert [row["image_id"] for row in load_prepared(out, "train").rows] == ["1", "2", "3", "9"]


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"file": "x"}'])
def test_a_damaged_record_is_none(tmp_path, panoptic, content):
    out = tmp_path / "out"
    words = ["--source", "panoptic_folder", "--input", panoptic, "--split", "train", "--output_dir", out]
    run("prepare_dataset", *words)
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    (name,) = [name for name in expected if name.endswith(".parquet")]
    (out / f".{name.removesuffix('.parquet')}.json").write_text(content)
    run("prepare_dataset", *words)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


def test_damaged_bookkeeping_is_named(tmp_path, panoptic, capsys):
    out = tmp_path / "out"
    words = ["--source", "panoptic_folder", "--input", panoptic, "--split", "train", "--output_dir", out]
    run("prepare_dataset", *words)
    good = (out / "manifest.json").read_text()
    (out / ".preparing.json").write_text("[]")
    assert ".preparing.json: damaged; delete it" in fails(capsys, "prepare_dataset", *words)
    (out / ".preparing.json").unlink()
    edit_json(out / "manifest.json", lambda c: c["splits"]["train"]["shards"][0].update(rows="3"))
    assert "rows is '3'; the file is damaged" in fails(capsys, "prepare_dataset", *words)
    (out / "manifest.json").write_text(good)
    edit_json(out / "manifest.json", lambda c: c["splits"]["train"]["shards"].clear())
    run("prepare_dataset", *words)
    assert (out / "manifest.json").read_text() == good
