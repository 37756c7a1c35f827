"""Numbers on disk: the history of a run, one JSON object a line, and results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from maskformer.data.files import replace_file


def finite(value: Any) -> Any:
    """`value` with the numbers that JSON lacks, such as NaN, as None; containers are copied."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_row(path: Path, row: dict) -> None:
    """Appends `row` to a history."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(row)) + "\n")


def write_json(path: Path, content: dict) -> None:
    """Writes `content`, all or nothing."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=2) + "\n", encoding="utf-8")
