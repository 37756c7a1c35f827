"""Training batches from a stream: every process and worker reads its own shards, in an order that resuming continues.

A reader is a worker of a process. The shards of an epoch are shuffled and dealt to as many groups of readers as get
equally many; readers of one group take the rows of its shards in turn. So every example occurs once an epoch, whatever
the numbers; where the shards are a multiple of the readers, nothing is read twice.
"""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator

import datasets
import numpy as np
import torch

from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample, Example, LostShard, Source
from maskformer.data.loading import outlive_sigterm

logger = logging.getLogger(__name__)

BUFFER = 512  # encoded rows that a reader holds and chooses from
SHARDS_A_READER = 4  # of a dataset that has no shards of its own
ROWS_A_READ = 16
BAD_IN_A_ROW = 200  # and still hope


class Shards:
    """The rows of a source as shards: those of an `IterableDataset`, or ranges of a `Dataset`.

    `lengths` are their numbers of rows, None where only reading would tell. Items are rows, or indices of rows where
    those can be read in any order; `row` gives an item's row.
    """

    def __init__(self, rows: datasets.Dataset | datasets.IterableDataset, readers: int):
        self.rows = rows
        self.ranges: list[range] | None = None
        if isinstance(rows, datasets.Dataset):
            count = min(len(rows), SHARDS_A_READER * readers)
            bounds = [len(rows) * index // count for index in range(count + 1)]
            self.ranges = [range(*pair) for pair in itertools.pairwise(bounds)]
            self.lengths = [len(indices) for indices in self.ranges]
        else:
            split = (rows.info.splits or {}).get(str(rows.split))
            lengths = getattr(split, "shard_lengths", None)
            self.lengths = lengths if lengths and len(lengths) == rows.num_shards else None
        if self.lengths and sum(self.lengths) < readers:
            raise ValueError(
                f"{sum(self.lengths)} training examples are too few for {readers} readers (processes times workers);"
                " use fewer workers"
            )

    def __len__(self) -> int:
        return len(self.ranges) if self.ranges is not None else self.rows.num_shards

    def items(self, shard: int) -> Iterator[dict | int]:
        """The items of one shard, in order; raises `LostShard` where its file is lost or cut short."""
        if self.ranges is not None:
            yield from self.ranges[shard]
            return
        # `iter` and not a loop over the dataset, which would deal the one shard to the workers of a loader again.
        batches = self.rows.shard(len(self), shard).iter(ROWS_A_READ)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, ValueError) as error:  # pyarrow's too
                text = " ".join(str(error).split())
                raise LostShard(
                    f"shard {shard} of the training data, counted from 0, cannot be read any more: {text}"
                ) from error
            if batch is None:
                return
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))

    def row(self, item: dict | int) -> dict:
        """The row of an item."""
        return item if self.ranges is None else self.rows[item]


