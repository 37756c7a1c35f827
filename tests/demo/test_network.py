"""The network behind a demo, and the memory of what it said."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from maskformer.demo.answers import Thresholds, answer
from maskformer.demo.memory import Memory
from maskformer.demo.network import LOGITS, Prediction

IMAGE = np.zeros((48, 80, 3), np.uint8)


def prediction(num_bytes: int = 3) -> Prediction:
    return Prediction(np.zeros((1, num_bytes // 3, 3), np.uint8), 0.0, None, None, None, None)


def test_a_prediction_holds_logits_only(network):
    kept = network().predict(IMAGE)
    assert kept.class_queries_logits.shape == (1, 7, 5) and kept.masks_queries_logits.shape[:2] == (1, 7)
    tensors = [getattr(kept, name) for name in LOGITS if getattr(kept, name) is not None]
    assert all(t.untyped_storage().nbytes() == t.nbytes and not t.requires_grad for t in tensors)
    assert kept.num_bytes == IMAGE.nbytes + sum(t.nbytes for t in tensors)


def test_an_image_that_the_network_would_see_too_large_is_refused(network):
    network = network()
    network.image_processor.size = {"shortest_edge": 512}
    with pytest.raises(ValueError, match="819200 x 512 pixels, more than 4 million"):
        network.predict(np.zeros((1, 1600, 3), np.uint8))


def test_a_pass_that_takes_too_long_is_not_waited_for_and_the_next_one_runs(network):
    network = network()
    network.seconds, go_on, run = 0.05, threading.Event(), network._run
    network._run = lambda image: go_on.wait(10) and run(image)
    with pytest.raises(TimeoutError, match="no answer within 0.05 seconds"):
        network.predict(IMAGE)
    go_on.set()
    network.seconds = 30
    assert network.predict(IMAGE).size == (48, 80)


def test_colours_are_the_models_or_those_of_pictures(network):
    mine = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert network(label_colors=mine).label_colors.tolist() == mine
    others = network().label_colors
    assert others.shape == (4, 3) and len(np.unique(others, axis=0)) == 4


def test_the_oldest_predictions_make_room():
    memory = Memory(most=2, most_bytes=1000)
    first, second = memory.put(prediction()), memory.put(prediction())
    memory.get(first)
    third = memory.put(prediction())
    assert len(memory) == 2 and memory.get(first) and memory.get(third)
    with pytest.raises(ValueError, match="no longer in memory"):
        memory.get(second)
    memory.put(prediction(999))
    assert len(memory) == 1 and memory.num_bytes == 999
    with pytest.raises(ValueError, match="use a smaller image"):
        memory.put(prediction(3000))


def test_dropping_forgets_and_does_not_mind_what_is_not_there():
    memory = Memory()
    ticket = memory.put(prediction())
    for each in (ticket, ticket, None):
        memory.drop(each)
    assert len(memory) == 0


def test_logits_that_are_nan_are_an_error_for_people(network):
    network = network()
    with torch.no_grad():
        network.model.segmentation_module.class_head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        answer(network, network.predict(IMAGE), "panoptic", Thresholds())
