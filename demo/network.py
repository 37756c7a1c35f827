"""A model behind a demo: what it says of one image, in bounded time and memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskformer.image_processing.inference import last_predictions
from maskformer.image_processing.preprocessing import output_size
from maskformer.image_processing.visualization import class_color, model_colors

MOST_NETWORK_PIXELS = 4_000_000  # of an image as the network sees it: processors without a longest edge have no bound
LOGITS = ("class_queries_logits", "masks_queries_logits", "logits", "pixel_mask")


@dataclass(frozen=True)
class Prediction:
    """What the network said of `image`, uint8 (H, W, 3), on the CPU and without features; answers are made of it.

    `class_queries_logits` (1, N, K+1) and `masks_queries_logits` (1, N, h, w) are a MaskFormer's, `logits` (1, K, h, w)
    a per-pixel baseline's; the others are None. `seconds` is how long the network took.
    """

    image: np.ndarray
    seconds: float
    class_queries_logits: Tensor | None
    masks_queries_logits: Tensor | None
    logits: Tensor | None
    pixel_mask: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[:2]

    @property
    def num_bytes(self) -> int:
        """The memory it takes."""
        tensors = (getattr(self, name) for name in LOGITS)
        return self.image.nbytes + sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Network:
    """A model and its image processor. One image at a time runs, in a thread of its own; others wait.

    `seconds` is the longest that a request may wait for the others and for its own turn.
    """

    def __init__(self, model, image_processor, seconds: float = 60.0):
        self.model, self.image_processor, self.seconds = model, image_processor, seconds
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")

    @property
    def tasks(self) -> list[str]:
        """The tasks that the model answers; a per-pixel baseline knows semantic segmentation only."""
        tasks = ("panoptic", "instance", "semantic")
        return [task for task in tasks if hasattr(self.image_processor, f"post_process_{task}_segmentation")]

    @property
    def label_names(self) -> list[str]:
        """The names of the K labels."""
        return [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]

    @property
    def label_colors(self) -> np.ndarray:
        """The labels' colours, RGB uint8 (K, 3): the model's own, or else those that pictures give them."""
        colors = model_colors(self.model.config)
        return np.array([class_color(label, colors) for label in range(len(self.label_names))]).astype(np.uint8)

    def predict(self, image: np.ndarray) -> Prediction:
        """What the network says of `image`, uint8 (H, W, 3).

        Raises `ValueError` where the image would be too large for the network, and `TimeoutError` after `seconds`.
        """
        height, width = output_size(*image.shape[:2], self.image_processor.size)
        if height * width > MOST_NETWORK_PIXELS:
            raise ValueError(
                f"the model would see the image at {width} x {height} pixels, more than "
                f"{MOST_NETWORK_PIXELS / 1e6:g} million; use one that is less narrow"
            )
        future = self._worker.submit(self._run, image)
        try:
            return future.result(self.seconds)
        except FutureTimeoutError:
            future.cancel()  # if it has not begun; a pass that runs cannot be stopped, and the next one waits for it
            raise TimeoutError(f"no answer within {self.seconds:g} seconds") from None

    @torch.inference_mode()
    def _run(self, image: np.ndarray) -> Prediction:
        start = time.perf_counter()
        outputs = last_predictions(self.model, self.image_processor(images=image, return_tensors="pt"))
        values = {name: getattr(outputs, name, None) for name in LOGITS}
        # Copies: a view would keep what it is a part of in memory.
        copies = {name: None if value is None else value.to("cpu", copy=True) for name, value in values.items()}
        return Prediction(image, time.perf_counter() - start, **copies)
