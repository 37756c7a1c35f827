"""Pictures of answers, for images of any shape and labels of any name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evaluations import LABELS, make_processor, make_source
from helpers import with_segments
from maskformer.evaluation.answers import readable_examples
from maskformer.recipes.arguments import EvaluationArguments
from maskformer.training.pictures import draw_examples

SHAPES = [(1, 1), (1, 3000), (3000, 1), (40, 56)]


@pytest.mark.parametrize("sizes", [SHAPES, SHAPES[:1], SHAPES[1:2], SHAPES[2:3]])
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_a_sheet_has_a_bounded_size_whatever_the_images(tiny_model, tmp_path, monkeypatch, sizes, task):
    """Nor does any picture on the way to it: a column of pixels, as wide as its neighbour, has 400,000 rows."""
    largest, make, resize = [], Image.new, Image.Image.resize

    def noted_new(mode, size, *arguments, **options):
        largest.append(size[0] * size[1])
        return make(mode, size, *arguments, **options)

    def noted_resize(self, size, *arguments, **options):
        largest.append(size[0] * size[1])
        return resize(self, size, *arguments, **options)

    monkeypatch.setattr(Image, "new", noted_new)
    monkeypatch.setattr(Image.Image, "resize", noted_resize)
    source, path = make_source(sizes), tmp_path / "sheet.png"
    examples = readable_examples(source, range(len(sizes)), skip_bad=False)
    arguments = EvaluationArguments(task=task)
    captions = [f"image {index}" for index in range(len(sizes))]
    draw_examples(with_segments(tiny_model()), make_processor(), examples, LABELS, arguments, path, captions)
    width, height = Image.open(path).size
    assert 700 < width < 2200 and height < 2000 * len(sizes)
    assert max(largest) <= 2200 * 2000 * len(sizes)


def test_a_narrow_image_stands_in_the_middle_of_its_tile(tmp_path):
    from maskformer.image_processing.visualization import side_by_side

    narrow, wide = (np.full((*size, 3), 100, np.uint8) for size in ((900, 9), (20, 300)))
    sheet = np.asarray(side_by_side([narrow, wide], ["narrow", "wide"]))[..., 0]
    rows = np.flatnonzero((sheet == 100).any(axis=1))
    assert len(rows) == 900  # three times the width of the widest
    middle = np.flatnonzero(sheet[rows[-1]] == 100)
    assert len(middle) == 9 and abs(middle.mean() - (300 / 2 + 7)) < 2
