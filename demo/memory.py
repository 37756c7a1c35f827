"""What the network said of the images of all sessions, in bounded memory."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict

from maskformer.demo.network import Prediction


class Memory:
    """Predictions by ticket, a number; the ones that were not asked for longest make room for new ones.

    At most `most` are kept, and at most `most_bytes` of them. Sessions hold tickets instead of predictions, so that
    many sessions cannot fill the memory, whatever gradio knows of them.
    """

    def __init__(self, most: int = 64, most_bytes: int = 1 << 30):
        self.most, self.most_bytes = most, most_bytes
        self._predictions: OrderedDict[int, Prediction] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def put(self, prediction: Prediction) -> int:
        """Keeps a prediction and returns its ticket. Raises `ValueError` for one that has no room even alone."""
        if prediction.num_bytes > self.most_bytes:
            raise ValueError(
                f"what the model says of this image takes {prediction.num_bytes / 1e6:.0f} MB, and there is room for "
                f"{self.most_bytes / 1e6:.0f}; use a smaller image"
            )
        with self._lock:
            ticket = next(self._numbers)
            self._predictions[ticket] = prediction
            while len(self._predictions) > self.most or self.num_bytes > self.most_bytes:
                self._predictions.popitem(last=False)
            return ticket

    def get(self, ticket: int) -> Prediction:
        """The prediction of a ticket. Raises `ValueError` if it made room for others."""
        with self._lock:
            if ticket not in self._predictions:
                raise ValueError("this image is no longer in memory; please give it again")
            self._predictions.move_to_end(ticket)
            return self._predictions[ticket]

    def drop(self, ticket: int | None) -> None:
        """Forgets a ticket, if there is one."""
        with self._lock:
            self._predictions.pop(ticket, None)

    @property
    def num_bytes(self) -> int:
        """The memory that the predictions take."""
        return sum(prediction.num_bytes for prediction in self._predictions.values())

    def __len__(self) -> int:
        return len(self._predictions)
