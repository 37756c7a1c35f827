"""Several ways to do the same thing, timed in turns: what disturbs the machine then disturbs all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of every round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """How far the middle half of the rounds is apart, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / self.median


def alternate(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Timing]:
    """Times each of `runs` once in every one of `rounds`, after one time that does not count.

    On a GPU a run ends when the device is done with it. `progress` may wrap the sequence of all turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn, name in progress([(turn, name) for turn in range(rounds + 1) for name in runs]):
        synchronize(device)
        began = time.perf_counter()
        runs[name]()
        synchronize(device)
        if turn:
            seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def synchronize(device: str) -> None:
    """Waits until a GPU has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def multiplication_rate(device: str = "cpu", size: int = 2048, rounds: int = 5) -> float:
    """Multiply-adds a second of a float32 product of two square matrices: what the machine gives at its best."""
    left, right = torch.randn(2, size, size, device=device)
    timing = alternate({"product": lambda: left @ right}, rounds, device)["product"]
    return size**3 / min(timing.seconds)
