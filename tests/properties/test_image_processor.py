"""Image processors beside plain resizing and plain masks of label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from drawn_images import any_strides, pil_image, sizes
from maskformer import MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil
from maskformer.image_processing.image_loading import to_rgb
from property_settings import holds_for, seeds

PROCESSORS = {"pil": MaskFormerUniversalImageProcessorPil(), "torchvision": MaskFormerUniversalImageProcessor()}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
EDGE_LABELS = (0, 1, 2, 7, 254, 255, 256, 65535)


@holds_for(
    many=500,
    wrong=st.sampled_from([(0, 3), (3, 0), (0, 0), (0, 3, 3), (3, 0, 3), (2, 2, 2, 2), (3,), (), (5, 6, 7)]),
    kind=st.sampled_from(["u1", "i8", "f4", "?"]),
    backend=st.sampled_from([*PROCESSORS]),
)
def test_what_is_no_image_is_one_error(wrong, kind, backend):
    images = [np.zeros(wrong, kind), torch.from_numpy(np.zeros(wrong, kind))]
    if len(wrong) == 2:
        images.append(Image.new("RGB", wrong))
    for image in images:
        with pytest.raises(ValueError, match="an image must have"):
            to_rgb(image)
        if len(wrong) < 4:  # or else it is a stack of images
            with pytest.raises(ValueError, match="an image must have"):
                PROCESSORS[backend]([image])


def plain_size(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """detectron2's `ResizeShortestEdge`, with at least one pixel."""
    scale = shortest / min(size)
    edges = [shortest if edge == min(size) else scale * edge for edge in size]
    if max(edges) > longest:
        edges = [edge * (longest / max(edges)) for edge in edges]
    return tuple(max(1, int(edge + 0.5)) for edge in edges)


def label_map(draw, size: tuple[int, int], kind: str) -> np.ndarray:
    """Labels at the edges of what files hold; all of them void, or of any integer type."""
    values = draw.choice(EDGE_LABELS, size)
    if kind == "void":
        values[:] = 255
    elif kind == "bool":
        return draw.random(size) < 0.5
    types = [np.int32, np.int64, np.uint16, np.uint64] if values.max() > 255 else [np.uint8, np.int16, np.int64]
    return any_strides(draw, values.astype(types[draw.integers(len(types))]))


def check_labels(masks, labels, resized: np.ndarray, canvas, id_to_label, ignore, reduce) -> None:
    """One mask a value that stands for a label, by ascending value; nothing of padding."""
    expected = []
    for value in sorted(set(resized.ravel().tolist())):
        label = value if id_to_label is None else id_to_label.get(value)
        if label is None or label == ignore or reduce and (label == 0 or ignore is None and label == 255):
            continue
        mask = np.zeros(canvas, bool)
        mask[: resized.shape[0], : resized.shape[1]] = resized == value
        expected.append((label - int(reduce), mask))
    assert labels.dtype == torch.int64 and masks.dtype == torch.bool
    assert labels.tolist() == [label for label, _ in expected]
    assert tuple(masks.shape) == (len(expected), *canvas)
    assert all(np.array_equal(mask, wanted) for mask, (_, wanted) in zip(masks.numpy(), expected, strict=True))


@holds_for(
    seed=seeds,
    backend=st.sampled_from([*PROCESSORS]),
    shapes=st.lists(sizes, min_size=1, max_size=3),
    mode=st.sampled_from(["L", "RGB", "RGBA", "P", "I;16", "array"]),
    maps=st.sampled_from(["edges", "void", "bool"]),
    shortest=st.integers(1, 9),
    divisor=st.sampled_from([0, 1, 4, 32]),
    ignore=st.sampled_from([None, 0, 255]),
    reduce=st.booleans(),
    with_ids=st.booleans(),
)
def test_batches_are_resized_padded_and_cut_into_masks(seed, backend, shapes, mode, maps, **settings):
    """Of one pixel, of extreme shapes, of mixed sizes; ids in any order, several of one label, some of none."""
    draw = np.random.default_rng(seed)
    pairs = [pil_image(draw, size, "RGB" if mode == "array" else mode) for size in shapes]
    arrays = [np.asarray(rgb, np.uint8) for _, rgb in pairs]
    images = [any_strides(draw, rgb.copy()) for rgb in arrays] if mode == "array" else [image for image, _ in pairs]
    label_maps = [label_map(draw, size, maps) for size in shapes]
    id_to_label = None
    if settings["with_ids"]:
        known = draw.permutation(EDGE_LABELS)[: draw.integers(1, len(EDGE_LABELS))].tolist()
        id_to_label = {value: int(draw.choice([0, 3, 3, 255])) for value in known}
    batch = PROCESSORS[backend](
        images,
        label_maps,
        id_to_label,
        input_data_format="channels_last",
        size={"shortest_edge": settings["shortest"], "longest_edge": 20},
        size_divisor=settings["divisor"],
        ignore_index=settings["ignore"],
        do_reduce_labels=settings["reduce"],
    )
    new_sizes = [plain_size(size, settings["shortest"], 20) for size in shapes]
    step = settings["divisor"] or 1
    canvas = tuple(-(-max(edges) // step) * step for edges in zip(*new_sizes, strict=True))
    assert tuple(batch["pixel_values"].shape) == (len(images), 3, *canvas)
    for index, (height, width) in enumerate(new_sizes):
        inside = np.zeros(canvas, int)
        inside[:height, :width] = 1
        assert np.array_equal(batch["pixel_mask"][index], inside)
        values = batch["pixel_values"][index].numpy().transpose(1, 2, 0)  # (H, W, 3)
        assert (values[inside == 0] == 0).all()
        resized = Image.fromarray(arrays[index]).resize((width, height), Image.Resampling.BILINEAR)
        wrong = np.abs((values[:height, :width] * STD + MEAN) * 255 - np.asarray(resized, float))
        assert wrong.max() <= (1e-3 if backend == "pil" else 1.001)  # torchvision rounds otherwise
        nearest = Image.fromarray(label_maps[index].astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
        targets = batch["mask_labels"][index], batch["class_labels"][index]
        check_labels(*targets, np.asarray(nearest), canvas, id_to_label, settings["ignore"], settings["reduce"])


@holds_for(
    many=500,
    seed=seeds,
    backend=st.sampled_from([*PROCESSORS]),
    size=st.tuples(st.integers(1, 6), st.integers(5, 9)),
    wrong=st.sampled_from(["size", "count", "float", "color", "label", "negative", "huge"]),
)
def test_maps_that_do_not_fit_are_one_error(seed, backend, size, wrong):
    draw = np.random.default_rng(seed)
    images = [np.zeros((*size, 3), np.uint8)] * 2
    maps = [draw.integers(0, 3, size) for _ in images]
    strange = {
        "size": np.zeros((size[0], size[1] + 1), int),
        "float": np.zeros(size),
        "color": np.zeros((*size, 3), np.uint8),
        "label": np.full(size, 3),
        "negative": np.full(size, -1),
        "huge": np.full(size, 2**64 - 1, np.uint64),
    }
    if wrong == "count":
        maps.append(maps[0])
    else:
        maps[1] = strange[wrong]
    match = "there are 3 segmentation maps" if wrong == "count" else r"^segmentation_maps\[1\]"
    if wrong in ("label", "negative", "huge"):
        match += f": value {strange[wrong][0, 0]} stands for label"
    num_labels = 3 if wrong == "label" else None
    with pytest.raises(ValueError, match=match):
        PROCESSORS[backend](images, maps, num_labels=num_labels, do_resize=False, input_data_format="channels_last")
