"""The image processors: sizes, pixels, labels, batches, saving, and what transformers' pipeline asks of them."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ImageSegmentationPipeline
from transformers.utils import ModelOutput

from helpers import fixture, shared_file
from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessor,
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineImageProcessor,
    PerPixelBaselineImageProcessorPil,
)
from maskformer.image_processing.preprocessing import output_size, resize_labels

PREPROCESS = fixture("preprocess")
MASKFORMER = [MaskFormerUniversalImageProcessor, MaskFormerUniversalImageProcessorPil]
PER_PIXEL = [PerPixelBaselineImageProcessor, PerPixelBaselineImageProcessorPil]
PLAIN = {"do_rescale": False, "do_normalize": False, "size_divisor": 0}  # pixels as they are


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    blocks = np.random.RandomState(seed).randint(0, 256, (-(-height // 4), -(-width // 4), 3)).astype(np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def small(processor_class, **settings):
    """A processor that resizes nothing."""
    return processor_class(do_resize=False, **settings)


@pytest.mark.parametrize("case", PREPROCESS["sizes"], ids=lambda case: "x".join(map(str, case["from"])))
def test_sizes_are_the_official_ones(case):
    size = {"shortest_edge": case["shortest_edge"], "longest_edge": case["longest_edge"]}
    assert list(output_size(*case["from"], size)) == case["size"]
    processor = MaskFormerUniversalImageProcessorPil(size=size, **PLAIN)
    batch = processor(Image.new("RGB", case["from"][::-1]), return_tensors="pt")
    assert list(batch["pixel_values"].shape[-2:]) == case["size"]


@pytest.mark.parametrize("case", PREPROCESS["pixels"], ids=lambda case: f"{case['file'][-12:]}-{case['shortest_edge']}")
def test_pixels_are_the_official_ones(case):
    image = Image.open(shared_file(f"reference/{case['file']}"))
    size = {"shortest_edge": case["shortest_edge"], "longest_edge": case["longest_edge"]}
    batch = MaskFormerUniversalImageProcessorPil(size=size, **PLAIN)(image, return_tensors="pt")
    pixels = batch["pixel_values"][0].permute(1, 2, 0).numpy().astype(np.uint8)  # (H, W, 3)
    assert list(pixels.shape[:2]) == case["size"]
    np.testing.assert_allclose(pixels.mean((0, 1)), case["channel_means"], atol=1e-6)
    assert zlib.crc32(pixels.tobytes()) == case["crc32"]


@pytest.mark.parametrize("size", [(40, 64), (97, 33)])
def test_both_backends_resize_alike(size):
    image = random_image(50, 61)
    settings = {"size": {"height": size[0], "width": size[1]}, **PLAIN}
    first, second = (c(**settings)(image, return_tensors="pt")["pixel_values"] for c in MASKFORMER)
    assert (first - second).abs().max() <= 1  # of 255
    floats = [c(**settings)(image / 255, return_tensors="pt")["pixel_values"] for c in MASKFORMER]
    torch.testing.assert_close(*floats, atol=1e-5, rtol=0)


@pytest.mark.parametrize("processor_class", MASKFORMER + PER_PIXEL)
def test_normalization_is_the_official_arithmetic(processor_class):
    image = random_image(8, 12)
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    std = np.array([58.395, 57.12, 57.375], np.float32)
    values = small(processor_class)(image, return_tensors="pt")["pixel_values"]
    expected = torch.from_numpy((image.astype(np.float32) - mean) / std).permute(2, 0, 1)  # (3, H, W)
    assert torch.equal(values[0, :, :8, :12], expected)
    scaled = small(processor_class, do_normalize=False)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(scaled[0, :, :8, :12], torch.from_numpy(image).permute(2, 0, 1) / 255)
    already = small(processor_class, do_rescale=False)((image / 255).astype(np.float32), return_tensors="pt")
    torch.testing.assert_close(already["pixel_values"], values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_batches_share_a_canvas_and_mark_the_images(processor_class):
    images = [random_image(20, 50), random_image(40, 33, seed=1)]
    for divisor, canvas in ((32, (64, 64)), (0, (40, 50)), (7, (42, 56))):
        batch = small(processor_class, size_divisor=divisor)(images, return_tensors="pt")
        assert batch["pixel_values"].shape == (2, 3, *canvas) and batch["pixel_values"].dtype == torch.float32
        assert batch["pixel_mask"].shape == (2, *canvas) and batch["pixel_mask"].dtype == torch.int64
        for i, image in enumerate(images):
            height, width = image.shape[:2]
            assert batch["pixel_mask"][i].sum() == batch["pixel_mask"][i, :height, :width].sum() == height * width
            alone = small(processor_class, size_divisor=divisor)(image, return_tensors="pt")["pixel_values"][0]
            assert torch.equal(batch["pixel_values"][i, :, :height, :width], alone[:, :height, :width])
            assert (batch["pixel_values"][i][:, batch["pixel_mask"][i] == 0] == 0).all()


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_padding_can_be_fixed_or_left_out(processor_class):
    images = [random_image(20, 50), random_image(40, 33)]
    batch = small(processor_class)(images, pad_size={"height": 70, "width": 60}, return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 70, 60)
    with pytest.raises(ValueError, match=r"pad_size \(30, 60\).*\(40, 50\)"):
        small(processor_class)(images, pad_size={"height": 30, "width": 60})
    loose = small(processor_class, do_pad=False)(images)
    assert [tuple(x.shape) for x in loose["pixel_values"]] == [(3, 20, 50), (3, 40, 33)]
    assert all(mask.all() for mask in loose["pixel_mask"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_images_of_any_kind_are_taken(processor_class, tmp_path):
    image = random_image(16, 24)
    Image.fromarray(image).save(tmp_path / "image.png")
    processor = small(processor_class)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    kinds = [
        Image.fromarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
        np.dstack([image, image[..., 0]]),
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        [image],
        [[Image.fromarray(image)]],
        image[None],
        image[..., ::-1].copy()[..., ::-1],
        np.asarray(Image.fromarray(image)),  # read-only
    ]
    for kind in kinds:
        assert torch.equal(processor(kind, return_tensors="pt")["pixel_values"], expected)
    several = processor(kinds[:5], return_tensors="pt")["pixel_values"]
    assert torch.equal(several, expected.expand(5, -1, -1, -1))
    gray = processor([image[..., 0]], return_tensors="pt")["pixel_values"]
    assert gray.shape == (1, 3, 32, 32)
    assert processor(image, return_tensors="np")["pixel_values"].shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"absent\.png"):
        processor(str(tmp_path / "absent.png"))
    with pytest.raises(ValueError, match="no images"):
        processor([])


def labels_of(batch) -> list[list[int]]:
    return [labels.tolist() for labels in batch["class_labels"]]


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_label_maps_become_one_mask_a_label(processor_class):
    label_map = np.array([[7, 7, 255, 0], [3, 3, 3, 0]], np.uint8)
    batch = small(processor_class, size_divisor=4, ignore_index=255)(random_image(2, 4), label_map, return_tensors="pt")
    [masks], [labels] = batch["mask_labels"], batch["class_labels"]
    assert masks.dtype == torch.bool and masks.shape == (3, 4, 4) and labels.dtype == torch.int64
    assert labels.tolist() == [0, 3, 7]
    assert np.array_equal(masks[:, :2].numpy(), np.stack([label_map == label for label in (0, 3, 7)]))
    assert not masks[:, 2:].any()  # the padding
    assert labels_of(small(processor_class)(random_image(2, 4), label_map)) == [[0, 3, 7, 255]]


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_labels_are_reduced_as_in_ade20k(processor_class):
    label_map = np.array([[0, 1, 150, 255]], np.uint8)
    image = random_image(1, 4)
    assert labels_of(small(processor_class, do_reduce_labels=True)(image, label_map)) == [[0, 149]]
    wide = small(processor_class, do_reduce_labels=True, ignore_index=65535)
    assert labels_of(wide(image, np.array([[0, 256, 847, 65535]], np.uint16))) == [[255, 846]]


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_segment_ids_get_their_labels_and_unknown_ids_none(processor_class):
    ids = np.array([[0, 9, 9, 16777215], [300, 300, 70000, 70000]], np.int64)
    mapping = {9: 2, 300: 5, 70000: 2}  # 0 is void, the last a crowd
    processor = small(processor_class, ignore_index=255)
    batch = processor(random_image(2, 4), ids, instance_id_to_semantic_id=mapping, return_tensors="pt")
    assert labels_of(batch) == [[2, 5, 2]]
    assert np.array_equal(batch["mask_labels"][0][:, :2, :4].numpy(), np.stack([ids == i for i in (9, 300, 70000)]))
    void = processor(random_image(2, 4), ids, instance_id_to_semantic_id={9: 255, 300: 1})
    assert labels_of(void) == [[1]]
    reduced = processor(random_image(2, 4), ids, instance_id_to_semantic_id={9: 1, 300: 0}, do_reduce_labels=True)
    assert labels_of(reduced) == [[0]]
    two = processor([random_image(2, 4)] * 2, [ids, ids], instance_id_to_semantic_id=[{9: 1}, {300: 4}])
    assert labels_of(two) == [[1], [4]]


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_an_image_without_any_mask_has_empty_targets(processor_class):
    processor = small(processor_class, ignore_index=255)
    maps = [np.full((20, 30), 255, np.uint8), np.zeros((20, 30), np.uint8)]
    batch = processor([random_image(20, 30)] * 2, maps, return_tensors="pt")
    assert [tuple(masks.shape) for masks in batch["mask_labels"]] == [(0, 32, 32), (1, 32, 32)]
    assert [tuple(labels.shape) for labels in batch["class_labels"]] == [(0,), (1,)]
    assert batch["mask_labels"][0].dtype == torch.bool and batch["class_labels"][0].dtype == torch.int64


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_label_maps_are_resized_to_the_nearest_like_the_image(processor_class):
    random = np.random.RandomState(2)
    label_map = random.randint(0, 5, (37, 53)).astype(np.int32)
    processor = processor_class(size={"shortest_edge": 24, "longest_edge": 100})
    batch = processor(random_image(37, 53), label_map, return_tensors="pt")
    expected = np.asarray(Image.fromarray(label_map).resize((34, 24), Image.Resampling.NEAREST))
    assert np.array_equal(batch["mask_labels"][0].int().argmax(0)[:24, :34].numpy(), expected)
    assert batch["mask_labels"][0].sum() == 24 * 34
    lost = np.zeros((100, 100), np.int32)
    lost[1, 1] = 1  # no pixel of the small map falls on it
    assert labels_of(processor_class(size={"shortest_edge": 10})(random_image(100, 100), lost)) == [[0]]


def test_nearest_equals_pil_for_every_size_and_keeps_wide_integers():
    random = np.random.RandomState(3)
    for height, width, new_height, new_width in random.randint(1, 120, (40, 4)):
        label_map = random.randint(0, 70000, (height, width)).astype(np.int32)
        expected = np.asarray(Image.fromarray(label_map).resize((new_width, new_height), Image.Resampling.NEAREST))
        assert np.array_equal(resize_labels(label_map, (new_height, new_width)), expected)
    assert resize_labels(np.full((2, 2), 2**40), (3, 3)).max() == 2**40


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_label_maps_of_any_kind_are_taken(processor_class):
    label_map = np.array([[0, 1], [2, 2]], np.uint8)
    image, processor = random_image(2, 2), small(processor_class)
    expected = processor(image, label_map)["mask_labels"][0]
    palette = Image.fromarray(label_map, mode="P")
    tensor = torch.from_numpy(label_map)
    for kind in (
        Image.fromarray(label_map),
        palette,
        tensor,
        tensor.long()[None],
        [label_map],
        label_map[None].astype("uint16"),
    ):
        assert torch.equal(processor(image, kind)["mask_labels"][0], expected)


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_labels_that_do_not_fit_are_named(processor_class):
    images, fine = [random_image(4, 6)] * 2, np.zeros((4, 6), np.int32)
    processor = small(processor_class)
    with pytest.raises(ValueError, match=r"segmentation_maps\[1\] is 6x4 but image 1 is 4x6"):
        processor(images, [fine, fine.T])
    with pytest.raises(ValueError, match="1 segmentation maps for 2 images"):
        processor(images, [fine])
    with pytest.raises(ValueError, match=r"segmentation_maps\[1\] must be .* or \(P, H, W\) integers.*\(4, 6, 3\)"):
        processor(images, [fine, random_image(4, 6)])
    with pytest.raises(ValueError, match=r"segmentation_maps\[0\] must be.*float"):
        processor(images, [fine.astype(float), fine])
    with pytest.raises(ValueError, match="1 entries for 2 images"):
        processor(images, [fine, fine], instance_id_to_semantic_id=[{0: 1}])
    with pytest.raises(ValueError, match=r"segmentation_maps\[1\]: value -1 .* at least 0"):
        processor(images, [fine, fine - 1])
    with pytest.raises(ValueError, match=r"segmentation_maps\[1\]: value 255 .* labels are 0 to 3"):
        processor(images, [fine, fine + 255], num_labels=4)


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_exif_turns_the_image_before_the_sizes_are_compared(processor_class, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(4, 8)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        batch = small(processor_class)(image, np.zeros((8, 4), np.uint8))
    assert batch["pixel_mask"][0, :8, :4].all() and batch["pixel_mask"].sum() == 32


@pytest.mark.parametrize("processor_class", MASKFORMER + PER_PIXEL)
def test_settings_survive_saving(processor_class, tmp_path):
    settings = {
        "size": {"shortest_edge": 40, "longest_edge": 90},
        "size_divisor": 0,
        "ignore_index": 255,
        "do_reduce_labels": True,
        "num_labels": 150,
        "resize_masks_first": True,
        "label_ids_to_fuse": [3, 5],
        "image_mean": [0.1, 0.2, 0.3],
        "do_pad": False,
    }
    processor = processor_class(**settings)
    processor.save_pretrained(tmp_path)
    loaded = processor_class.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    for name, value in settings.items():
        saved = getattr(loaded, name)
        assert (list(saved) if isinstance(saved, tuple) else saved) == value
    image = random_image(50, 61)
    for one, other in zip(processor(image)["pixel_values"], loaded(image)["pixel_values"], strict=True):
        assert torch.equal(one, other)
    assert processor_class.from_pretrained(tmp_path, size_divisor=16).size_divisor == 16
    defaults = processor_class()
    defaults.save_pretrained(tmp_path)
    assert processor_class.from_pretrained(tmp_path).to_dict() == defaults.to_dict()
    assert defaults.ignore_index is None and defaults.label_ids_to_fuse is None


def pipeline_answer(processor, outputs, subtask, **kwargs):
    """What transformers' pipeline makes of `outputs`, without a model."""
    model = SimpleNamespace(config=SimpleNamespace(id2label={0: "sky", 1: "cat"}))
    pipeline = SimpleNamespace(image_processor=processor, model=model)
    return ImageSegmentationPipeline.postprocess(pipeline, outputs, subtask=subtask, **kwargs)


