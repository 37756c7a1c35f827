"""Order, randomness and bad samples of training batches."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader

from folders import write_panoptic_folder
from maskformer import MaskFormerUniversalImageProcessorPil, PerPixelBaselineImageProcessorPil, load_recipe
from maskformer.data.augmentation import Augmentation
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.loading import (
    Collator,
    SemanticCollator,
    TrainingExamples,
    TrainingSampler,
    training_batches,
)
from maskformer.data.panoptic_folder import load_panoptic_folder

COLLATE = Collator(MaskFormerUniversalImageProcessorPil())
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
    first, *others = (
        list(training_batches(examples, COLLATE, batch_size=2, end=6, seed=0, workers=workers)) for workers in (0, 1, 4)
    )
    assert len(first) == 3
    for batches in others:
        for a, b in zip(first, batches, strict=True):
            assert torch.equal(a["pixel_values"], b["pixel_values"])
            for key in ("mask_labels", "class_labels"):
                assert all(torch.equal(x, y) for x, y in zip(a[key], b[key], strict=True))
    assert not torch.equal(first[0]["pixel_values"], first[2]["pixel_values"])


def test_two_processes_have_the_samples_of_one_at_every_step(folder):
    examples = TrainingExamples(load_panoptic_folder(folder), AUGMENTATION, seed=0)

    def steps(processes):
        """What all processes together see at each step, as a sorted list of images."""
        loaders = [
            prepare_data_loader(
                training_batches(examples, COLLATE, batch_size=4 // processes, end=12, seed=7),
                num_processes=processes,
                process_index=process,
                put_on_device=False,
            )
            for process in range(processes)
        ]
        together = zip(*loaders, strict=True)
        return [sorted(x.numpy().tobytes() for batch in step for x in batch["pixel_values"]) for step in together]

    assert steps(2) == steps(1) and len(steps(1)) == 3


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
    batch = COLLATE([example])
    assert len(batch["class_labels"][0]) == len(example["segments_info"]) - 1
    assert not (
        batch["mask_labels"][0] & torch.from_numpy(example["segmentation"] == example["segments_info"][-1]["id"])
    ).any()


def overlapping_example() -> dict:
    """Two segments that share the pixels of the middle columns, and one that a crop has emptied."""
    segmentation = np.zeros((2, 32, 32), np.int32)
    segmentation[0, :, :20], segmentation[1, :, 12:] = 1, 2
    infos = [{"id": i, "label_id": 10 * i, "iscrowd": 0} for i in (1, 2, 3)]
    return {
        "image": np.zeros((32, 32, 3), np.uint8),
        "segmentation": segmentation,
        "segments_info": infos,
        "image_id": "",
    }


def test_overlapping_segments_become_whole_masks():
    batch = COLLATE([overlapping_example()])
    assert batch["class_labels"][0].tolist() == [10, 20]
    expected = torch.zeros(2, 32, 32, dtype=torch.bool)
    expected[0, :, :20], expected[1, :, 12:] = True, True
    assert torch.equal(batch["mask_labels"][0], expected)


def test_emptied_segments_are_kept_where_the_official_training_keeps_them():
    batch = Collator(MaskFormerUniversalImageProcessorPil(), keep_emptied=True)([overlapping_example()])
    assert batch["class_labels"][0].tolist() == [10, 20, 30]
    assert batch["mask_labels"][0].flatten(1).any(1).tolist() == [True, True, False]
    crowd = overlapping_example()
    crowd["segments_info"][2]["iscrowd"] = 1
    batch = Collator(MaskFormerUniversalImageProcessorPil(), keep_emptied=True)([crowd])
    assert batch["class_labels"][0].tolist() == [10, 20]
    for name, kept in (("coco-panoptic/maskformer_r50", True), ("ade20k-150/maskformer_r50", False)):
        recipe = load_recipe(name)
        assert recipe.build_collator(recipe.build_image_processor()).keep_emptied is kept


def test_a_per_pixel_model_gets_labels_on_the_padded_canvas(folder):
    examples = [load_panoptic_folder(folder)[index] for index in range(2)]
    examples[1] = {**examples[1], "image": examples[1]["image"][:100, :90]}
    examples[1]["segmentation"] = examples[1]["segmentation"][:100, :90]
    batch = SemanticCollator(PerPixelBaselineImageProcessorPil(), ignore_index=77)(examples)
    assert batch["labels"].shape == batch["pixel_values"].shape[:1] + batch["pixel_values"].shape[2:] == (2, 128, 128)
    for labels, example in zip(batch["labels"], examples, strict=True):
        height, width = example["segmentation"].shape
        np.testing.assert_array_equal(labels[:height, :width], semantic_map(example, 77))
        assert (labels[height:] == 77).all() and (labels[:, width:] == 77).all()
    recipe = load_recipe("mapillary-vistas-65/maskformer_r50")
    assert isinstance(recipe.build_collator(None), Collator)
    recipe = load_recipe("ade20k-full-847/per_pixel_baseline_r50")
    assert recipe.build_collator(recipe.build_image_processor()).ignore_index == 65535
