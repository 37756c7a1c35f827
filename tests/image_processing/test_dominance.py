"""Answers by whom is ahead around a tile against those of whole masks."""

from __future__ import annotations

import pytest
import torch

from maskformer.image_processing import dominance
from maskformer.image_processing.image_prediction import ImagePrediction
from maskformer.image_processing.post_processing import panoptic_segmentation, semantic_segmentation
from query_outputs import enlarged, query_logits


def whole_answer(p: ImagePrediction, threshold: float, mask_threshold: float, overlap: float) -> tuple:
    """The map and its number of segments, as the official code finds them, from masks of full size."""
    scores, labels = p.class_logits.softmax(-1).max(-1)
    kept = (labels != p.class_logits.shape[1] - 1) & (scores > threshold)
    probabilities = enlarged(p)[kept]
    winner = (probabilities * scores[kept, None, None]).argmax(0)
    expected, number = torch.zeros(p.output_size, dtype=torch.int32), 0
    for query in range(int(kept.sum())):
        won, claimed = (winner == query).sum(), (probabilities[query] >= mask_threshold).sum()
        if won > 0 and claimed > 0 and won / claimed >= overlap:
            number += 1
            expected[winner == query] = number
    return expected, number


@pytest.mark.parametrize("output_size", [(60, 75), (133, 180), (31, 40), (7, 200), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_panoptic_answers_equal_those_of_whole_masks(output_size, seed):
    classes, masks = query_logits(seed, 25, 6, (16, 20))
    p = ImagePrediction(classes, masks, (63, 78), (60, 75), output_size)
    expected, number = whole_answer(p, 0.4, 0.6, 0.7)
    answer = panoptic_segmentation(p, 0.4, 0.6, 0.7, set())
    assert torch.equal(answer["segmentation"], expected)
    assert len(answer["segments_info"]) == number and (number > 1 or min(output_size) < 10)


@pytest.mark.parametrize("queries", [2, 24, 25, 70])
@pytest.mark.parametrize("steepness", [0.3, 1, 40])
def test_smooth_masks_of_queries_that_differ_in_confidence(queries, steepness):
    draw = torch.Generator().manual_seed(queries)
    coarse = torch.randn(1, queries, 5, 6, generator=draw) * steepness  # from shallow to saturated
    masks = torch.nn.functional.interpolate(coarse, size=(40, 48), mode="bicubic")[0]
    classes = torch.zeros(queries, 5)
    classes[:, 0] = torch.empty(queries).uniform_(-1, 6, generator=draw)
    p = ImagePrediction(classes, masks, (160, 192), (160, 180), (100, 130))
    expected, number = whole_answer(p, 0.1, 0.5, 0.2)
    answer = panoptic_segmentation(p, 0.1, 0.5, 0.2, set())
    # Where two queries are equal to the last bits, which one is ahead is a matter of rounding.
    assert (answer["segmentation"] != expected).float().mean() < 1e-3
    assert len(answer["segments_info"]) == number >= 1


@pytest.mark.parametrize("few", [-1, 1 / 4, 2])
@pytest.mark.parametrize("overlap", [0.0, 0.4])
@pytest.mark.parametrize("queries", [9, 30])
def test_places_that_one_mask_alone_claims(few, overlap, queries, monkeypatch):
    monkeypatch.setattr(dominance, "FEW", few)  # never by claims alone, as it suits, always
    draw = torch.Generator().manual_seed(queries)
    near = torch.rand(queries, 2, generator=draw) * torch.tensor([40, 48])
    places = torch.cartesian_prod(torch.arange(40.0), torch.arange(48.0)).view(1, 40, 48, 2)
    distance = (places - near[:, None, None]).norm(dim=-1)  # (N, h, w)
    first, second = distance.sort(0).values[:2]
    masks = (torch.where(distance == first, second, first) - distance).clamp(-8, 8) + overlap * 3
    classes = torch.zeros(queries, 5)
    classes[:, 0] = torch.empty(queries).uniform_(0, 6, generator=draw)
    p = ImagePrediction(classes, masks, (160, 192), (160, 180), (100, 130))
    expected, number = whole_answer(p, 0.1, 0.5, 0.6)
    answer = panoptic_segmentation(p, 0.1, 0.5, 0.6, set())
    assert (answer["segmentation"] != expected).float().mean() < 1e-3
    assert len(answer["segments_info"]) == number > 3


def test_of_equal_masks_that_claim_the_same_the_second_is_hidden():
    masks = torch.full((2, 8, 8), 30.0)
    masks[0, :, 5:] = -30.0
    classes = torch.tensor([[40.0, 0, 0], [40.0, 0, 0]])
    p = ImagePrediction(classes, masks, (32, 32), (32, 32), (32, 32))
    for overlap, segments in ((0.3, 2), (0.5, 1)):  # the second has the right 12 of 32 columns that it claims
        answer = panoptic_segmentation(p, 0.5, 0.5, overlap, set())
        assert torch.equal(answer["segmentation"], whole_answer(p, 0.5, 0.5, overlap)[0])
        assert len(answer["segments_info"]) == segments


def test_what_is_just_at_the_threshold_is_claimed():
    p = ImagePrediction(torch.tensor([[40.0, 0, 0]]), torch.zeros(1, 8, 8), (32, 32), (32, 32), (32, 32))
    assert panoptic_segmentation(p, 0.5, 0.5, 0.8, set())["segmentation"].eq(1).all()


def test_more_queries_than_half_precision_counts():
    masks = torch.full((700, 8, 8), -9.0)
    masks[690, :, :4], masks[693, :, 4:] = 9.0, 9.0
    classes = torch.tensor([[40.0, 0, 0]]).expand(700, -1)
    p = ImagePrediction(classes, masks, (32, 32), (32, 32), (32, 32))
    expected = panoptic_segmentation(p, 0.5, 0.5, 0.8, set())
    assert expected["segmentation"].unique().tolist() == [1, 2]
    torch.set_default_dtype(torch.bfloat16)
    try:
        answer = panoptic_segmentation(p, 0.5, 0.5, 0.8, set())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(answer["segmentation"], expected["segmentation"])


def test_of_equal_queries_the_first_is_ahead():
    masks = torch.full((3, 8, 8), 30.0)
    masks[:, :, 4:] = -30.0
    classes = torch.tensor([[4.0, 0, 0], [4.0, 0, 0], [4.0, 0, 0]])
    p = ImagePrediction(classes, masks, (32, 32), (32, 32), (32, 32))
    answer = panoptic_segmentation(p, 0.5, 0.5, 0.8, set())
    assert answer["segmentation"].unique().tolist() == [1]
    masks[1] += 3  # more than the first, which a probability of 1 does not tell
    assert panoptic_segmentation(p, 0.5, 0.5, 0.8, set())["segmentation"][:, :10].unique().tolist() == [1]


def test_equal_masks_that_are_one_lower_at_one_place():
    masks = torch.full((2, 8, 8), 2.0)
    masks[0, 3, 3] = 1.0
    classes = torch.tensor([[40.0, 0, 0], [0, 40.0, 0]])
    p = ImagePrediction(classes, masks, (32, 32), (32, 32), (32, 32))
    answer = panoptic_segmentation(p, 0.5, 0.5, 0.0, set())
    assert torch.equal(answer["segmentation"], whole_answer(p, 0.5, 0.5, 0.0)[0])
    assert (answer["segmentation"] == 2).sum() == 64  # the pixels that take from that place
    p = ImagePrediction(None, masks, (32, 32), (32, 32), (32, 32))
    assert semantic_segmentation(p, False).sum() == 64


@pytest.mark.parametrize("output_size", [(64, 80), (150, 101), (20, 25)])
def test_labels_of_a_per_pixel_model(output_size):
    logits = torch.randn(30, 16, 20, generator=torch.Generator().manual_seed(0))
    p = ImagePrediction(None, logits, (64, 80), (64, 80), output_size)
    whole = torch.nn.functional.interpolate(logits[None], size=(64, 80), mode="bilinear")
    whole = torch.nn.functional.interpolate(whole, size=output_size, mode="bilinear")[0]
    assert torch.equal(semantic_segmentation(p, False), whole.argmax(0))


@pytest.mark.parametrize("length", [1, 24, 25, 50])
def test_flags_are_counted_and_found_through_their_bits(length):
    flags = torch.rand(length, 6, 7, generator=torch.Generator().manual_seed(length)) < 0.2
    flags[-1, 0, 0] = True
    words = dominance.packed(flags.float()).int()
    areas = torch.arange(42, dtype=torch.float64)
    expected = (flags.flatten(1).double() * areas).sum(1)
    assert torch.equal(dominance.counted(words.flatten(1), length, areas), expected)
    some = flags.any(0)
    assert torch.equal(dominance.first(words)[some], flags.int().argmax(0)[some])
    alone = dominance.only_first(words.float())
    expected = (flags & (flags.cumsum(0) == 1)).float()
    assert torch.equal(alone, dominance.packed(expected))


def test_a_segment_of_more_pixels_than_float32_counts():
    words = dominance.packed(torch.ones(1, 1, 3)).int()
    areas = torch.full((3,), 2.0**23 + 1, dtype=torch.float64)
    assert dominance.counted(words.flatten(1), 1, areas).tolist() == [3 * (2**23 + 1)]
