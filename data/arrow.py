"""Rows on disk: Arrow files that are mapped into memory, so that a dataset takes as little of it as is looked at."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter

from maskformer.data.files import sha256


def map_rows(rows: Iterable[dict], features: datasets.Features) -> datasets.Dataset:
    """A memory-mapped dataset of `rows`, which are written one by one into the cache of `datasets`.

    The file is named by its content, so it is never out of date, and the same rows are kept once. Several processes may
    write the same rows at the same time. Raises what iterating `rows` raises, and leaves nothing then.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "maskformer"
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".new")
    os.close(handle)
    temporary = Path(name)
    try:
        with ArrowWriter(path=name, features=features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        path = folder / f"{sha256(temporary)}.arrow"
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(path))