@pytest.fixture
def outputs():
    """Sky in the upper half, a cat below on the left, on a canvas that is wider than the image."""
    masks = torch.full((1, 3, 8, 16), -9.0)
    masks[0, 0, :4], masks[0, 1, 4:, :6] = 9.0, 9.0
    pixel_mask = torch.zeros(1, 32, 64, dtype=torch.int64)
    pixel_mask[:, :, :48] = 1
    classes = torch.tensor([[[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]])
    return ModelOutput(
        class_queries_logits=classes, masks_queries_logits=masks, pixel_mask=pixel_mask, target_size=[(64, 96)]
    )


def test_pipeline_reads_all_three_answers(outputs):
    processor = MaskFormerUniversalImageProcessor(label_ids_to_fuse=[0])
    panoptic = pipeline_answer(processor, outputs, "panoptic")
    assert [(x["label"], x["mask"].size) for x in panoptic] == [("sky", (96, 64)), ("cat", (96, 64))]
    assert all(x["score"] > 0.99 for x in panoptic)
    assert pipeline_answer(processor, outputs, None) == panoptic
    [cat] = pipeline_answer(processor, outputs, "instance")
    assert cat["label"] == "cat" and np.asarray(cat["mask"])[60, 20] == 255
    semantic = pipeline_answer(processor, outputs, "semantic")
    assert [x["label"] for x in semantic] == ["sky", "cat"]
    assert np.asarray(semantic[0]["mask"])[10, 50] == 255


@pytest.mark.parametrize("processor_class", PER_PIXEL)
def test_pipeline_picks_semantic_for_per_pixel_models(processor_class):
    logits = torch.zeros(1, 2, 8, 8)
    logits[0, 1, :, 4:] = 5.0
    outputs = ModelOutput(logits=logits, pixel_mask=torch.ones(1, 32, 32), target_size=[(16, 16)])
    answer = pipeline_answer(processor_class(), outputs, None)
    assert [x["label"] for x in answer] == ["sky", "cat"] and [x["score"] for x in answer] == [None, None]


@pytest.mark.parametrize("processor_class", MASKFORMER)
def test_a_mirrored_image_of_one_pixel_in_an_edge_is_an_image(processor_class):
    image = random_image(1, 9)
    batch = small(processor_class, **PLAIN)(images=[image[::-1], image[:, ::-1]], return_tensors="pt")
    np.testing.assert_array_equal(batch["pixel_values"][1].permute(1, 2, 0).numpy(), image[:, ::-1])
