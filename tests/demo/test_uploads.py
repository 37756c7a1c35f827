"""Images from strangers, and examples."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from maskformer.demo import uploads
from maskformer.demo.examples import folder_examples, generated_examples
from maskformer.demo.uploads import read_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = struct.pack(">I", 100) + b"IDAT" + zlib.compress(b"none")
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + pixels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "no image that can be read"),
        ("a.jpg", b"<svg onload='alert(1)'/>", "no image that can be read"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image that can be read"),
        ("a.png", png_header(8000, 7000), "8000 x 7000 pixels, more than 50 million"),
        ("a.png", png_header(60000, 60000), "more than 50 million"),
        ("a.png", png_header(20, 20), "is damaged"),
    ],
    ids=["empty", "svg", "eps", "many pixels", "a bomb", "truncated"],
)
def test_what_is_no_image_is_refused_without_the_servers_path(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_truncated_image_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3)).astype(np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(ValueError, match="is damaged"):
        read_image(tmp_path / "b.jpg")


def test_images_are_upright(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = read_image(tmp_path / "a.png")
    assert read.shape == (20, 10, 3) and read[:10].max() == 0 and read[10:].min() == 255


def test_large_images_are_shrunk_and_small_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LONGEST_EDGE", 100)
    for size, expected in (((400, 200), (50, 100, 3)), ((100, 30), (30, 100, 3)), ((9000, 2), (1, 100, 3))):
        Image.new("RGB", size).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").shape == expected


def test_examples_are_scenes_or_copies_of_a_folders_images(tmp_path):
    scenes, source, copies = tmp_path / "scenes", tmp_path / "source", tmp_path / "copies"
    for folder in (scenes, source, copies):
        folder.mkdir()
    assert [read_image(path).shape for path in generated_examples(scenes, count=2)] == [(256, 256, 3)] * 2
    with pytest.raises(ValueError, match="holds no image"):
        folder_examples(source, copies)
    Image.new("L", (9, 7), 77).save(source / "b.tif")
    Image.new("RGB", (5, 4)).save(source / "a.jpg")
    (source / "notes.txt").write_text("not an image")
    found = folder_examples(source, copies)
    assert [path.name for path in found] == ["0_a.png", "1_b.png"] and {path.parent for path in found} == {copies}
    (source / "c.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="c.png: the file is no image"):
        folder_examples(source, copies)
    with pytest.raises(ValueError, match="no such folder"):
        folder_examples(tmp_path / "nowhere", copies)
