"""What a run tells while it goes on: losses, images a second, the share of time that data take, memory."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import torch
from accelerate import Accelerator


class Meter:
    """Means over the steps since it was last read."""

    def __init__(self, accelerator: Accelerator, images_a_step: int):
        self.accelerator, self.device, self.images_a_step = accelerator, accelerator.device, images_a_step
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self.began, self.waited = time.monotonic(), 0.0
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what runs inside as waiting for data."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what runs inside, such as an evaluation, out of the time."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.began += time.monotonic() - began

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Adds the losses of one step, without waiting for the device."""
        self.sums = {name: self.sums.get(name, 0) + value for name, value in losses.items()}
        self.steps += 1

    def read(self) -> dict[str, float]:
        """The means of losses over steps and processes, `images_per_second` of all processes, `data_share` (0 to 1) of
        this process's time that went into waiting for data, and `memory_gb`; begins anew. All processes read together.
        """
        sums = self.accelerator.reduce(torch.stack(list(self.sums.values())), reduction="mean")  # (losses,)
        means = {name: value / self.steps for name, value in zip(self.sums, sums.tolist(), strict=True)}
        seconds = max(time.monotonic() - self.began, 1e-9)
        speed = {
            "images_per_second": round(self.steps * self.images_a_step / seconds, 3),
            "data_share": round(min(1.0, self.waited / seconds), 4),
            "memory_gb": round(peak_memory(self.device) / 1e9, 3),
        }
        self.reset()
        return means | speed

    @staticmethod
    def in_short(row: dict[str, float], rate: float, progress: float) -> str:
        """`row` for the end of a progress bar."""
        return (
            f"loss {row['loss']:.3f}, lr {rate:.1e}, {row['images_per_second']:.1f} images/s,"
            f" data {row['data_share']:.0%}, {row['memory_gb']:.1f} GB, {progress:.0%}"
        )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of the accelerator's memory or, on a CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return 0  # Windows tells nothing without another library
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
