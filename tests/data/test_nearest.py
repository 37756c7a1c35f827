"""What somebody meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskformer.data.nearest import Parser, did_you_mean, nearest_path


def test_the_nearest_name():
    assert did_you_mean("treshold", ["threshold", "style"]) == "; did you mean 'threshold'?"
    assert did_you_mean("zzz", ["threshold", "style"]) == did_you_mean("a", []) == ""


def test_the_nearest_path_whatever_part_is_wrong(tmp_path):
    (tmp_path / "outputs" / "demo" / "best").mkdir(parents=True)
    for wrong in ("output/demo/best", "outputs/dmo/best", "outputs/demo/bset"):
        assert nearest_path(tmp_path / wrong).endswith(f"outputs{'/demo/best'}'?")
    assert nearest_path(tmp_path / "zzz") == nearest_path(tmp_path) == ""


def test_a_path_in_a_folder_that_is_not_there():
    assert nearest_path(Path("no such folder at all/x")) == ""


def test_a_parser_names_the_nearest_option_and_shows_an_example(capsys):
    parser = Parser("What it does.", "python it.py --threshold 0.5")
    parser.add_argument("--threshold", type=float)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--treshold", "1"])
    assert stop.value.code == 2 and "did you mean '--threshold'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["--thresh", "1"])
    assert "did you mean '--threshold'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "python it.py --threshold 0.5" in capsys.readouterr().out
