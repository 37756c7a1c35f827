"""Runs of the scripts, as a user runs them, on tiny models."""

from __future__ import annotations

import json
import runpy
import sys

import pytest

from helpers import ROOT

TINY = [
    *("--backbone", "resnet18", "--backbone_weights", "null", "--feature_size", "32", "--mask_feature_size", "16"),
    *("--hidden_size", "32", "--intermediate_size", "32", "--decoder_layers", "2", "--max_minutes", "null"),
    *(
        "--batch_size",
        "2",
        "--validation_scenes",
        "3",
        "--train_scenes",
        "8",
        "--log_steps",
        "1",
        "--warmup_steps",
        "2",
        "--report_to",
        "[]",
    ),
]


def run(script: str, *words) -> None:
    """Runs `scripts/NAME.py` in this process with these command-line words."""
    before = sys.argv
    sys.argv = [str(ROOT / "scripts" / f"{script}.py"), *map(str, words)]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = before


def fails(capsys, script: str, *words) -> str:
    """Runs a script that must end with exit code 2, and returns what it says."""
    with pytest.raises(SystemExit) as stop:
        run(script, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def rows(folder) -> list[dict]:
    """The history of a run."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
