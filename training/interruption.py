"""Leaving a run cleanly when a scheduler asks for it."""

from __future__ import annotations

import signal
import threading

from accelerate import Accelerator


class Interruption:
    """Notes SIGTERM while its block runs, so that the step can be finished and a checkpoint be written."""

    def __init__(self):
        self.noted, self.previous = False, None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # signals can be caught nowhere else
            self.previous = signal.signal(signal.SIGTERM, self.note)
        return self

    def __exit__(self, *error) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)

    def note(self, *signal_and_frame) -> None:
        """Called by the signal."""
        self.noted = True

    def requested(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop; the same answer on all of them, which must ask together."""
        if accelerator.num_processes > 1:
            if self.noted:
                accelerator.set_trigger()
            self.noted = accelerator.check_trigger()
        return self.noted
