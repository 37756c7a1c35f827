"""Runs of the scripts as processes that start in no time, and are killed at a counted change of their files."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from maskformer.training.checkpoint import STATE, load_state
from maskformer.training.model_folder import load_model_folder
from script_runs import TINY, run

SMALL = ["--recipe", "shapes/demo", *TINY, "--backbone", "test_resnet"]  # checkpoints of 6 MB
SMALL += ["--scene_size", "64", "--validation_scenes", "1"]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
CONTEXT = multiprocessing.get_context("forkserver")  # one process imports everything, and every run is forked from it
CONTEXT.set_forkserver_preload(
    ["maskformer.training.loop", "maskformer.training.recorder", "maskformer.data.preparation", "maskformer.recipes"]
)
CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"}  # as Python's audit hooks name them


@dataclass(frozen=True)
class Kill:
    """Kills a run `delay` seconds after it begins change number `event` (from 0) of the watched folder."""

    event: int
    delay: float = 0.0

    def strike(self) -> None:
        """Called in the run; a process of its own strikes later, whatever the run does then."""
        own = os.getpid()
        if self.delay and os.fork():
            return
        time.sleep(self.delay)
        os.kill(own, signal.SIGKILL)
        os._exit(0)


def changed_path(event: str, arguments: tuple) -> str | None:
    """The path that an audited event changes; None where it only reads."""
    if event == "open" and not (set(arguments[1] or "") & set("wax+") or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return None
    path = arguments[0]
    if not isinstance(path, (str, os.PathLike)):
        return None
    folder = arguments[-1] if event in ("os.remove", "os.rmdir") else -1  # of `shutil.rmtree`, by its descriptor
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder >= 0 else os.fspath(path)


def watch(folder: Path, log: Path, kill: Kill | None) -> None:
    """Logs each change of files in `folder` that this process begins, and kills it where it is to be."""
    own, place, count = os.getpid(), f"{folder}{os.sep}", 0
    file = os.open(log, os.O_CREAT | os.O_WRONLY)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in CHANGES or os.getpid() != own:
            return
        path = changed_path(event, arguments)
        if path is None or not path.startswith(place):
            return
        os.write(file, f"{event} {path.removeprefix(place)}\n".encode())
        count += 1
        if kill is not None and count == kill.event + 1:
            kill.strike()

    sys.addaudithook(hook)


def run_in_process(script: str, words: list[str], said: Path, watched: tuple | None) -> None:
    """What the process of a `ScriptRun` does."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # as in a program of its own
    file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if watched:
        watch(*watched)
    run(script, *words)


class ScriptRun:
    """`scripts/NAME.py` with these words, in a process and a session of its own.

    `watched` is a folder whose changes are counted, for `kill`; `notes` is where what the run says is written.
    """

    def __init__(self, notes: Path, script: str, *words, watched: Path | None = None, kill: Kill | None = None):
        notes.mkdir(exist_ok=True)
        self.said, self.log = notes / "said.txt", notes / "changes.txt"
        watch_words = (watched, self.log, kill) if watched else None
        words = [str(word) for word in words]
        self.process = CONTEXT.Process(target=run_in_process, args=(script, words, self.said, watch_words))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)  # of the process that all are forked from, which the first run starts
            self.process.start()

    def wait(self, seconds: float = 120) -> int:
        """The exit code, negative for a signal; the test fails where the run does not end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.stop()
            pytest.fail(f"the run hangs; it says: {self.text()[-2000:]}")
        return self.process.exitcode

    def stop(self) -> None:
        """SIGKILL for the run and all its processes, for runs that a test leaves behind."""
        family = [psutil.Process(self.process.pid)] if self.process.exitcode is None else []
        for member in [*family, *(child for parent in family for child in parent.children(recursive=True))]:
            member.kill()
        self.process.join()

    def text(self) -> str:
        """What the run has said."""
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def changes(self) -> list[str]:
        """The changes of the watched folder."""
        return self.log.read_text().splitlines()


def wait_until(condition, run: ScriptRun, seconds: float = 60) -> None:
    """Waits until the condition holds; the test fails where it does not, or the run ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if run.process.exitcode is not None or time.monotonic() > deadline:
            run.stop()
            pytest.fail(f"not reached; the run says: {run.text()[-2000:]}")
        time.sleep(0.01)


def complete_rows(path: Path) -> list[dict]:
    """The rows of a history, without the half of a line that a full disk or a kill leaves."""
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def steps_made(folder: Path) -> int:
    """The last step in a run's history."""
    path = folder / "history.jsonl"
    return max((row["step"] for row in complete_rows(path) if "loss" in row), default=0) if path.exists() else 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a model folder."""
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same weights, bit for bit."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def assert_whole(folder: Path, whole: Path) -> None:
    """Every checkpoint of `folder` loads, and is that of its step in `whole`, a run that kept all checkpoints."""
    for path in (folder / "best", folder / "last", *folder.glob("checkpoint-*")):
        if not path.exists():
            continue
        load_model_folder(path)
        if path.name == "best":
            assert any(same_weights(path, other) for other in whole.glob("checkpoint-*"))
            continue
        assert (path / STATE).is_file()
        step = load_state(path)["step"]
        assert same_weights(path, whole / f"checkpoint-{step:08d}")


def step_of(text: str) -> int:
    """The step after which a resumed run says that it goes on; 0 where it begins."""
    return int(text.split("going on after step ")[1].split(",")[0]) if "going on after step " in text else 0


def some_of(count: int, points: int, seed: int) -> list[int]:
    """Random numbers below `count`, one in each of `points` equal parts."""
    chance = random.Random(seed)
    return [chance.randrange(count * part // points, count * (part + 1) // points) for part in range(points)]


def kill_a_loader(run: ScriptRun) -> int:
    """SIGKILL for one of the processes that load a training run's images; returns its number."""
    loader = psutil.Process(run.process.pid).children()[0]
    loader.kill()
    return loader.pid
