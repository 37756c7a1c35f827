"""Pictures of training batches show what the network gets."""

from __future__ import annotations

import numpy as np
import torch

from maskformer import load_recipe
from maskformer.data.shapes import SHAPES_LABELS, render_scene
from maskformer.training.batch_pictures import caption_of, draw_batches, image_of, segments_of


def test_the_image_is_the_one_before_normalisation():
    processor = load_recipe("ade20k-150/maskformer_r50").build_image_processor()
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    batch = processor(images=image, do_resize=False, return_tensors="pt")
    np.testing.assert_array_equal(image_of(batch["pixel_values"][0], processor), image)


def test_small_masks_lie_on_top_and_empty_ones_are_counted():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2, :2], masks[1] = True, True
    batch = {"pixel_values": torch.zeros(1, 3, 4, 4), "mask_labels": [masks], "class_labels": [torch.tensor([5, 6, 6])]}
    segments = segments_of(batch, 0, 7)
    expected = np.full((4, 4), 2)
    expected[:2, :2] = 1
    np.testing.assert_array_equal(segments["segmentation"], expected)
    assert caption_of(segments) == "3 masks, 1 empty"


def test_labels_of_a_per_pixel_model_are_segments_and_the_ignored_one_is_void():
    labels = torch.tensor([[[255, 2], [2, 0]]])
    segments = segments_of({"pixel_values": torch.zeros(1, 3, 2, 2), "labels": labels}, 0, 3)
    assert [info["label_id"] for info in segments["segments_info"]] == [0, 2]
    np.testing.assert_array_equal(segments["segmentation"], [[0, 2], [2, 1]])


def test_as_many_images_are_drawn_as_were_asked_for(tmp_path):
    recipe = load_recipe("shapes/demo")
    processor = recipe.build_image_processor(SHAPES_LABELS)
    collate = recipe.build_collator(processor)
    batches = (collate([render_scene("train", index)]) for index in range(100))
    draw_batches(batches, processor, SHAPES_LABELS, tmp_path / "batch.png", images=3)
    assert (tmp_path / "batch.png").stat().st_size > 10_000
    assert next(batches)["pixel_values"].shape == (1, 3, 128, 128)  # not all were made
