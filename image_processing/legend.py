"""A legend beside a picture: the colour, name, number and share of the area of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MOST_ENTRIES = 24
INK, PAPER = (30, 30, 35), "white"


@dataclass(frozen=True)
class Entry:
    """A class of the picture."""

    name: str
    color: Sequence[float]  # RGB, 0 to 255
    count: int  # segments
    area: int  # pixels


def with_legend(picture: Image.Image, entries: Sequence[Entry], total: int) -> Image.Image:
    """`picture` with a column to its right that lists `entries`, largest first, and their shares of `total` pixels.

    The RGB picture that is returned is higher where the list is; beyond 24 entries the rest is one line.
    """
    if not entries:
        return picture
    entries = sorted(entries, key=lambda entry: -entry.area)
    lines = [_line(entry, total) for entry in entries[:MOST_ENTRIES]]
    if len(entries) > MOST_ENTRIES:
        share = sum(entry.area for entry in entries[MOST_ENTRIES:]) / total
        lines.append((None, f"{len(entries) - MOST_ENTRIES} more", f"{share:.1%}"))

    font = ImageFont.load_default(size=int(np.clip(picture.height / 30, 12, 28)))
    line, gap = int(1.7 * font.size), font.size
    width = 5 * gap + int(sum(max(map(font.getlength, texts)) for texts in list(zip(*lines, strict=True))[1:]))
    sheet = Image.new("RGB", (picture.width + width, max(picture.height, line * len(lines) + gap)), PAPER)
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for row, (color, name, share) in enumerate(lines):
        middle, left = gap // 2 + row * line + line // 2, picture.width + gap
        if color is not None:
            half = font.size // 2
            pen.rectangle((left, middle - half, left + 2 * half, middle + half), fill=color, outline=INK)
        pen.text((left + 2 * gap, middle), name, fill=INK, font=font, anchor="lm")
        pen.text((sheet.width - gap, middle), share, fill=INK, font=font, anchor="rm")
    return sheet


def _line(entry: Entry, total: int) -> tuple[tuple[int, ...], str, str]:
    """Colour, name with the number of segments, and share of the picture."""
    name = " ".join(entry.name.split())  # PIL measures single lines only
    name = name if entry.count == 1 else f"{name} ({entry.count})"
    return tuple(int(round(channel)) for channel in entry.color), name, f"{entry.area / total:.1%}"
