"""What a run tells of its speed."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator

from maskformer.training.meter import Meter


def test_evaluations_and_checkpoints_are_no_part_of_the_speed():
    meter = Meter(Accelerator(cpu=True), images_a_step=10)
    with meter.waiting():
        time.sleep(0.2)
    with meter.paused():
        time.sleep(1.0)
    meter.add({"loss": torch.tensor(2.0)})
    row = meter.read()
    assert row["loss"] == 2 and row["images_per_second"] > 10 / 0.8 and row["data_share"] > 0.25
