"""The legend beside a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maskformer.image_processing.legend import MOST_ENTRIES, Entry, with_legend

PICTURE = Image.new("RGB", (60, 40), (1, 2, 3))


def test_the_picture_stays_and_colours_stand_beside_it_largest_first():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    entries = [Entry(name, color, 1, area) for name, color, area in zip("abc", colors, (5, 500, 50), strict=True)]
    sheet = np.asarray(with_legend(PICTURE, entries, 2400))
    assert np.array_equal(sheet[:40, :60], np.asarray(PICTURE))
    rows = [int(np.argwhere((sheet == color).all(-1))[:, 0].mean()) for color in colors]
    assert rows[1] < rows[2] < rows[0]


@pytest.mark.parametrize("count", [0, 1, MOST_ENTRIES, MOST_ENTRIES + 30])
def test_any_number_of_classes(count):
    entries = [Entry(f"a rather long name of class {i}", (i, i, i), i + 1, i) for i in range(count)]
    sheet = with_legend(PICTURE, entries, 2400)
    assert (sheet.width > 60) == (count > 0) and sheet.height >= 40
    assert sheet.height < 2 * with_legend(PICTURE, entries[:MOST_ENTRIES], 2400).height
