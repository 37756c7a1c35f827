"""scripts/benchmark.py, run as a user runs it."""

from __future__ import annotations

import json
import runpy
import sys

import pytest

from helpers import ROOT, fixture

NAME = "ade20k-150/maskformer_r50"


def run(monkeypatch, *words) -> None:
    path = str(ROOT / "scripts" / "benchmark.py")
    monkeypatch.setattr(sys, "argv", [path, *words])
    runpy.run_path(path, run_name="__main__")


def test_complexity_stands_beside_the_published_columns(monkeypatch, capsys):
    run(monkeypatch, "complexity", NAME, "cityscapes-19/per_pixel_baseline_r101")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [NAME, "512x512", "41.3", "41", "55.1", "53"]
    assert lines[3].split()[1] == "512x1024" and lines[3].split()[3::2] == ["-", "-"]


def test_complexity_as_markdown_and_json(monkeypatch, capsys):
    run(monkeypatch, "complexity", NAME, "--markdown")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.count("|") == 7 for line in lines)
    assert lines[1].startswith("|--") or lines[1].startswith("| --")
    run(monkeypatch, "complexity", NAME, "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["recipe"] == NAME and row["published"] == {"params": 41, "flops": 53}
    assert row["parameters"] == fixture("recipes")["configurations"][NAME]["params"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["complexity", "ade20k-150/maskformer_r5"], "did you mean"),
        (["complexity", "shapes/demo"], "no label set"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_end_with_exit_code_2(monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
