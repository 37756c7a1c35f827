"""Images of any mode become RGB, and damaged files are named."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from maskformer.image_processing.image_loading import load_image, to_rgb

RGB = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
GRAY = RGB[..., 0]


def stacked(gray) -> np.ndarray:
    return np.repeat(np.asarray(gray)[..., None], 3, axis=-1)


def test_modes_of_pil():
    image = Image.fromarray(RGB)
    assert np.array_equal(to_rgb(image), RGB)
    assert np.array_equal(to_rgb(Image.fromarray(GRAY)), stacked(GRAY))
    for alpha in (0, 100, 255):  # alpha is dropped, whatever it hides
        rgba = image.copy()
        rgba.putalpha(alpha)
        assert np.array_equal(to_rgb(rgba), RGB)
        assert np.array_equal(to_rgb(Image.fromarray(GRAY).convert("LA")), stacked(GRAY))
    one_bit = Image.fromarray(GRAY > 127)
    assert one_bit.mode == "1" and np.array_equal(to_rgb(one_bit), stacked(255 * (GRAY > 127)))
    assert to_rgb(image.convert("CMYK")).shape == (5, 7, 3)


@pytest.mark.filterwarnings("error")
def test_palettes_are_looked_up_with_and_without_transparency():
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    colors = [[10, 20, 30], [200, 0, 0], [0, 0, 250]]
    palette.putpalette(sum(colors, []))
    expected = np.array([[colors[0], colors[1]], [colors[2], colors[1]]])
    assert np.array_equal(to_rgb(palette), expected)
    palette.info["transparency"] = bytes([0, 128, 255])
    assert np.array_equal(to_rgb(palette), expected)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 257], [300, 32896, 65535]], np.uint16)
    expected = np.round(values / 257).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "sixteen.png")
    assert np.array_equal(load_image(tmp_path / "sixteen.png"), stacked(expected))
    assert np.array_equal(to_rgb(Image.fromarray(values.astype(np.int32))), stacked(expected))  # mode I
    assert np.array_equal(to_rgb(values), stacked(expected))
    assert np.array_equal(to_rgb(np.full((2, 2), 200, np.uint16)), np.full((2, 2, 3), 1))  # dark, yet 16 bits
    assert np.array_equal(to_rgb(np.full((2, 2), 200, np.int64)), np.full((2, 2, 3), 200))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    turned = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2)}
    turned |= {6: np.rot90(RGB, -1), 7: np.rot90(RGB.transpose(1, 0, 2), 2), 8: np.rot90(RGB)}
    assert np.array_equal(load_image(tmp_path / "turned.png"), turned[orientation])


def test_arrays_and_tensors_of_any_layout():
    assert np.array_equal(to_rgb(RGB), RGB)
    assert np.array_equal(to_rgb(RGB.transpose(2, 0, 1)), RGB)
    assert np.array_equal(to_rgb(torch.from_numpy(RGB).permute(2, 0, 1)), RGB)
    assert np.array_equal(to_rgb(torch.from_numpy(RGB)), RGB)
    assert np.array_equal(to_rgb(GRAY), stacked(GRAY))
    assert np.array_equal(to_rgb(GRAY[None]), stacked(GRAY))
    assert np.array_equal(to_rgb(GRAY[..., None]), stacked(GRAY))
    assert np.array_equal(to_rgb(np.dstack([GRAY, GRAY // 2])), stacked(GRAY))
    assert np.array_equal(to_rgb(np.dstack([RGB, GRAY])), RGB)
    assert np.array_equal(to_rgb(GRAY > 127), stacked(255 * (GRAY > 127)))


def test_ambiguous_layouts_follow_the_kind_unless_told():
    row = RGB[:1]  # (1, 7, 3): one row of RGB, or one gray channel
    assert to_rgb(row).shape == (1, 7, 3)
    assert to_rgb(torch.from_numpy(row)).shape == (7, 3, 3)
    assert to_rgb(row, channels_first=True).shape == (7, 3, 3)
    assert to_rgb(torch.from_numpy(row), channels_first=False).shape == (1, 7, 3)


def test_floats_keep_their_values():
    values = RGB / 255
    assert to_rgb(values).dtype == np.float32
    np.testing.assert_allclose(to_rgb(values), values, rtol=1e-6)
    assert to_rgb(torch.from_numpy(values).bfloat16()).dtype == np.float32


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.zeros((2, 5, 5, 3), np.uint8), ValueError, r"\(2, 5, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"\(0, 5, 3\)"),
        (np.zeros((6, 7, 9), np.uint8), ValueError, "1 to 4 channels, not 9"),
        (np.full((2, 2), -1), ValueError, "-1 to -1"),
        (np.full((2, 2), 70000), ValueError, "70000"),
        (np.zeros((2, 2), complex), ValueError, "complex"),
        ("image.png", TypeError, "not str"),
    ],
)
def test_what_is_no_image_is_refused(image, kind, message):
    with pytest.raises(kind, match=message):
        to_rgb(image)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.jpg: there is no such"):
        load_image(tmp_path / "absent.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg: not a readable image"):
        load_image(tmp_path / "text.jpg")
    for name in ("half.png", "half.jpg"):
        Image.fromarray(np.random.RandomState(1).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=f"{name}: not a readable image"):
            load_image(tmp_path / name)


def test_floats_of_0_to_1_in_a_file_are_refused_since_they_would_be_black(tmp_path):
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="a.tiff: .*0 to 1 and would become black"):
        load_image(tmp_path / "a.tiff")


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """PIL runs Ghostscript for EPS, whatever the file is called."""
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not a readable image"):
        load_image(tmp_path / "a.png")
