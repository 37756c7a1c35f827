"""Which shards of prepared data can be kept: those that are whole, and made of files that have not changed since."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import datasets

from maskformer.data.files import read_json, sha256
from maskformer.data.prepared import RECORD

if TYPE_CHECKING:
    from maskformer.data.preparation import Job

logger = logging.getLogger(__name__)


def record_path(path: Path) -> Path:
    """The file beside a shard in which its record waits for the manifest."""
    return path.with_name(f".{path.stem}.json")


def kept_shard(job: Job, shard: int, folder: Path, splits: dict) -> dict | None:
    """The record of a shard that is complete, from its own file or the manifest; None if it is to be written."""
    path = folder / job.file_name(shard)
    record = None
    if record_path(path).exists():
        with contextlib.suppress(ValueError):  # a record that cannot be read is none
            record = read_json(record_path(path), "")
    elif job.split in splits:
        record = next((entry for entry in splits[job.split]["shards"] if entry["file"] == path.name), None)
    if not isinstance(record, dict) or not all(name in record for name in RECORD):
        return None
    if not path.is_file() or path.stat().st_size != record["bytes"] or sha256(path) != record["sha256"]:
        return None
    if record.get("source") != source_digest(job, shard):
        logger.warning("%s is written anew: the files that it was made of have changed since", path)
        return None
    return record


def source_digest(job: Job, shard: int) -> str | None:
    """What says whether the files of a shard have changed: a digest of its rows, and of their files' sizes and times.

    None for generated data, which are the same whenever they are made.
    """
    rows = job.source.rows
    if not isinstance(rows, datasets.Dataset):
        return None
    digest = hashlib.sha256()
    for index in job.indices(shard):
        for name, value in sorted(rows[index].items()):
            digest.update(f"{name} {value!r} ".encode())
            if isinstance(value, str) and os.sep in value:
                with contextlib.suppress(OSError, ValueError):  # no file, or no name of one
                    status = os.stat(value)
                    digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
    return digest.hexdigest()
