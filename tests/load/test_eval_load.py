"""`scripts/eval.py` over thousands of images: memory and open files stay as they are after the first of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import ROOT, with_segments
from maskformer import load_recipe
from maskformer.data.shapes import SHAPES_LABELS

IMAGES, FROM, EVERY = 5000, 500, 100
CHILD = """
import json, os, runpy, sys
from maskformer.evaluation.scores import Scores

add, rows = Scores.add, []

def counted(scores, example, answer):
    state = add(scores, example, answer)
    if len(scores.images) % EVERY == 0:
        status = open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]
        rows.append([len(scores.images), 1024 * int(status), len(os.listdir("/proc/self/fd"))])
    return state

Scores.add = counted
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(json.dumps(rows))
"""


@pytest.mark.slow
def test_memory_and_handles_are_flat(tiny_model, tmp_path):
    torch.manual_seed(0)
    labels = {"id2label": SHAPES_LABELS.id2label, "label2id": SHAPES_LABELS.label2id}
    with_segments(tiny_model(**labels)).save_pretrained(tmp_path / "model")
    recipe = load_recipe("shapes/demo").override({"size": {"shortest_edge": 32, "longest_edge": 64}})
    recipe.build_image_processor(SHAPES_LABELS).save_pretrained(tmp_path / "model")
    words = ["--model", tmp_path / "model", "--output_dir", tmp_path / "out", "--source", "shapes"]
    words += ["--validation_scenes", IMAGES, "--scene_size", "32", "--threshold", "0.05"]
    child = CHILD.replace("EVERY", str(EVERY))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, "-c", child, str(ROOT / "scripts" / "eval.py"), *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    for images, memory, handles in rows:
        print(f"{images} images: {memory / 1e6:.1f} MB, {handles} handles")
    assert [images for images, _, _ in rows] == list(range(EVERY, IMAGES + 1, EVERY))
    after = [(memory, handles) for images, memory, handles in rows if images >= FROM]
    memories, handles = zip(*after, strict=True)
    assert max(memories) - memories[0] < 20e6
    assert max(handles) == min(handles)
    assert json.loads((Path(tmp_path) / "out" / "results.json").read_text())["images"] == IMAGES
