"""Turning sources into prepared data: shards in parallel, each written whole or not at all; a stopped run goes on."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from maskformer.data.example import BadSample, Source
from maskformer.data.files import read_json, replace_file, sha256
from maskformer.data.label_set import check_same_labels
from maskformer.data.prepared import (
    FEATURES,
    FORMAT,
    LABELS,
    MANIFEST,
    categories_with_source_ids,
    check_shards,
    encode_example,
    read_categories,
    read_manifest,
)
from maskformer.data.shard_records import kept_shard, record_path, source_digest

logger = logging.getLogger(__name__)

EXAMPLES_A_SHARD = 1000
ROWS_A_GROUP = 32  # what a reader of a shard holds at once: some 10 MB
PLAN, LOCK = ".preparing.json", ".lock"
STATE: dict = {}  # of a process of the pool
# Everything that preparing writes: shards, their temporary files and records, and the files of the folder.
OURS = re.compile(r"\.{0,2}\w+-\d{5}-of-\d{5}\.(parquet|json)(\.new)?|\.{0,2}(manifest|labels|preparing)\.json(\.new)?")


@dataclass(frozen=True)
class Job:
    """One split to prepare: its source, what its manifest says of that (`origin`), and how many shards it becomes."""

    split: str
    source: Source
    origin: dict
    num_shards: int
    skip_bad: bool = False

    @classmethod
    def of(cls, split: str, source: Source, origin: dict, num_shards: int | None, skip_bad: bool) -> Job:
        """A job with at most one shard an example; without a number, one for every 1000.

        Raises `ValueError` for an empty source and for less than one shard.
        """
        if not len(source):
            raise ValueError(f"the {split} split is empty")
        if num_shards is not None and num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, not {num_shards}")
        wanted = num_shards or math.ceil(len(source) / EXAMPLES_A_SHARD)
        return cls(split, source, origin, min(wanted, len(source)), skip_bad)

    def description(self) -> dict:
        """What decides the bytes of the shards, as the manifest says it."""
        bad = "skip" if self.skip_bad else "raise"
        return {**self.origin, "examples": len(self.source), "num_shards": self.num_shards, "on_bad_sample": bad}

    def file_name(self, shard: int) -> str:
        """The name of shard number `shard`."""
        return f"{self.split}-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def indices(self, shard: int) -> range:
        """The examples of shard number `shard`; shards are even, and in the source's order."""
        count = len(self.source)
        return range(count * shard // self.num_shards, count * (shard + 1) // self.num_shards)


def prepare(jobs: list[Job], folder: Path, workers: int = 1, progress: Callable[[int], None] = lambda count: None):
    """Writes the shards of `jobs` into `folder`, then the manifest, which it returns.

    Shards that are there and have the recorded SHA-256 are kept. `progress` is told how many examples more are done,
    first those of kept shards. `workers` processes write a shard each; 1 stays in this process.

    Raises `ValueError` where `folder` holds something else, another set of labels, or one of the splits made
    differently, and `BadSample` for an unusable example, unless they are skipped; finished shards are kept then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_other_content(folder)
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"{folder}: another process is preparing data in this folder") from None
    try:
        splits = begin(jobs, folder)
        records = {(job.split, shard): kept_shard(job, shard, folder, splits) for job in jobs for shard in shards(job)}
        progress(sum(len(job.indices(shard)) for job in jobs for shard in shards(job) if records[job.split, shard]))
        missing = [key for key, record in records.items() if record is None]
        for key, record in written_shards(jobs, folder, missing, workers, progress):
            records[key] = record
        for job in jobs:
            listed = [records[job.split, shard] for shard in shards(job)]
            splits[job.split] = {**job.description(), "shards": listed}
        return finish(jobs, folder, splits)
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def shards(job: Job) -> range:
    """The numbers of a job's shards."""
    return range(job.num_shards)


def refuse_other_content(folder: Path) -> None:
    """Raises `ValueError` unless `folder` is empty or holds prepared data, finished or not, and nothing else."""
    names = sorted(path.name for path in folder.iterdir())
    other = [name for name in names if not OURS.fullmatch(name) and name != LOCK]
    if other:
        raise ValueError(f"{folder}: holds {other[0]!r}, which is no prepared data; choose an empty folder")
    visible = [name for name in names if name[0] != "."]
    if visible and not {PLAN, MANIFEST} & set(names):
        raise ValueError(
            f"{folder}: holds {visible[0]!r}, but not the {MANIFEST} of prepared data; choose another folder"
        )


def begin(jobs: list[Job], folder: Path) -> dict:
    """Writes down what is going to be made; returns the splits of the manifest, if there is one.

    Raises `ValueError` where an earlier run in `folder` made or began one of them differently, or has other labels.
    """
    splits = read_manifest(folder)["splits"] if (folder / MANIFEST).exists() else {}
    plan = read_plan(folder)
    for job in jobs:
        earlier = splits.get(job.split) or plan.get(job.split) or job.description()
        for name, value in job.description().items():
            if earlier.get(name) != value:
                raise ValueError(
                    f"{folder}: its {job.split} split has {name} {earlier.get(name)!r}, not {value!r}; choose another"
                    " folder, or delete this one"
                )
        check_same_labels(
            jobs[0].source.labels, job.source.labels, f"the {jobs[0].split} split", f"the {job.split} split"
        )
    if (folder / LABELS).exists():
        check_same_labels(read_categories(folder), jobs[0].source.labels, str(folder / LABELS), "the source")
    write_json(folder / PLAN, plan | {job.split: job.description() for job in jobs})
    write_json(folder / LABELS, categories_with_source_ids(jobs[0].source.labels))
    return splits


def read_plan(folder: Path) -> dict:
    """What an unfinished run in `folder` makes, by split; raises `ValueError` where its file is damaged."""
    path = folder / PLAN
    plan = read_json(path, "") if path.exists() else {}
    if not isinstance(plan, dict) or not all(isinstance(entry, dict) for entry in plan.values()):
        raise ValueError(f"{path}: damaged; delete it, and run scripts/prepare_dataset.py again")
    return plan


def finish(jobs: list[Job], folder: Path, splits: dict) -> dict:
    """Writes the manifest, then removes what only an unfinished run needs."""
    manifest = {"format": FORMAT, "splits": dict(sorted(splits.items()))}
    write_json(folder / MANIFEST, manifest)
    for job in jobs:
        for shard in shards(job):
            record_path(folder / job.file_name(shard)).unlink(missing_ok=True)
    done = {job.split for job in jobs}
    others = {split: plan for split, plan in read_plan(folder).items() if split not in done}
    if others:  # another split's run has not finished
        write_json(folder / PLAN, others)
    else:
        (folder / PLAN).unlink()
    return manifest


def write_json(path: Path, content) -> None:
    """Writes a JSON file, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_shard(job: Job, shard: int, folder: Path, progress: Callable[[int], None]) -> dict:
    """Writes one shard and its record, which it returns: the same bytes each time."""
    path, skipped, count = folder / job.file_name(shard), [], 0
    source = source_digest(job, shard)  # before its files are read: what changes meanwhile shall be noticed
    schema = FEATURES.arrow_schema
    with replace_file(path) as temporary:
        # Images are compressed already.
        with pq.ParquetWriter(
            temporary, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            rows = []
            for index in job.indices(shard):
                try:
                    rows.append(encode_example(job.source, index))
                except BadSample as error:
                    if not job.skip_bad:
                        raise
                    logger.warning("skipped a bad sample: %s", error)
                    skipped.append(str(error))
                progress(1)
                if len(rows) == ROWS_A_GROUP:
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    count, rows = count + len(rows), []
            if rows:  # readers fail at a group without any
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
        size, digest = temporary.stat().st_size, sha256(temporary)
    record = {"file": path.name, "rows": count, "bytes": size, "sha256": digest, "skipped": skipped}
    record["source"] = source
    write_json(record_path(path), record)
    return record


def written_shards(
    jobs: list[Job], folder: Path, missing: list[tuple[str, int]], workers: int, progress: Callable[[int], None]
) -> Iterator[tuple[tuple[str, int], dict]]:
    """Writes the missing shards, by split and number, and gives each with its record as it is done."""
    if workers <= 1 or len(missing) <= 1:
        by_split = {job.split: job for job in jobs}
        for split, shard in missing:
            yield (split, shard), write_shard(by_split[split], shard, folder, progress)
        return
    context = multiprocessing.get_context("spawn")  # forked processes would share locks of threads that they lack
    done, reported = context.Value("q", 0), 0
    pool = ProcessPoolExecutor(min(workers, len(missing)), context, start_worker, (jobs, folder, done))
    try:
        waiting = {pool.submit(write_in_worker, *key): key for key in missing}
        while waiting:
            finished, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            if done.value > reported:
                progress(done.value - reported)
                reported = done.value
            for future in finished:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker(jobs: list[Job], folder: Path, done) -> None:
    """Prepares a process of the pool: what it works on, and that it ends when the program that started it does."""
    STATE.update(jobs={job.split: job for job in jobs}, folder=folder, done=done)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)  # or it would write into a folder that the next run works in

    threading.Thread(target=follow_parent, daemon=True).start()


def write_in_worker(split: str, shard: int) -> dict:
    """`write_shard` in a process of the pool."""

    def progress(count: int) -> None:
        with STATE["done"].get_lock():
            STATE["done"].value += count

    return write_shard(STATE["jobs"][split], shard, STATE["folder"], progress)


def verify(folder: Path) -> dict:
    """Reads every shard of prepared data and returns the manifest.

    Raises `ValueError`, naming the file, where a shard is missing, its rows, size or SHA-256 are not those of the
    manifest, a parquet file is not in the manifest, or the labels cannot be read.
    """
    manifest = read_manifest(folder)
    read_categories(folder)
    listed = set()
    for split in manifest["splits"]:
        for shard in check_shards(folder, split):
            path = folder / shard["file"]
            listed.add(path.name)
            if sha256(path) != shard["sha256"]:
                raise ValueError(
                    f"{path}: its SHA-256 is not that of the manifest; the file is damaged. Run"
                    " scripts/prepare_dataset.py again, which writes it anew"
                )
            rows = pq.read_metadata(path).num_rows
            if rows != shard["rows"]:
                raise ValueError(f"{path}: {rows} rows, but the manifest says {shard['rows']}")
    extra = sorted(path.name for path in folder.glob("*.parquet") if path.name not in listed)
    if extra:
        raise ValueError(f"{folder / extra[0]}: the shard is not in the manifest; a run in this folder is unfinished")
    return manifest
