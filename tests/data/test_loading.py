"""Order, randomness and bad samples of training batches."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from folders import write_panoptic_folder
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample
from maskformer.data.loading import TrainingExamples, TrainingSampler, training_batches
from maskformer.data.panoptic_folder import load_panoptic_folder

PROCESSOR = MaskFormerUniversalImageProcessorPil()
AUGMENTATION = Augmentation(crop_size=[64, 64], color_jitter=True)


def test_every_epoch_has_every_example_once_in_an_order_of_its_own():
    tickets = np.array(list(TrainingSampler(10, end=30, seed=3))).reshape(3, 10)
    assert (tickets // 10 == np.arange(3)[:, None]).all()
    assert all(sorted(row % 10) == list(range(10)) for row in tickets)
    assert len({tuple(row % 10) for row in tickets}) == 3
    assert list(TrainingSampler(10, end=30, seed=3)) == tickets.flatten().tolist()


def test_a_run_that_resumes_goes_on_where_it_stopped():
    whole = list(TrainingSampler(7, end=40, seed=1))
    assert list(TrainingSampler(7, end=40, seed=1, start=23)) == whole[23:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("data"))


def test_batches_do_not_depend_on_the_number_of_workers(folder):
    examples = TrainingExamples(load_panoptic_folder(folder), AUGMENTATION, seed=0)
    runs = [
        list(training_batches(examples, PROCESSOR, batch_size=2, end=6, seed=0, workers=workers)) for workers in (0, 2)
    ]
    assert len(runs[0]) == 3
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        for key in ("mask_labels", "class_labels"):
            assert all(torch.equal(x, y) for x, y in zip(a[key], b[key], strict=True))
    assert not torch.equal(runs[0][0]["pixel_values"], runs[0][2]["pixel_values"])


def test_bad_samples_stop_training_or_are_skipped_with_their_name(tmp_path, caplog):
    folder = write_panoptic_folder(tmp_path, count=3)
    (folder / "images" / "1.png").write_bytes(b"no image")
    source = load_panoptic_folder(folder)
    with pytest.raises(BadSample, match="1.png"):
        TrainingExamples(source, AUGMENTATION, 0)[1]
    with caplog.at_level(logging.WARNING):
        example = TrainingExamples(source, AUGMENTATION, 0, on_bad_sample="skip")[1]
    assert example["image_id"] == "2" and "1.png" in caplog.text


def test_a_dataset_of_bad_samples_only_is_an_error(tmp_path):
    folder = write_panoptic_folder(tmp_path, count=2)
    for index in range(2):
        (folder / "images" / f"{index}.png").unlink()
    with pytest.raises(BadSample, match="not one example"):
        TrainingExamples(load_panoptic_folder(folder), AUGMENTATION, 0, on_bad_sample="skip")[0]


def test_crowds_are_not_learnt(folder):
    example = load_panoptic_folder(folder)[0]
    example["segments_info"][-1]["iscrowd"] = 1
    from maskformer.data.loading import Collator

    batch = Collator(PROCESSOR)([example])
    assert len(batch["class_labels"][0]) == len(example["segments_info"]) - 1
    assert not (
        batch["mask_labels"][0] & torch.from_numpy(example["segmentation"] == example["segments_info"][-1]["id"])
    ).any()
