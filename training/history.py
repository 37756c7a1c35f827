"""The history of a run: one JSON object a line."""

from __future__ import annotations

import json
import math
from pathlib import Path


def append_row(path: Path, row: dict) -> None:
    """Appends `row`; numbers that JSON lacks, such as NaN, become null."""
    row = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
