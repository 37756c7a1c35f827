"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from maskformer.data.files import naming_full_disk
from maskformer.training.history import write_json

STATE = "training_state.pt"
METRICS = "metrics.json"


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which takes the place of `folder` when the block ends without an error.

    Until then an earlier `folder` stays as it is, and an error in the block leaves nothing behind. `recover`, which
    comes first here, mends what a crash in the middle of the exchange leaves. A link stays, its target is replaced.
    Raises `DiskFull`, naming `folder`, where there is no room for it.
    """
    folder = folder.resolve()  # of `link` and `x/..` too, whose neighbours by name lie elsewhere
    recover(folder)
    new, old = folder.with_name(f".{folder.name}.new"), old_place(folder)
    remove(new)
    discard(old)
    with naming_full_disk(folder):
        try:
            new.mkdir(parents=True)
            yield new
            if folder.exists():
                os.rename(folder, old)
            os.rename(new, folder)
        except BaseException:
            remove(new)
            recover(folder)
            raise
    discard(old)


def recover(folder: Path) -> None:
    """Puts the previous `folder` back if a crash came between its removal and the arrival of the new one."""
    folder = folder.resolve()
    if old_place(folder).exists() and not folder.exists():
        os.rename(old_place(folder), folder)


def old_place(folder: Path) -> Path:
    """Where the previous `folder` lies during the exchange."""
    return folder.with_name(f".{folder.name}.old")


def discard(folder: Path) -> None:
    """Removes a folder, if it exists, under another name: a crash in the middle leaves no part that looks whole."""
    gone = folder.with_name(f".{folder.name.lstrip('.')}.gone")
    remove(gone)
    if folder.exists():
        os.rename(folder, gone)
        remove(gone)


def remove(path: Path) -> None:
    """Removes a folder, or a link to one, if it exists."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def save_model(folder: Path, model, image_processor, state: dict | None = None, metrics: dict | None = None) -> None:
    """Writes what `from_pretrained` loads, with `state` what resuming needs, and `metrics`, all or nothing."""
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        image_processor.save_pretrained(new)
        if state is not None:
            with (new / STATE).open("wb") as file:  # whose errors, unlike those of torch's own files, have a number
                torch.save(state, file)
        if metrics is not None:
            write_json(new / METRICS, metrics)


def load_state(folder: Path) -> dict:
    """The training state in a checkpoint; plain containers and tensors only.

    Raises `ValueError` where there is none.
    """
    recover(folder)
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder}: there is no checkpoint to resume from")
    return torch.load(folder / STATE, map_location="cpu", weights_only=True)


def load_metrics(folder: Path) -> dict | None:
    """The metrics that stand beside a model; None where there are none."""
    recover(folder)
    path = folder / METRICS
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {name: float("nan") if value is None else value for name, value in metrics.items()}
