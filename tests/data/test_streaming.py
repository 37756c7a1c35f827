"""Streaming: every example once an epoch whatever the numbers of readers, and runs that resume exactly."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch

from folders import write_panoptic_folder
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample, Source
from maskformer.data.loading import Collator
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.preparation import Job, prepare
from maskformer.data.prepared import load_prepared
from maskformer.data.streaming import Shards, StreamingExamples, shuffled, streaming_batches

COLLATE = Collator(MaskFormerUniversalImageProcessorPil())
AUGMENTATION = Augmentation(crop_size=[16, 16], color_jitter=True)
COUNT = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("streaming") / "folder", count=COUNT, size=32)


@pytest.fixture(scope="module")
def sources(folder, tmp_path_factory):
    """The same examples: map-style, and streams of a number of shards."""
    source, found = load_panoptic_folder(folder), {}
    for num_shards in (1, 3, 8):
        out = tmp_path_factory.mktemp("prepared")
        prepare([Job.of("train", source, {}, num_shards, skip_bad=False)], out)
        found[num_shards] = load_prepared(out, "train", streaming=True)
    return found | {"map": source}


def stream(source, processes=1, workers=0, epochs=1, start=0, process=None, **options) -> list[torch.Tensor]:
    """The images of each batch of 2 in `epochs` epochs, of all processes or of one."""
    batches = []
    for index in range(processes) if process is None else [process]:
        loader = streaming_batches(
            source, AUGMENTATION, COLLATE, 2, end=epochs * COUNT, seed=5, start=start, workers=workers,
            num_processes=processes, process_index=index, **options,
        )  # fmt: skip
        batches += [batch["pixel_values"] for batch in loader]
    return batches


def as_set(batches: list[torch.Tensor]) -> list[bytes]:
    return sorted(image.numpy().tobytes() for batch in batches for image in batch)


@pytest.mark.parametrize("shards", [1, 3, 8, "map"])
def test_an_epoch_holds_every_example_once_with_any_readers(sources, shards):
    source = sources[shards]
    for readers, done in itertools.product((1, 2, 4), (0, 1)):
        examples = StreamingExamples(source, AUGMENTATION, seed=1, batch_size=1, end=0, buffer=4)
        found = []
        for reader in range(readers):
            share = itertools.islice(examples.examples(reader, readers, done * COUNT // readers), COUNT // readers)
            found += [example["image_id"] for example in share]
        assert sorted(found, key=int) == [str(index) for index in range(COUNT)]
        assert found != [str(index) for index in range(COUNT)]


@pytest.mark.parametrize(("processes", "workers"), [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)])
@pytest.mark.parametrize("shards", [1, 8, "map"])
def test_augmented_examples_do_not_depend_on_processes_and_workers(sources, shards, processes, workers):
    once = as_set(stream(sources["map"]))
    assert len(set(once)) == COUNT
    assert as_set(stream(sources[shards], processes, workers)) == once


def test_uneven_shards_give_every_example_once_an_epoch(sources):
    """Three shards of 5, 5 and 6 for three readers, whose epochs end at different times."""
    seen = {}
    for reader in range(3):
        examples = StreamingExamples(sources[3], Augmentation(), seed=0, batch_size=1, end=0)
        items = examples.items(Shards(sources[3].rows, 3), reader, 3, 0)
        for epoch, row in itertools.takewhile(lambda item: item[0] < 6, items):
            seen.setdefault(epoch, []).append(row["image_id"])
    assert [sorted(ids, key=int) for ids in seen.values()] == [[str(index) for index in range(COUNT)]] * 6


@pytest.mark.parametrize(
    ("shards", "processes", "workers"), [(8, 1, 0), (8, 2, 2), (3, 1, 2), (1, 2, 0), ("map", 1, 2)]
)
def test_a_run_that_resumes_goes_on_exactly(sources, shards, processes, workers):
    step = 2 * processes
    for process in range(processes):
        whole = stream(sources[shards], processes, workers, epochs=3, process=process)
        assert len(whole) == 3 * COUNT // step
        for done in (1, 5, len(whole) - 1):
            rest = stream(sources[shards], processes, workers, epochs=3, start=done * step, process=process)
            assert all(torch.equal(a, b) for a, b in zip(rest, whole[done:], strict=True))


def test_epochs_differ_in_order_and_augmentation(sources):
    batches = stream(sources[8], epochs=2)
    first, second = as_set(batches[: COUNT // 2]), as_set(batches[COUNT // 2 :])
    assert not set(first) & set(second)


def test_epochs_before_the_start_are_not_read(sources):
    read = []
    source = sources[8]
    counted = Source(source.rows, source.labels, lambda row: read.append(row["image_id"]) or source.decode(row))
    examples = StreamingExamples(counted, Augmentation(), seed=0, batch_size=1, start=1000 * COUNT + 3, end=10**6)
    next(iter(examples))
    assert len(read) == 1


def test_a_stream_whose_lengths_are_not_known_is_read_up_to_the_start(sources):
    known = stream(sources[8], epochs=3, start=2 * COUNT + 4)
    rows = sources["map"].rows.to_iterable_dataset(num_shards=8)
    unknown = Source(rows, sources["map"].labels, sources["map"].decode)
    assert as_set(stream(unknown)) == as_set(stream(sources[8]))
    resumed = stream(unknown, workers=2, epochs=3, start=2 * COUNT + 4)
    assert len(resumed) == len(known)
    assert all(map(torch.equal, resumed, stream(unknown, workers=2, epochs=3)[COUNT + 2 :]))


def test_shuffling_holds_few_and_loses_none():
    order = list(shuffled(range(100), 8, np.random.default_rng(0)))
    assert sorted(order) == list(range(100)) != order
    assert all(item < place + 8 for place, item in enumerate(order))  # nothing is read before its time
    assert list(shuffled([], 8, np.random.default_rng(0))) == []


def test_too_few_examples_for_the_readers_are_an_error(sources):
    with pytest.raises(ValueError, match="16 training examples are too few for 32 readers"):
        stream(sources[1], processes=16, workers=2)
    with pytest.raises(ValueError, match="start is 3; it must be a multiple of the 4"):
        stream(sources[1], processes=2, start=3)


def test_bad_samples_stop_the_stream_or_are_replaced(tmp_path, caplog):
    folder = write_panoptic_folder(tmp_path / "folder", count=4, size=32)
    for index in (1, 2):
        (folder / "images" / f"{index}.png").write_bytes(b"no image")
    source = load_panoptic_folder(folder)

    def run(count: int, done: int = 0, **options):
        examples = StreamingExamples(source, AUGMENTATION, 0, batch_size=1, end=done + count, start=done, **options)
        return list(examples)

    with pytest.raises(BadSample, match=r"[12]\.png"):
        run(4)
    with caplog.at_level(logging.WARNING):
        whole = run(12, on_bad_sample="skip")
    assert "1.png" in caplog.text and {example["image_id"] for example in whole} == {"0", "3"}
    assert len({example["image"].tobytes() for example in whole}) == 12  # what is given again is augmented anew
    for done in range(12):
        rest = run(12 - done, done, on_bad_sample="skip")
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(rest, whole[done:], strict=True))


def test_a_stream_of_bad_samples_only_is_an_error(tmp_path):
    folder = write_panoptic_folder(tmp_path / "folder", count=2, size=32)
    for index in range(2):
        (folder / "images" / f"{index}.png").unlink()
    examples = StreamingExamples(load_panoptic_folder(folder), AUGMENTATION, 0, 1, end=1, on_bad_sample="skip")
    with pytest.raises(BadSample, match="200 examples in a row cannot be used"):
        next(iter(examples))
