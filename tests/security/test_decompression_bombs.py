"""Images that claim more pixels than memory holds: one clear error, before any of them is there."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import write_panoptic_folder, write_semantic_folder
from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.data.example import BadSample
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.demo.uploads import MOST_PIXELS, read_image
from maskformer.image_processing.image_loading import load_image
from script_runs import run

SIDE = 60_000  # 3.6 billion pixels, or 10.8 GB
BYTES, SECONDS = 50_000_000, 5


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, kind: int = 2) -> bytes:
    """A PNG of this size, whose pixels are few; `kind` 2 is RGB, 0 is gray."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    )


def tiff(width: int, height: int) -> bytes:
    """A TIFF of one strip, which is not there."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg(width: int, height: int) -> bytes:
    """A JPEG that ends after its header."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scan = b"\xff\xda" + struct.pack(">H", 12) + b"\3\1\0\2\0\3\0\0\x3f\0"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + scan + bytes(9)


def webp(width: int, height: int) -> bytes:
    """An extended WebP, the only one that can claim more than 16383 pixels a side."""
    canvas = struct.pack("<I", 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int) -> bytes:
    """A BMP that ends after its header."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def gif(width: int, height: int) -> bytes:
    """A GIF whose only frame is larger than its screen."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x44\1\0\x3b"
    return b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6) + frame


HIDDEN = zlib.compress(bytes(200_000_000), 9)
BOMBS = {
    "PNG": png(SIDE, SIDE),
    "gray PNG": png(SIDE, SIDE, kind=0),
    "wide PNG": png(2**31 - 1, 1),
    "JPEG": jpeg(SIDE, SIDE),
    "TIFF": tiff(SIDE, SIDE),
    "GIF": gif(SIDE, SIDE),
    "WebP": webp(SIDE, SIDE),
    "BMP": bmp(SIDE, SIDE),
    "text in a PNG": png(SIDE, SIDE, chunk(b"zTXt", b"a\0\0" + HIDDEN)),
    "text in a small PNG": png(1, 3, chunk(b"zTXt", b"a\0\0" + HIDDEN)),
    "profile in a small PNG": png(1, 30, chunk(b"iCCP", b"a\0\0" + HIDDEN)),
}


class Bounded:
    """The block takes neither much memory nor time."""

    def __enter__(self):
        self.began, self.before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __exit__(self, *error):
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before)
        assert grown < BYTES and time.monotonic() - self.began < SECONDS


@pytest.mark.parametrize("name", BOMBS)
def test_images_of_datasets_and_of_visitors(tmp_path, name):
    path = tmp_path / "photo.png"
    path.write_bytes(BOMBS[name])
    with Bounded(), pytest.raises(ValueError, match="photo.png: not a readable image") as caught:
        load_image(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(path))
    words = "the image has|the image is damaged|no image that can be read"
    with Bounded(), pytest.raises(ValueError, match=words) as caught:
        read_image(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("make", [png, jpeg, tiff, gif, bmp])
def test_visitors_are_told_the_limit(tmp_path, make):
    side = int(MOST_PIXELS**0.5) + 1  # fewer than what PIL refuses by itself
    (tmp_path / "a").write_bytes(make(side, side))
    with Bounded(), pytest.raises(ValueError, match="more than 50 million; use a smaller one"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize("what", ["images", "panoptic"])
def test_panoptic_datasets(tmp_path, what):
    folder = write_panoptic_folder(tmp_path, count=1)
    (folder / what / "0.png").write_bytes(BOMBS["PNG"])
    with Bounded(), pytest.raises(BadSample, match=rf"{what}/0.png: not a readable .*exceeds limit"):
        load_panoptic_folder(folder)[0]


@pytest.mark.parametrize(("file", "name"), [("images/0.jpg", "JPEG"), ("labels/0.png", "gray PNG")])
def test_semantic_datasets(tmp_path, file, name):
    folder = write_semantic_folder(tmp_path)
    (folder / file).write_bytes(BOMBS[name])
    with Bounded(), pytest.raises(BadSample, match=f"{file}: not a readable .*exceeds limit"):
        load_semantic_folder(folder)[0]


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """The folder of a model."""
    with_segments(tiny_model()).save_pretrained(tmp_path / "model")
    processor = MaskFormerUniversalImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64})
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
def test_the_prediction_script_names_bombs_and_answers_the_rest(model, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name, content in BOMBS.items():
        (images / f"{name}.png").write_bytes(content)
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(images / "good.png")
    words = ("predict", images, "--model", model, "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        run(*words)
    said = capsys.readouterr()
    assert stop.value.code == 0 and f"1 answers in {tmp_path / 'out'}, {len(BOMBS)} images skipped" in said.out
    assert all(said.err.count(f"skipped: {images / f'{name}.png'}: not a readable image") == 1 for name in BOMBS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.png", "good.json"}
    with pytest.raises(SystemExit) as stop:
        run(*words, "--overwrite", "--on_bad_sample", "raise")
    assert str(stop.value.code).startswith(f"error: {images}") and "Traceback" not in capsys.readouterr().err
