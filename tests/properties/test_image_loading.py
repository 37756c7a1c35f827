"""Images of any mode, turn, type and layout beside their pixels, which are known."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from drawn_images import MODES, any_strides, gray, pil_image, sizes
from maskformer.image_processing.image_loading import load_image, to_rgb
from property_settings import FEW, holds_for, run, seeds

IN_PNG = ("L", "RGB", "RGBA", "LA", "P", "P transparent", "1", "I;16")
# What brings pixels upright, by EXIF's number.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@holds_for(many=1000, seed=seeds, size=sizes, mode=st.sampled_from(MODES))
def test_pil_images_of_any_mode_become_rgb(seed, size, mode):
    image, expected = pil_image(np.random.default_rng(seed), size, mode)
    found = to_rgb(image)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def as_file(image: Image.Image, turn: int, file_format: str = "PNG") -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    image.save(buffer, file_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("examples", [FEW, pytest.param(1000, marks=pytest.mark.slow)])
def test_files_are_turned_upright(examples, tmp_path):
    """By each of EXIF's eight orientations, and by none where the number means nothing."""
    path = tmp_path / "image.png"

    def check(seed, size, mode, turn):
        image, expected = pil_image(np.random.default_rng(seed), size, mode)
        path.write_bytes(as_file(image, turn))
        assert np.array_equal(load_image(path), UPRIGHT.get(turn, UPRIGHT[1])(expected))

    run(check, examples, seed=seeds, size=sizes, mode=st.sampled_from(IN_PNG), turn=st.integers(0, 9))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what is damaged
@pytest.mark.parametrize("examples", [FEW, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_images_or_one_error(examples, tmp_path):
    path = tmp_path / "image"

    def check(seed, file_format, changes):
        draw = np.random.default_rng(seed)
        content = bytearray(as_file(pil_image(draw, (5, 7), "RGB")[0], 6, file_format))
        for _ in range(changes):
            content[draw.integers(len(content))] = draw.integers(256)
        path.write_bytes(content[: draw.integers(1, len(content) + 1)] if draw.random() < 0.3 else content)
        try:
            image = load_image(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: not a readable image")
            return
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3

    formats = st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"])
    run(check, examples, seed=seeds, file_format=formats, changes=st.integers(1, 4))


@holds_for(
    many=1000,
    seed=seeds,
    size=sizes,
    channels=st.integers(0, 4),
    kind=st.sampled_from(["u1", "i8", "i4", "?", "u2", "<f4", "f2", "wide", ">u2"]),
    first=st.booleans(),
    tensor=st.booleans(),
    told=st.booleans(),
)
def test_arrays_of_any_layout_become_rgb(seed, size, channels, kind, first, tensor, told):
    """Where nobody says which axis has the channels, it is a short first one in tensors, a short last one in arrays."""
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 256, (*size, max(1, channels)))
    expected, array = values, values.astype("i8" if kind == "wide" else kind)
    if kind in ("u2", ">u2", "wide"):
        wide = draw.integers(0, 65536, values.shape)
        wide.flat[0] = 65535
        array, expected = wide.astype("i8" if kind == "wide" else kind), np.round(wide / 257)
    elif kind == "?":
        expected = np.where(values > 0, 255, 0)
    expected = expected if channels >= 3 else gray(expected[..., 0])
    array = array[..., 0] if channels == 0 else array.transpose(2, 0, 1) if first else array
    if tensor and kind != ">u2":
        array = torch.from_numpy(np.ascontiguousarray(array))
        array = array.permute(*range(array.ndim)[::-1]).contiguous().permute(*range(array.ndim)[::-1])
    else:
        tensor, array = False, any_strides(draw, array)
    shape = tuple(array.shape)
    if channels and not told:
        guess = shape[0] <= 4 and (tensor or shape[-1] > 4)
        if guess != first and shape[0 if guess else -1] > 4:
            with pytest.raises(ValueError, match="1 to 4 channels"):
                to_rgb(array)
            return
        if guess != first:
            return  # another image, which nobody can tell from this one
    found = to_rgb(array, first if told else None)
    assert found.dtype == (np.float32 if kind in ("<f4", "f2") else np.uint8)
    assert np.array_equal(found, expected[..., :3])
