"""Instances in windows against those of whole masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskformer.image_processing.image_prediction import ImagePrediction
from maskformer.image_processing.post_processing import instance_segmentation
from query_outputs import enlarged, query_logits


@pytest.mark.parametrize("output_size", [(60, 75), (133, 180), (31, 40), (7, 200), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_instance_answers_equal_those_of_whole_masks(output_size, seed):
    classes, masks = query_logits(seed, 25, 6, (16, 20))
    p = ImagePrediction(classes, masks, (63, 78), (60, 75), output_size)
    probabilities = enlarged(p)
    inside = probabilities >= 0.6
    mean = (probabilities * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    likeliest, labels = classes.softmax(-1)[:, :-1].max(-1)
    scores = likeliest * mean
    order = [query for query in scores.argsort(descending=True).tolist() if scores[query] > 0.3]
    answer = instance_segmentation(p, 0.3, 0.6, 0.0, form="binary")
    assert torch.equal(answer["segmentation"], inside[order])
    assert [info["label_id"] for info in answer["segments_info"]] == labels[order].tolist()
    np.testing.assert_allclose([info["score"] for info in answer["segments_info"]], scores[order], rtol=1e-5)
