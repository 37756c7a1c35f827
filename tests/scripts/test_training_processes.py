"""Training as processes of their own: killed at any moment, and divided among several."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from folders import write_panoptic_folder
from helpers import ROOT
from script_runs import TINY, rows

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
DEMO = ["--recipe", "shapes/demo", *TINY, "--save_steps", "1", "--eval_steps", "6", "--max_steps", "6"]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
pytestmark = pytest.mark.slow


def start(*words, launcher=(), errors=subprocess.DEVNULL) -> subprocess.Popen:
    """`scripts/train.py` in a session of its own, so that a signal reaches its children too."""
    command = [sys.executable, *launcher, str(ROOT / "scripts" / "train.py"), *map(str, words)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": errors, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **quiet)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(*DEMO, "--output_dir", folder).wait(300) == 0
    return folder


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(whole, tmp_path):
    """Each time started by the same command."""
    folder, chance = tmp_path / "run", random.Random(0)
    kills = 0
    while True:
        steps = len([row for row in rows(folder) if "loss" in row]) if (folder / "history.jsonl").exists() else 0
        process = start(*DEMO, "--output_dir", folder, "--resume")
        # Some are killed while they start, the others in the steps, while they save or evaluate.
        deadline = time.monotonic() + 120
        while kills < 6 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            made = len([row for row in rows(folder) if "loss" in row]) if (folder / "history.jsonl").exists() else 0
            if made > steps:
                time.sleep(chance.uniform(0, 0.6))
                break
        if kills < 6 and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.wait(300) == 0
        break
    assert kills >= 3
    expected, actual = (load_file(path / "last" / "model.safetensors") for path in (whole, folder))
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert not list(folder.glob(".*"))


def test_the_same_seed_gives_the_same_run(whole, tmp_path):
    assert start(*DEMO, "--output_dir", tmp_path / "run").wait(300) == 0
    expected, actual = (load_file(path / "last" / "model.safetensors") for path in (whole, tmp_path / "run"))
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert [row["loss"] for row in rows(whole) if "loss" in row] == [
        row["loss"] for row in rows(tmp_path / "run") if "loss" in row
    ]


def test_two_and_three_processes_make_the_steps_of_one(tmp_path):
    losses = {}
    for count in (1, 2, 3):
        launcher = [*LAUNCHER[:-1], str(count)]
        words = [*DEMO, "--batch_size", "6", "--output_dir", tmp_path / str(count)]
        assert start(*words, launcher=launcher).wait(300) == 0
        history = rows(tmp_path / str(count))
        losses[count] = [row["loss"] for row in history if "loss" in row]
        assert [row["images"] for row in history if "pq" in row] == [3]
    for count in (2, 3):
        assert losses[count][0] == pytest.approx(losses[1][0], rel=1e-5)
        # float32, and AdamW's first steps follow the sign of tiny gradients
        assert losses[count] == pytest.approx(losses[1], rel=2e-3)


def test_a_bad_sample_of_one_process_stops_both_and_loses_no_step(tmp_path):
    data = write_panoptic_folder(tmp_path / "data", count=8)
    shutil.copytree(data, tmp_path / "whole")
    (data / "images" / "0.png").write_bytes(b"no image")  # which the second process gets in its third step
    words = ["--source", "panoptic_folder", "--train_path", data, "--validation_path", tmp_path / "whole"]
    words += ["--save_steps", "100", "--eval_steps", "100", "--dataloader_workers", "0"]
    process = start(*DEMO, *words, "--output_dir", tmp_path / "run", launcher=LAUNCHER, errors=subprocess.PIPE)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 1 and "0.png" in text
    assert text.count("--resume --on_bad_sample skip goes on") == 1
    step = torch.load(tmp_path / "run" / "last" / "training_state.pt", weights_only=True)["step"]
    assert step == [row["step"] for row in rows(tmp_path / "run") if "loss" in row][-1] >= 1


def test_sigterm_reaches_a_run_with_loader_processes(tmp_path):
    folder = tmp_path / "run"
    words = [*DEMO, "--max_steps", "100000", "--train_scenes", "500", "--dataloader_workers", "2"]
    process = start(*words, "--output_dir", folder)
    while process.poll() is None and not (folder / "last").exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(120) == 143
    step = torch.load(folder / "last" / "training_state.pt", weights_only=True)["step"]
    assert step == [row["step"] for row in rows(folder) if "loss" in row][-1]


def test_sigterm_of_one_process_stops_both(tmp_path):
    folder = tmp_path / "run"
    words = [*DEMO, "--max_steps", "100000", "--eval_steps", "100000", "--dataloader_workers", "0"]
    process = start(*words, "--output_dir", folder, launcher=LAUNCHER, errors=subprocess.PIPE)
    while process.poll() is None and not (folder / "last").exists():
        time.sleep(0.1)
    psutil.Process(process.pid).children()[1].terminate()
    _, text = process.communicate(timeout=120)
    assert text.count("stopped by SIGTERM; what was learnt is in") == 1
    step = torch.load(folder / "last" / "training_state.pt", weights_only=True)["step"]
    assert step == [row["step"] for row in rows(folder) if "loss" in row][-1]