class StreamingExamples(torch.utils.data.IterableDataset):
    """The augmented examples of the batches `start` to `end` of one process, for a `DataLoader` of the same batch size.

    The order depends on the seed and on the numbers of processes and workers; with the same numbers, a run that starts
    at a later batch continues the sequence exactly. What is random about an example depends on the seed, the epoch
    and its `image_id` alone, so an epoch gives the same set whatever the numbers. Readers whose shards are of
    different lengths begin their next epoch at different times.

    `on_bad_sample="skip"` logs an example that cannot be used and gives the next that can a second time, augmented
    differently; `"raise"` raises `BadSample`, as do 200 bad ones in a row. Raises `ValueError` where there are
    fewer examples than readers, and `LostShard` for a shard that can be read no more.
    """

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation,
        seed: int,
        batch_size: int,
        end: int,
        start: int = 0,
        num_processes: int = 1,
        process_index: int = 0,
        on_bad_sample: str = "raise",
        buffer: int = BUFFER,
    ):
        self.source, self.augmentation, self.seed, self.batch_size = source, augmentation, seed, batch_size
        self.start, self.end = start, end
        self.num_processes, self.process_index = num_processes, process_index
        self.skip, self.buffer = on_bad_sample == "skip", buffer

    def __len__(self) -> int:
        return max(0, self.end - self.start) * self.batch_size

    def __iter__(self) -> Iterator[Example]:
        info = torch.utils.data.get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        # A loader takes batches from its workers in turn, worker 0 first; batch b must come from worker b % workers.
        turn = (self.start + worker) % workers
        done = len(range(turn, self.start, workers))
        wanted = len(range(turn, self.end, workers)) - done
        reader, readers = self.process_index * workers + turn, self.num_processes * workers
        examples = self.examples(reader, readers, done * self.batch_size)
        return itertools.islice(examples, max(0, wanted) * self.batch_size)

    def examples(self, reader: int, readers: int, done: int) -> Iterator[Example]:
        """The endless examples of one reader, without the first `done`."""
        shards, bad = Shards(self.source.rows, readers), 0
        for epoch, item in self.items(shards, reader, readers, done):
            try:
                example = self.source.decode(shards.row(item))
            except BadSample as error:
                if not self.skip:
                    raise
                logger.warning("skipped a bad sample: %s", error)
                bad += 1
                if bad == BAD_IN_A_ROW:
                    raise BadSample(f"{bad} examples in a row cannot be used; the warnings above say why") from error
                continue
            # Copies for the bad ones before it, then itself: so the number of an item is that of its example.
            name = zlib.crc32(example["image_id"].encode())
            for copy in range(bad, -1, -1):
                yield self.augmentation(example, np.random.default_rng([self.seed, epoch, name, copy]))
            bad = 0

    def items(self, shards: Shards, reader: int, readers: int, done: int) -> Iterator[tuple[int, dict | int]]:
        """Epoch and item, epoch after epoch, without the first `done`; no image is decoded for those."""
        groups = math.gcd(len(shards), readers)
        members = readers // groups
        group, member = divmod(reader, members)
        for epoch in itertools.count():
            order = np.random.default_rng([self.seed, epoch]).permutation(len(shards))[group::groups]
            if shards.lengths:
                length = len(range(member, sum(shards.lengths[shard] for shard in order), members))
                if length <= done:  # an epoch that need not be read
                    done -= length
                    continue
            items = itertools.chain.from_iterable(shards.items(int(shard)) for shard in order)
            items = itertools.islice(items, member, None, members)
            given = 0
            for item in shuffled(items, self.buffer, np.random.default_rng([self.seed, epoch, reader])):
                given += 1
                if given > done:
                    yield epoch, item
            if not given:
                raise ValueError(f"the training dataset is empty, or has fewer examples than {readers} readers")
            done = max(0, done - given)


def shuffled(items: Iterable, size: int, random: np.random.Generator) -> Iterator:
    """The items, each one chosen at random from `size` that are held."""
    held = []
    for item in items:
        if len(held) < size:
            held.append(item)
            continue
        place = int(random.integers(size))
        yield held[place]
        held[place] = item
    for place in random.permutation(len(held)):
        yield held[place]


def streaming_batches(
    source: Source,
    augmentation: Augmentation,
    collate: Callable,
    batch_size: int,
    end: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    num_processes: int = 1,
    process_index: int = 0,
    on_bad_sample: str = "raise",
) -> torch.utils.data.DataLoader:
    """Batches of one process, in a run of the examples `start` to `end` of all processes together.

    `batch_size` is that of this process. The loader is this process's own: it must not be divided among processes
    once more, as `accelerator.prepare` would. See `StreamingExamples` for order and randomness. Raises `ValueError`
    where `start` is not between two steps.
    """
    step = batch_size * num_processes
    if start % step:
        raise ValueError(f"start is {start}; it must be a multiple of the {step} examples of a step")
    examples = StreamingExamples(
        source,
        augmentation,
        seed,
        batch_size,
        end=end // step,
        start=start // step,
        num_processes=num_processes,
        process_index=process_index,
        on_bad_sample=on_bad_sample,
    )
    # Too few examples are noticed here, not in a worker.
    Shards(source.rows, num_processes * max(1, workers))
    return torch.utils.data.DataLoader(
        examples,
        batch_size,
        collate_fn=collate,
        num_workers=workers,
        drop_last=True,
        worker_init_fn=outlive_sigterm,
    )
