"""Turns a dataset into parquet shards once: images and segments, the categories, and a manifest with checksums.

A run that was interrupted goes on where it stopped when it is started again with the same words.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm.auto import tqdm

from maskformer.data.example import BadSample
from maskformer.data.files import DiskFull
from maskformer.data.preparation import Job, prepare, verify
from maskformer.data.sources import SOURCES, load_source
from maskformer.recipes.arguments import AUGMENTATION, DataArguments
from maskformer.recipes.command_line import parse_overrides
from maskformer.recipes.recipe import make_recipe

EXAMPLE = (
    "python scripts/prepare_dataset.py --source panoptic_folder --input pictures/train --split train --output_dir out"
)


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace, dict]:
    """The command line, and the settings of the source that it gives."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nexample:\n  {EXAMPLE}",
        epilog="Settings of a recipe's section data can be given too, as --ignore_index 0 or --train_scenes 100.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--source", choices=SOURCES, help="what the input is")
    parser.add_argument("--input", nargs="+", default=[], help="folder of the dataset, or one for each split")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder of the shards: new, or of an earlier run"
    )
    parser.add_argument("--split", nargs="+", choices=("train", "validation"), default=["train", "validation"])
    parser.add_argument("--num_shards", type=int, help="files a split; by default one for every 1000 examples")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of which writes a shard")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="raise", help="unusable examples")
    parser.add_argument("--verify", action="store_true", help="only compare the shards with the manifest")
    arguments, rest = parser.parse_known_args()
    try:
        options = parse_overrides(rest)
        for name in options:
            if name in AUGMENTATION or name in ("source", "train_path", "validation_path"):
                raise ValueError(f"--{name} has no effect here; prepared images are as the dataset has them")
        if arguments.verify and (options or arguments.source or arguments.input):
            raise ValueError("--verify looks at --output_dir alone; leave out what describes a source")
        if not arguments.verify and arguments.source is None:
            raise ValueError(f"--source is needed: one of {', '.join(SOURCES)}")
        if len(arguments.input) not in (0, 1, len(arguments.split)):
            raise ValueError(f"--input names {len(arguments.input)} folders for {len(arguments.split)} splits")
    except ValueError as error:
        parser.error(str(error))
    return parser, arguments, options


def make_jobs(arguments: argparse.Namespace, options: dict) -> list[Job]:
    """A job for each split; raises `ValueError` where a source cannot be read or two splits are the same."""
    jobs, splits = [], list(dict.fromkeys(arguments.split))
    for index, split in enumerate(splits):
        folder = arguments.input[min(index, len(arguments.input) - 1)] if arguments.input else None
        data: DataArguments = make_recipe(
            "of these words", {"data": {**options, "source": arguments.source, f"{split}_path": folder}}
        ).data
        source = load_source(data, split)
        origin = {"source": arguments.source, "input": folder, "options": options}
        jobs.append(Job.of(split, source, origin, arguments.num_shards, arguments.on_bad_sample == "skip"))
    if len(jobs) == 2 and len(arguments.input) == 1 and jobs[0].source.rows[0] == jobs[1].source.rows[0]:
        raise ValueError(
            f"{arguments.input[0]} holds one split, not {' and '.join(splits)}; give --input a folder for each, or"
            " name one --split"
        )
    return jobs


def run(arguments: argparse.Namespace, jobs: list[Job]) -> dict:
    """Writes the shards with a progress bar and says how fast; returns the manifest."""
    total, began, kept = sum(len(job.source) for job in jobs), time.monotonic(), []
    with tqdm(total=total, desc="preparing", unit=" images") as bar:

        def progress(count: int) -> None:
            if not kept:  # the first report is of what is there already
                kept.append(count)
                bar.initial = count
            bar.update(count)

        manifest = prepare(jobs, arguments.output_dir, arguments.workers, progress)
    seconds, made = time.monotonic() - began, total - kept[0]
    print(f"{made} images in {seconds:.1f} s, {made / seconds:.1f} images/s; {kept[0]} were there already")
    return manifest


def describe(manifest: dict) -> str:
    """A line for each split."""
    lines = []
    for split, content in manifest["splits"].items():
        rows, size = (sum(shard[key] for shard in content["shards"]) for key in ("rows", "bytes"))
        skipped = sum(len(shard["skipped"]) for shard in content["shards"])
        lines.append(
            f"{split}: {rows} examples in {len(content['shards'])} shards, {size / 1e6:.1f} MB, {skipped} skipped"
        )
    return "\n".join(lines)


def main() -> None:
    parser, arguments, options = parse_arguments()
    try:
        if arguments.verify:
            print(f"{describe(verify(arguments.output_dir))}\nevery checksum is right")
            return
        manifest = run(arguments, make_jobs(arguments, options))
    except BadSample as error:
        sys.exit(f"error: {error}\n(finished shards are kept; --on_bad_sample skip leaves such examples out)")
    except BrokenProcessPool:
        sys.exit("error: a process ended abruptly, perhaps for lack of memory; started again, finished shards are kept")
    except DiskFull as error:
        sys.exit(f"error: {error}\n(finished shards are kept; started again, it goes on)")
    except ValueError as error:
        parser.error(str(error))
    print(f"{describe(manifest)}\neverything is in {arguments.output_dir}")


if __name__ == "__main__":
    main()
