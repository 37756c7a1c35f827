"""How fast one core makes training batches, and which step the time goes to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm.auto import tqdm

from maskformer.data.augmentation import Augmentation
from maskformer.data.example import Example, Source
from maskformer.data.loading import TrainingSampler

# The settings of an augmentation that make up each of its steps, in the order in which they happen.
AUGMENTATION_STEPS = {
    "resize": ("shortest_edges", "longest_edge"),
    "crop": ("crop_size", "detr_crop", "single_category_max_area"),
    "colour": ("color_jitter", "stray_light"),
    "flip": ("horizontal_flip", "vertical_flip", "rotate"),
}
STEPS = ("read", "decode", *AUGMENTATION_STEPS, "collate")


@dataclass(frozen=True)
class DataCost:
    """Seconds that `images` took, by step.

    `read` finds the row, or renders its scene, and reads the bytes of its files; `decode` makes an example of them, and
    reads the files again, from memory. `crop` includes padding, `flip` rotation. `collate` makes a batch: normalised
    images and a mask for every segment.
    """

    images: int
    seconds: dict[str, float]

    @property
    def images_per_second(self) -> float:
        """Through all steps, one after another."""
        return self.images / sum(self.seconds.values())

    def share(self, step: str) -> float:
        """What `step` takes of the time, 0 to 1."""
        return self.seconds[step] / sum(self.seconds.values())


def measure_data(
    source: Source, augmentation: Augmentation, collate: Callable, batch_size: int, images: int, seed: int = 0
) -> DataCost:
    """Times `images` training examples, rounded up to whole batches, in this process.

    The steps of augmentation are told apart so: an example is augmented with the first step alone, then with one more,
    and so on, with the same random numbers; each step takes what the time has grown by. A first batch, which is not
    counted, warms the process up. Raises `BadSample` where an example cannot be used.
    """
    batches = -(-images // batch_size)
    tickets = iter(TrainingSampler(len(source), (batches + 1) * batch_size, seed))
    pipelines = augmentation_sums(augmentation)
    for batch in range(batches + 1):
        if batch < 2:  # start again after the first
            seconds = dict.fromkeys(STEPS, 0.0)
            bar = tqdm(total=batches * batch_size, desc="measuring", unit="image", leave=False, disable=not batch)
        examples = []
        for ticket in itertools.islice(tickets, batch_size):
            examples.append(timed_example(source, pipelines, ticket, seed, seconds))
            bar.update()
        began = perf_counter()
        collate(examples)
        seconds["collate"] += perf_counter() - began
    bar.close()
    return DataCost(batches * batch_size, seconds)


def augmentation_sums(augmentation: Augmentation) -> dict[str, Augmentation]:
    """By step, the augmentation that does it and those before it; the last is `augmentation` itself."""
    plain = Augmentation(horizontal_flip=False)
    values, known = {}, Augmentation.__dataclass_fields__
    sums = {}
    for step, names in AUGMENTATION_STEPS.items():
        values |= {name: getattr(augmentation, name) for name in names if name in known}
        sums[step] = dataclasses.replace(plain, **values)
    return sums | {step: augmentation}


def timed_example(
    source: Source, pipelines: dict[str, Augmentation], ticket: int, seed: int, seconds: dict[str, float]
) -> Example:
    """The augmented example of a ticket; what each step took is added to `seconds`."""
    began = perf_counter()
    row = source.rows[ticket % len(source)]
    for path in file_paths(row):
        path.read_bytes()
    read = perf_counter()
    example = source.decode(row)
    seconds["read"] += read - began
    seconds["decode"] += perf_counter() - read
    totals = [0.0]
    for augment in pipelines.values():
        random = np.random.default_rng([seed, ticket])
        began = perf_counter()
        augmented = augment(example, random)
        totals.append(perf_counter() - began)
    # A step may make the later ones cheaper, as a crop does with what is copied in the end: it then counts as nothing,
    # and the others as less, so that their sum is what all steps together took.
    growth = np.diff(totals).clip(0)
    for step, took in zip(pipelines, growth * totals[-1] / growth.sum(), strict=True):
        seconds[step] += took
    return augmented


def file_paths(row: dict) -> Iterator[Path]:
    """The files that a row names."""
    for name, value in row.items():
        if name != "image_id" and isinstance(value, str) and "/" in value and Path(value).is_file():
            yield Path(value)
