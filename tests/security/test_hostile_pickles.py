"""Files that pretend to be weights: each is refused in one line, in bounded time and memory, and runs nothing."""

from __future__ import annotations

import copyreg
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from helpers import ROOT
from hostile_pickles import calls, sizes, truncated
from maskformer.convert.__main__ import main
from maskformer.convert.weights import read_weights

SECONDS, BYTES = 5, 100_000_000  # that a file of less than a megabyte may take


def refusal(capsys, path, out) -> str:
    """What the converter says of a file; it must refuse it in one line, and write nothing."""
    code = main(["from-official", str(path), str(out)])
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and not out.exists()
    assert said.err.startswith(f"error: {path}") and said.err.count("\n") == 1 and len(said.err) < 1000
    return said.err


@pytest.mark.parametrize("name", calls("x"))
def test_nothing_is_run(capsys, tmp_path, name):
    canary, path = tmp_path / "canary", tmp_path / "weights.pkl"
    path.write_bytes(calls(str(canary))[name])
    refusal(capsys, path, tmp_path / "out")
    with pytest.raises(ValueError, match="weights.pkl"):
        read_weights(path)
    assert not canary.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["weights.pkl"]


def test_a_registered_extension_is_no_way_around_the_names(tmp_path, capsys):
    """Python takes an object that was asked for before by its number from a cache, and looks up no name."""
    canary, path = tmp_path / "canary", tmp_path / "weights.pkl"
    copyreg.add_extension("os", "system", 0xF1)
    try:
        assert pickle.loads(b"\x80\x02\x82\xf1.") is os.system
        path.write_bytes(calls(str(canary))["extension"])
        assert "extension code 241" in refusal(capsys, path, tmp_path / "out")
    finally:
        copyreg.remove_extension("os", "system", 0xF1)
        copyreg.clear_extension_cache()
    assert not canary.exists()


@pytest.mark.parametrize("name", [*sizes(), *truncated()])
def test_time_and_memory_are_bounded(capsys, tmp_path, name):
    path = tmp_path / "weights.pkl"
    path.write_bytes((sizes() | truncated())[name])
    assert path.stat().st_size < 1_000_000
    began = time.monotonic()
    tracemalloc.start()
    try:
        refusal(capsys, path, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < SECONDS and peak < BYTES


def test_the_calls_are_real(tmp_path):
    """Python's own reader follows them; or else the tests above would say nothing."""
    for name in ("reduce", "global by the stack", "inst", "obj", "newobj", "newobj_ex"):
        canary = tmp_path / name.replace(" ", "_")
        made = pickle.loads(calls(str(canary))[name])
        if isinstance(made["a"], subprocess.Popen):
            continue
        assert canary.exists(), name


CHILD = """
import io, json, resource, sys, time
from contextlib import redirect_stderr
from pathlib import Path
from maskformer.convert.__main__ import main

used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
out = Path(sys.argv[1]) / "out"
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    began, before, said = time.monotonic(), used(), io.StringIO()
    with redirect_stderr(said):
        code = main(["from-official", str(path), str(out)])
    print(json.dumps([path.stem, code, time.monotonic() - began, used() - before, said.getvalue()]), flush=True)
"""


@pytest.mark.slow
def test_larger_ones_in_a_process_of_bounded_memory(tmp_path):
    files = sizes(scale=10) | calls(str(tmp_path / "canary"))
    for name, content in files.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    words = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(rows) == len(files), done.stderr
    for name, code, seconds, grown, said in rows:
        assert code == 2 and said.count("\n") == 1, name
        assert seconds < SECONDS and grown < BYTES, f"{name}: {seconds:.1f} s, {grown / 1e6:.0f} MB"
    assert not (tmp_path / "canary").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_training_leaves_beside_weights_is_read(tmp_path, protocol):
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    beside = {
        "milestones": Counter({3: 1}),
        "seen": {1, 2},
        "betas": (0.9, 0.999),
        "none": b"",
        "shape": torch.Size([2]),
    }
    state = OrderedDict(a=numbers, again=numbers, b=np.asfortranarray(numbers), c=np.float64(3))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": state, "scheduler": beside}, protocol))
    read = read_weights(tmp_path / "a.pkl")
    assert list(read) == list(state) and read["c"].item() == 3
    assert all(np.array_equal(read[name], numbers) for name in ("a", "again", "b"))
