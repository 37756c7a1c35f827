"""The README is true: its Python runs, its commands parse, its links and pictures exist."""

from __future__ import annotations

import re
import runpy
import shlex

import numpy as np
import pytest
from PIL import Image

import maskformer
from helpers import ROOT
from maskformer.convert.__main__ import make_parser
from maskformer.recipes.command_line import parse_overrides

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_python_blocks_run(code, tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "demo" / "best"
    tiny_model().save_pretrained(folder)
    maskformer.MaskFormerUniversalImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    ).save_pretrained(folder)
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_what_exists(command, monkeypatch):
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    if "maskformer.convert" in words:
        make_parser().parse_args(words[words.index("maskformer.convert") + 1 :])
        return
    assert all((ROOT / word).is_file() for word in words if word.startswith("scripts/"))
    script = next(word for word in words if word.startswith("scripts/") and word.endswith(".py"))
    options = words[words.index(script) + 1 :]
    if script == "scripts/prepare_dataset.py":
        monkeypatch.setattr("sys.argv", [script, *options])
        runpy.run_path(str(ROOT / script))["parse_arguments"]()
        return
    known = set(re.findall(r'"(--\w+)"', (ROOT / script).read_text()))
    if script != "scripts/predict.py":
        recipe = maskformer.load_recipe(
            options[options.index("--recipe") + 1] if "--recipe" in options else "shapes/demo"
        )
        rest = [
            w
            for i, w in enumerate(options)
            if w not in known | {"--recipe"} and options[i - 1] not in known | {"--recipe"}
        ]
        recipe.override(parse_overrides(rest))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()
