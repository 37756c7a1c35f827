"""The checks that transformers runs on all of its image processors, written for these.

By the names they have there: to_json_string, to_json_file, save and load from a folder, initialisation without
arguments, both backends from one folder, equivalence of the backends, calls with PIL images, arrays, tensors, paths and
four channels, arguments at load and at the call, casting of a batch, and the signature.
"""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available

import maskformer

KINDS = ("MaskFormerUniversal", "PerPixelBaseline")
NAMES = [f"{kind}ImageProcessor{backend}" for kind in KINDS for backend in ("", "Pil")]
SETTINGS = {"size": {"shortest_edge": 48, "longest_edge": 80}, "size_divisor": 16, "ignore_index": 255}


@pytest.fixture(params=NAMES)
def processor_class(request):
    return getattr(maskformer, request.param)


def image(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 255, (height, width, channels), dtype=np.uint8)


def assert_same_settings(one, other) -> None:
    for name, value in SETTINGS.items():
        found = getattr(other, name)
        assert (dict(found) if name == "size" else found) == value == json.loads(one.to_json_string())[name]


def test_json(processor_class, tmp_path):
    processor = processor_class(**SETTINGS)
    processor.to_json_file(tmp_path / "settings.json")
    assert_same_settings(processor, processor_class.from_json_file(tmp_path / "settings.json"))
    assert_same_settings(processor, processor_class.from_dict(processor.to_dict()))


def test_save_and_load(processor_class, tmp_path):
    processor = processor_class(**SETTINGS)
    processor.save_pretrained(tmp_path)
    loaded = processor_class.from_pretrained(tmp_path)
    assert_same_settings(processor, loaded)
    values = [p(image(), return_tensors="pt")["pixel_values"] for p in (processor, loaded)]
    assert torch.equal(*values)
    loaded.save_pretrained(tmp_path / "again")
    files = [json.loads((folder / "preprocessor_config.json").read_text()) for folder in (tmp_path, tmp_path / "again")]
    assert files[0] == files[1]


def test_both_backends_from_one_folder(processor_class, tmp_path):
    processor = processor_class(**SETTINGS)
    processor.save_pretrained(tmp_path)
    name = processor_class.__name__.removesuffix("Pil")
    assert is_torchvision_available()
    for backend, suffix in ((None, ""), ("torchvision", ""), ("pil", "Pil")):
        loaded = AutoImageProcessor.from_pretrained(tmp_path, **({"backend": backend} if backend else {}))
        assert type(loaded).__name__ == name + suffix
        assert_same_settings(processor, loaded)


@pytest.mark.parametrize("kind", KINDS)
def test_backends_are_equivalent(kind):
    one, other = (
        getattr(maskformer, f"{kind}ImageProcessor{suffix}")(**SETTINGS)(image(), return_tensors="pt")
        for suffix in ("", "Pil")
    )
    assert one["pixel_values"].shape == other["pixel_values"].shape
    assert (one["pixel_values"] - other["pixel_values"]).abs().mean() < 5e-3
    assert torch.equal(one["pixel_mask"], other["pixel_mask"])


def test_without_arguments(processor_class):
    batch = processor_class()(image(), return_tensors="pt")
    assert list(batch) == ["pixel_values", "pixel_mask"] == processor_class().model_input_names
    assert batch["pixel_values"].dtype == torch.float32


def test_kinds_of_images_give_the_same(processor_class, tmp_path):
    processor = processor_class(**SETTINGS)
    array = image()
    Image.fromarray(array).save(tmp_path / "image.png")
    kinds = [
        array,
        Image.fromarray(array),
        torch.from_numpy(array).permute(2, 0, 1),
        str(tmp_path / "image.png"),
        Image.fromarray(np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])),
    ]
    first = processor(array, return_tensors="pt")["pixel_values"]
    assert first.shape == (1, 3, 48, 80)  # 48 x 72, padded
    for kind in kinds:
        assert torch.equal(processor(kind, return_tensors="pt")["pixel_values"], first)
    assert processor([array, array], return_tensors="pt")["pixel_values"].shape == (2, 3, 48, 80)
    assert isinstance(processor(array, return_tensors="np")["pixel_values"], np.ndarray)


def test_arguments_at_load_and_at_the_call(processor_class, tmp_path):
    processor_class(**SETTINGS).save_pretrained(tmp_path)
    loaded = processor_class.from_pretrained(
        tmp_path, size={"shortest_edge": 32, "longest_edge": 64}, do_normalize=False
    )
    assert loaded.do_normalize is False and dict(loaded.size)["shortest_edge"] == 32
    values = loaded(image(), return_tensors="pt")["pixel_values"]
    assert values.shape[-2:] == (32, 48) and 0 <= values.min() and values.max() <= 1
    assert loaded(image(), size_divisor=64, return_tensors="pt")["pixel_values"].shape[-2:] == (64, 64)
    assert loaded.size_divisor == 16


def test_a_batch_is_cast(processor_class):
    batch = processor_class(**SETTINGS)(image(), return_tensors="pt").to("cpu", torch.bfloat16)
    assert batch["pixel_values"].dtype == torch.bfloat16


def test_signature(processor_class):
    assert list(inspect.signature(processor_class.preprocess).parameters)[:3] == ["self", "images", "segmentation_maps"]
