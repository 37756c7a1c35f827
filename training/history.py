"""Numbers on disk: the history of a run, one JSON object a line, and results."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from maskformer.data.files import naming_full_disk, replace_file


def finite(value: Any) -> Any:
    """`value` with the numbers that JSON lacks, such as NaN, as None; containers are copied."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_row(path: Path, row: dict) -> None:
    """Appends `row` to a history, on a line of its own even where a crash or a full disk has left half a line.

    Raises `DiskFull`, naming `path`, where there is no room for it.
    """
    with naming_full_disk(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(finite(row)).encode() + b"\n")


def write_json(path: Path, content: dict) -> None:
    """Writes `content`, all or nothing."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=2) + "\n", encoding="utf-8")
