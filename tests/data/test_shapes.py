"""The generated scenes: exact, repeatable, lazily read, and not a toy."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from scipy import ndimage
from torch.utils.data import DataLoader

from maskformer.data.shapes import SHAPES_LABELS, load_shapes, render_scene
from maskformer.metrics import MeanIoU, PanopticQuality

NUM_LABELS = len(SHAPES_LABELS)


@pytest.fixture(scope="module")
def scenes() -> list[dict]:
    """A hundred validation scenes."""
    return [render_scene("validation", index) for index in range(100)]


def things(scene: dict) -> list[dict]:
    return [segment for segment in scene["segments_info"] if SHAPES_LABELS.is_thing[segment["label_id"]]]


def semantic_map(scene: dict) -> np.ndarray:
    """The label ids (H, W) of a scene."""
    label_of = np.array([-1] + [segment["label_id"] for segment in scene["segments_info"]])
    return label_of[scene["segmentation"]]


def panoptic_quality(predictions: list[dict], scenes: list[dict]) -> dict:
    metric = PanopticQuality(categories=SHAPES_LABELS.categories)
    metric.add_batch(predictions=predictions, references=scenes)
    return metric.compute()


def same(one: dict, other: dict) -> bool:
    arrays = all(np.array_equal(one[key], other[key]) for key in ("image", "segmentation"))
    return arrays and all(one[key] == other[key] for key in ("segments_info", "image_id"))


def test_a_scene_is_a_decoded_example_with_exact_segments(scenes):
    for scene in scenes:
        image, segmentation = scene["image"], scene["segmentation"]
        assert image.dtype == np.uint8 and image.shape == (128, 128, 3) and image.flags.c_contiguous
        assert segmentation.dtype == np.int32 and segmentation.shape == (128, 128)
        ids = [segment["id"] for segment in scene["segments_info"]]
        assert ids == list(range(1, len(ids) + 1)) == np.unique(segmentation).tolist()
        labels = [segment["label_id"] for segment in scene["segments_info"]]
        assert all(type(label) is int and 0 <= label < NUM_LABELS for label in labels)
        stuff = [label for label in labels if not SHAPES_LABELS.is_thing[label]]
        assert len(set(stuff)) == len(stuff) >= 2  # one segment a stuff class
        assert all(segment["iscrowd"] == 0 for segment in scene["segments_info"])
    assert len({scene["image_id"] for scene in scenes}) == len(scenes)


def test_a_scene_depends_on_seed_split_and_index_only():
    first = render_scene("train", 3)
    render_scene("train", 4)
    assert same(first, render_scene("train", 3))
    others = [render_scene("train", 4), render_scene("validation", 3), render_scene("train", 3, seed=1)]
    for other in others:
        assert not np.array_equal(first["segmentation"], other["segmentation"])


def test_train_and_validation_share_no_scene():
    for seed in (0, 1):
        maps = [
            render_scene(split, index, size=64, seed=seed)["segmentation"].tobytes()
            for split in ("train", "validation")
            for index in range(60)
        ]
        assert len(set(maps)) == len(maps)


def test_a_larger_scene_is_the_same_scene_in_finer_detail():
    agreement = []
    for index in range(12):
        small, large = render_scene("train", index), render_scene("train", index, size=256)
        assert large["image"].shape == (256, 256, 3)
        agreement.append((semantic_map(large)[::2, ::2] == semantic_map(small)).mean())
    assert np.median(agreement) > 0.95


def test_scenes_are_as_varied_as_promised(scenes):
    assert sum(not thing for thing in SHAPES_LABELS.is_thing) >= 3 and sum(SHAPES_LABELS.is_thing) >= 4
    seen = {segment["label_id"] for scene in scenes for segment in scene["segments_info"]}
    assert seen == set(range(NUM_LABELS))
    counts = [len(things(scene)) for scene in scenes]
    assert min(counts) == 3 and 8 <= max(counts) <= 12
    extents, areas = [], []
    for scene in scenes:
        boxes = ndimage.find_objects(scene["segmentation"])
        for segment in things(scene):
            extents.append(max(side.stop - side.start for side in boxes[segment["id"] - 1]))
            areas.append((scene["segmentation"] == segment["id"]).sum())
    assert np.quantile(extents, 0.99) >= 4 * np.quantile(extents, 0.01)
    assert min(areas) >= 24  # nothing is hidden but for a few pixels


def test_many_things_touch_one_of_their_class(scenes):
    touching = total = 0
    for scene in scenes:
        segments = things(scene)
        total += len(segments)
        for segment in segments:
            near = ndimage.binary_dilation(scene["segmentation"] == segment["id"])
            neighbours = set(np.unique(scene["segmentation"][near])) - {segment["id"]}
            touching += any(o["id"] in neighbours and o["label_id"] == segment["label_id"] for o in segments)
    assert touching / total > 0.5


def test_a_constant_answer_is_worth_little(scenes):
    for label in range(NUM_LABELS):
        answer = {"segmentation": np.ones((128, 128), np.int32), "segments_info": [{"id": 1, "label_id": label}]}
        assert panoptic_quality([answer] * len(scenes), scenes)["pq"] <= 0.10


@pytest.mark.parametrize("connectivity", [1, 2])
def test_components_of_the_true_semantic_map_do_not_separate_the_things(scenes, connectivity):
    structure = ndimage.generate_binary_structure(2, connectivity)
    answers = []
    for scene in scenes:
        labels = semantic_map(scene)
        segmentation, segments = np.zeros_like(scene["segmentation"]), []
        for label in np.unique(labels).tolist():
            region = labels == label
            parts, count = ndimage.label(region, structure) if SHAPES_LABELS.is_thing[label] else (region, 1)
            segmentation[region] = (parts + len(segments))[region]
            segments += [{"id": len(segments) + part, "label_id": label} for part in range(1, count + 1)]
        answers.append({"segmentation": segmentation, "segments_info": segments})
    result = panoptic_quality(answers, scenes)
    assert result["pq_stuff"] == pytest.approx(1)
    assert result["pq_things"] <= 0.50


def test_colour_alone_does_not_tell_the_class(scenes):
    totals, counts = np.zeros((NUM_LABELS, 3)), np.zeros((NUM_LABELS, 1))
    for index in range(60):
        scene = render_scene("train", index)
        one_hot = np.eye(NUM_LABELS)[semantic_map(scene).ravel()]  # (H * W, K)
        totals += one_hot.T @ scene["image"].reshape(-1, 3)  # (K, 3)
        counts += one_hot.sum(axis=0)[:, None]
    means = totals / counts
    metric = MeanIoU(num_labels=NUM_LABELS)
    for scene in scenes:
        # |p - m|^2 without its part |p|^2, which is the same for every class.
        distance = (means**2).sum(axis=1) - 2 * scene["image"].astype(float) @ means.T  # (H, W, K)
        metric.add_batch(predictions=[distance.argmin(axis=-1)], references=[semantic_map(scene)])
    assert metric.compute()["mean_iou"] <= 0.40


def test_rows_are_rendered_when_they_are_read():
    start = time.perf_counter()
    dataset = load_shapes("train", 20_000, seed=5)
    assert time.perf_counter() - start < 5 and len(dataset) == 20_000
    expected = render_scene("train", 19_999, seed=5)
    assert same(dataset[19_999], expected) and same(dataset[-1], expected)
    assert same(dataset.select([7, 19_999])[1], expected)
    for rows, indices in ((slice(2, 5), [2, 3, 4]), ([9, 4], [9, 4])):
        batch = dataset[rows]
        assert batch["image_id"] == [f"train_{index:06d}" for index in indices]
        assert np.array_equal(batch["image"][1], render_scene("train", indices[1], seed=5)["image"])


def test_workers_render_what_the_main_process_renders():
    dataset = load_shapes("validation", 6, size=64)
    alone, shared = (list(DataLoader(dataset, 2, collate_fn=list, num_workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 3
    for here, there in zip(sum(alone, []), sum(shared, []), strict=True):
        assert same(here, there)
    assert same(pickle.loads(pickle.dumps(dataset))[5], dataset[5])  # as workers started by spawn receive it


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("test", 5), "'train' and 'validation', not 'test'"),
        (("train", 0), "num_scenes is 0"),
        (("train", 5, 16), "size is 16"),
        (("train", 5, 128, -1), "seed is -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_shapes(*arguments)


def test_a_negative_index_is_named():
    with pytest.raises(ValueError, match="index is -1"):
        render_scene("train", -1)
