"""The parts that are compared do the same thing."""

from __future__ import annotations

import torch

from maskformer.benchmarks.parts import OURS, THEIRS, image_processor_runs, matching_runs


def test_matchings_are_the_same():
    runs = matching_runs(layers=2, images=2, queries=12, masks=5, size=64)
    for ours, theirs in zip(runs[OURS](), runs[THEIRS](), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_image_processors_give_the_same_number_of_masks():
    counts = {name: len(run()["class_labels"][0]) for name, run in image_processor_runs((64, 85), segments=7).items()}
    assert set(counts.values()) == {7}
