"""scripts/inspect_dataset.py, run as a user runs it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from folders import write_panoptic_folder, write_semantic_folder
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.training.dataset_pictures import draw_contact_sheet
from script_runs import fails, run


def inspect(*words) -> int:
    """Runs the script and returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        run("inspect_dataset", *words)
    return stop.value.code


def test_a_good_dataset_is_tabulated_and_drawn(tmp_path, capsys):
    folder = write_panoptic_folder(tmp_path / "data", count=3)
    words = ["--source", "panoptic_folder", "--train_path", folder, "--output_dir", tmp_path / "out"]
    assert inspect(*words) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    source = load_panoptic_folder(folder)
    pixels = 0
    for label, name in enumerate(source.labels.names):
        infos = [[i for i in source[index]["segments_info"] if i["label_id"] == label] for index in range(3)]
        assert rows[name][1:3] == [str(sum(map(bool, infos))), str(sum(map(len, infos)))]
        pixels += float(rows[name][3][:-1])
    assert pixels + float(rows["void"][1][:-1]) == pytest.approx(100, abs=0.1)
    assert "3 of 3 images are usable" in out and "the commonest 128 x 128 (3 images)" in out and "0 problems" in out
    for name in ("histogram.png", "contact_sheet.png"):
        assert Image.open(tmp_path / "out" / name).size[0] > 600
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["contact_sheet.png", "histogram.png"]


def test_problems_give_exit_code_1_and_are_listed_up_to_20(tmp_path, capsys):
    folder = write_semantic_folder(tmp_path, count=23)
    for index in range(23):
        Image.fromarray(np.resize(np.array([0, 1, 2, 3], np.uint8), (40, 56))).save(folder / "labels" / f"{index}.png")
    assert inspect("--source", "semantic_folder", "--train_path", folder, "--output_dir", tmp_path / "out") == 1
    out = capsys.readouterr().out
    assert "0 of 23 images are usable" in out and "23 problems:" in out and "... and 3 more" in out
    assert out.count(".png: the values [3] are no labels") == 20
    assert out.endswith("values of 0 to 3, but the 3 labels have 0 to 2: did you mean --reduce_labels true?\n")
    assert not (tmp_path / "out").exists()
    assert inspect("--source", "semantic_folder", "--train_path", folder, "--reduce_labels", "true") == 0


def test_only_the_split_and_the_number_that_are_asked_for_are_read(tmp_path, capsys):
    folder = write_panoptic_folder(tmp_path, count=4)
    (folder / "images" / "3.png").unlink()
    words = ["--source", "panoptic_folder", "--validation_path", folder, "--split", "validation"]
    assert inspect(*words, "--limit", "3") == 0
    assert inspect(*words) == 1
    assert "images/3.png: there is no such image file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "panoptic_folder"], "needs --train_path"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--color_jitter", "true"], "has no effect here"),
        (["--source", "nothing"], "is not known"),
        (["--output_dir", __file__], "is a file; a folder is needed"),
    ],
)
def test_mistakes_end_with_exit_code_2(capsys, words, message):
    assert message in fails(capsys, "inspect_dataset", *words)


def test_the_contact_sheet_leaves_out_what_cannot_be_used(tmp_path):
    folder = write_panoptic_folder(tmp_path / "data", count=2)
    (folder / "images" / "0.png").unlink()
    source = load_panoptic_folder(folder)
    assert draw_contact_sheet(source, tmp_path / "sheet.png")
    (folder / "images" / "1.png").unlink()
    assert not draw_contact_sheet(source, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_contact_sheet_shows_segments_that_overlap(tmp_path):
    source = load_panoptic_folder(write_panoptic_folder(tmp_path / "data", count=1))
    example = source[0]
    maps = np.stack([np.where(example["segmentation"] == i["id"], i["id"], 0) for i in example["segments_info"]])
    overlapping = type(source)(source.rows, source.labels, lambda row: {**example, "segmentation": maps})
    draw_contact_sheet(source, tmp_path / "one.png")
    draw_contact_sheet(overlapping, tmp_path / "layers.png")
    one, layers = (np.array(Image.open(tmp_path / f"{name}.png")) for name in ("one", "layers"))
    np.testing.assert_array_equal(one, layers)
