"""Pairs of panoptic maps to measure."""

from __future__ import annotations

import numpy as np

NUM_SEGMENTS = 14  # ids 0 (void) to 13
FIRST_STUFF = 6  # categories 0 to 5 are things, 6 to 9 stuff

CATEGORIES = [{"id": i, "name": f"category {i}", "isthing": int(i < FIRST_STUFF)} for i in range(10)]


def panoptic_pair(index: int, height: int = 96, width: int = 128) -> tuple[dict, dict]:
    """Reference and prediction number `index` of the pairs that panopticapi's figures in the fixture are of.

    The reference is 6 x 8 blocks of random segments. The prediction is the reference shifted by up to 4 pixels, every
    id greater by 100, without segments 11 to 13 in its right half, a fifth of its categories drawn anew. Things of the
    reference whose id 5 divides are crowds. The order of the draws is part of the rule (NumPy keeps legacy streams).
    """
    draw = np.random.RandomState(3000 + index)
    coarse = draw.randint(0, NUM_SEGMENTS, (6, 8)).astype(np.int64)
    true = coarse.repeat(height // 6, axis=0).repeat(width // 8, axis=1)  # (H, W)
    down, right = int(draw.randint(0, 5)), int(draw.randint(0, 5))
    predicted = np.roll(true, (down, right), axis=(0, 1))
    predicted[:, width // 2 :][predicted[:, width // 2 :] > 10] = 0

    categories = draw.randint(0, 10, NUM_SEGMENTS)
    keeps = draw.random_sample(NUM_SEGMENTS) < 0.8
    guesses = np.where(keeps, categories, draw.randint(0, 10, NUM_SEGMENTS))

    reference = [
        {"id": i, "label_id": int(categories[i]), "iscrowd": int(i % 5 == 0 and categories[i] < FIRST_STUFF)}
        for i in segments_in(true)
    ]
    prediction = [{"id": i + 100, "label_id": int(guesses[i])} for i in segments_in(predicted)]
    predicted[predicted > 0] += 100
    return (
        {"segmentation": true, "segments_info": reference},
        {"segmentation": predicted, "segments_info": prediction},
    )


def random_pair(seed: int, categories: list[int], height: int = 24, width: int = 32) -> tuple[dict, dict]:
    """A reference and a prediction made of random rectangles: void, crowds, wrong categories, large ids, empty maps."""
    draw = np.random.default_rng(seed)

    def rectangles(base: np.ndarray | None, count: int) -> np.ndarray:
        canvas = np.zeros((height, width), np.int64) if base is None else base.copy()
        for i in range(1, count + 1):
            top, left = draw.integers(0, height), draw.integers(0, width)
            # Half the rectangles wipe segments out to void.
            value = 0 if base is not None and i % 2 else i
            canvas[top : top + draw.integers(1, height), left : left + draw.integers(1, width)] = value
        return canvas

    def described(canvas: np.ndarray, labels: np.ndarray, crowd: float) -> dict:
        ids = draw.permutation(np.r_[draw.integers(1, 256**3, 20), np.arange(1, 21)])[:20]
        ids = np.r_[0, np.unique(ids)[draw.permutation(len(np.unique(ids)))]]
        segments = [
            {"id": int(ids[i]), "label_id": int(labels[i]), "iscrowd": int(draw.random() < crowd)}
            for i in draw.permutation(segments_in(canvas))
        ]
        return {"segmentation": ids[canvas], "segments_info": segments}

    true = rectangles(None, draw.integers(0, 9))
    predicted = rectangles(true, draw.integers(0, 7)) if draw.random() < 0.9 else np.zeros_like(true)
    labels = draw.choice(categories, 10)
    guesses = np.where(draw.random(10) < 0.7, labels, draw.choice(categories, 10))
    return described(true, labels, 0.3), described(predicted, guesses, 0.0)


def segments_in(segmentation: np.ndarray) -> list[int]:
    """The ids that occur, ascending, void apart."""
    return [int(i) for i in np.unique(segmentation) if i != 0]
