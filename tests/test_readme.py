"""The README is true: its Python runs, its commands parse, its links and pictures exist."""

from __future__ import annotations

import numpy as np
import pytest
from documents import check_command, commands, leads_somewhere, links, python_blocks
from PIL import Image

import maskformer
from helpers import ROOT

README = ROOT / "README.md"


@pytest.mark.parametrize("code", python_blocks(README), ids=lambda code: code.splitlines()[0])
def test_python_blocks_run(code, tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "demo" / "best"
    tiny_model().save_pretrained(folder)
    maskformer.MaskFormerUniversalImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    ).save_pretrained(folder)
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", commands(README))
def test_commands_name_what_exists(command, monkeypatch):
    check_command(command, monkeypatch)


@pytest.mark.parametrize("target", links(README))
def test_links_lead_somewhere(target):
    assert leads_somewhere(README, target)
