"""From a source to batches for training."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import torch

from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample, Example, Source, segments_to_masks, semantic_map

logger = logging.getLogger(__name__)


class TrainingSampler(torch.utils.data.Sampler):
    """Tickets of a training run, from number `start` to `end`: epoch after epoch, each in its own order.

    A ticket is `epoch * len(dataset) + index`. The order depends on the seed alone, so a run that resumes, or one with
    another number of processes or workers, sees the same tickets.
    """

    def __init__(self, num_examples: int, end: int, seed: int, start: int = 0):
        self.num_examples, self.end, self.seed, self.start = num_examples, end, seed, start

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self):
        for position in range(self.start, self.end):
            epoch, place = divmod(position, self.num_examples)
            if place == 0 or position == self.start:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
            yield epoch * self.num_examples + int(order[place])


class TrainingExamples(torch.utils.data.Dataset):
    """Augmented examples of `source` by ticket; what is random about one depends on the seed and the ticket alone.

    `on_bad_sample="skip"` logs an example that cannot be used and gives the next that can; `"raise"` raises.
    """

    def __init__(self, source: Source, augmentation: Augmentation, seed: int, on_bad_sample: str = "raise"):
        if not len(source):
            raise ValueError("the training dataset is empty")
        self.source, self.augmentation, self.seed = source, augmentation, seed
        self.skip = on_bad_sample == "skip"

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, ticket: int) -> Example:
        for offset in range(len(self.source)):
            index = (ticket + offset) % len(self.source)
            try:
                return self.augmentation(self.source[index], np.random.default_rng([self.seed, ticket]))
            except BadSample as error:
                if not self.skip:
                    raise
                logger.warning("skipped a bad sample: %s", error)
        raise BadSample("not one example of the training dataset can be used; the warnings above say why")


def outlive_sigterm(worker: int) -> None:
    """Makes a loader's process leave SIGTERM, which schedulers send to all, to the main one: that ends its workers."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=obey_parent, args=(multiprocessing.parent_process().pid,), daemon=True).start()


def obey_parent(parent: int) -> None:
    """Ends this process at a SIGTERM of its `parent`, which waits for it at its own end; those of others do nothing."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # any other number would be an error in the parent


class Collator:
    """Examples to a batch of the model's inputs.

    Segments without a pixel, which a crop has emptied, are left out or, with `keep_emptied`, become empty masks, as in
    the official training on panoptic data: the model then learns to see a class of which nothing is left.
    """

    def __init__(self, image_processor, keep_emptied: bool = False):
        self.image_processor, self.keep_emptied = image_processor, keep_emptied

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        batch = self.image_processor(
            images=[example["image"] for example in examples],
            segmentation_maps=[example["segmentation"] for example in examples],
            instance_id_to_semantic_id=[segments_to_masks(example) for example in examples],
            do_resize=False,  # augmentation has given every image its size
            return_tensors="pt",
        )
        if self.keep_emptied:
            for index, example in enumerate(examples):
                labels = torch.tensor(emptied_labels(example), dtype=torch.int64)
                masks = batch["mask_labels"][index]
                empty = masks.new_zeros((len(labels), *masks.shape[1:]))  # (n, H, W)
                batch["mask_labels"][index] = torch.cat([masks, empty])
                batch["class_labels"][index] = torch.cat([batch["class_labels"][index], labels])
        return dict(batch)


class SemanticCollator:
    """Examples to a batch of a per-pixel model's inputs: `pixel_values`, `pixel_mask` and `labels` (B, H, W).

    Pixels without a segment, and padding, have the label `ignore_index`.
    """

    def __init__(self, image_processor, ignore_index: int):
        self.image_processor, self.ignore_index = image_processor, ignore_index

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        images = [example["image"] for example in examples]
        batch = self.image_processor(images=images, do_resize=False, return_tensors="pt")
        labels = torch.full_like(batch["pixel_mask"], self.ignore_index)  # (B, H, W)
        for target, example in zip(labels, examples, strict=True):
            label_map = torch.from_numpy(semantic_map(example, self.ignore_index))
            target[: label_map.shape[0], : label_map.shape[1]] = label_map
        return {**batch, "labels": labels}


def emptied_labels(example: Example) -> list[int]:
    """The labels of the segments to be learnt that have no pixel."""
    present = set(np.unique(example["segmentation"]).tolist())
    return [label for segment, label in segments_to_masks(example).items() if segment not in present]


def training_batches(
    examples: TrainingExamples,
    collate: Callable,
    batch_size: int,
    end: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
) -> torch.utils.data.DataLoader:
    """Batches of the tickets `start` to `end`."""
    return torch.utils.data.DataLoader(
        examples,
        batch_size=batch_size,
        sampler=TrainingSampler(len(examples), end, seed, start),
        collate_fn=collate,
        num_workers=workers,
        drop_last=True,
        persistent_workers=False,
        worker_init_fn=outlive_sigterm,
    )
