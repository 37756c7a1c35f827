"""Answers by tiles against those of whole masks; the semantic ones are in test_post_processing.py."""

from __future__ import annotations

import pytest
import torch

from maskformer.image_processing import tiles
from maskformer.image_processing.image_prediction import ImagePrediction
from maskformer.image_processing.post_processing import panoptic_segmentation
from query_outputs import enlarged, query_logits


@pytest.mark.parametrize("output_size", [(60, 75), (133, 180), (31, 40), (7, 200), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_panoptic_answers_equal_those_of_whole_masks(output_size, seed):
    classes, masks = query_logits(seed, 25, 6, (16, 20))
    p = ImagePrediction(classes, masks, (63, 78), (60, 75), output_size)
    scores, labels = classes.softmax(-1).max(-1)
    kept = (labels != 6) & (scores > 0.4)
    probabilities = enlarged(p)[kept]
    winner = (probabilities * scores[kept, None, None]).argmax(0)
    expected, number = torch.zeros(output_size, dtype=torch.int32), 0
    for query in range(int(kept.sum())):
        won, claimed = (winner == query).sum(), (probabilities[query] >= 0.6).sum()
        if won > 0 and claimed > 0 and won / claimed >= 0.7:
            number += 1
            expected[winner == query] = number
    answer = panoptic_segmentation(p, 0.4, 0.6, 0.7, set())
    assert torch.equal(answer["segmentation"], expected)
    assert len(answer["segments_info"]) == number and (number > 1 or min(output_size) < 10)


def test_a_segment_of_more_pixels_than_float32_counts():
    pixels, claims = torch.full((3,), 2**23 + 1), torch.ones(3, 1, dtype=torch.bool)
    assert tiles.count(pixels, claims).tolist() == [3 * (2**23 + 1)]
