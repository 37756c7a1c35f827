"""What several test files need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).resolve().parent / "fixtures"


def shared_folder() -> Path | None:
    """The folder of reference files beside the checkout, or None where it is not."""
    folder = ROOT.parent / "shared"
    return folder if folder.is_dir() else None


def shared_file(name: str) -> Path:
    """A file or folder of the reference folder; the calling test is skipped where it is not."""
    folder = shared_folder()
    if folder is None or not (folder / name).exists():
        pytest.skip(f"the reference files are not beside this checkout ({name})")
    return folder / name


def fixture(name: str):
    """The JSON fixture `name`."""
    return json.loads((FIXTURES / f"{name}.json").read_text())
