"""Leaving a run cleanly when a scheduler or the keyboard asks for it, or when one of several processes cannot go on."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Iterator

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notes SIGTERM and SIGINT while its block runs, so that the step can be finished and a checkpoint be written."""

    def __init__(self):
        self.noted = 0  # the number of the signal
        self.previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # signals can be caught nowhere else
            self.previous = {number: signal.signal(number, self.note) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame) -> None:
        """Called by the signal."""
        self.noted = number


@contextlib.contextmanager
def letting_go() -> Iterator[None]:
    """Lets go of the variables that an error in the block holds in its functions.

    A loader's processes end with their iterator; else the program, when it ends, waits some seconds for each of them.
    """
    try:
        yield
    except BaseException as error:
        link = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        raise


def largest(accelerator: Accelerator, *numbers: int) -> list[int]:
    """The largest of each number on any process: the same answer on all of them, which must ask together."""
    if accelerator.num_processes == 1:
        return list(numbers)
    own = torch.tensor([numbers], device=accelerator.device)  # (1, numbers)
    return accelerator.gather(own).amax(0).tolist()
