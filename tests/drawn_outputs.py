"""A network's outputs drawn at random, and what each image's part of them is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st

from property_settings import seeds
from query_outputs import bilinear, pixel_mask

CLOSE = 1e-5  # of scores and probabilities between which rounding decides
EXTREME = [(1, 1), (1, 150), (150, 1), (2, 97)]
edges = st.integers(1, 6)
problems = {
    "seed": seeds,
    "batch": st.integers(1, 2),
    "queries": st.integers(1, 5),
    "labels": st.integers(1, 4),
    "size": st.tuples(edges, edges),
    "canvas": st.one_of(st.none(), st.tuples(st.integers(1, 20), st.integers(1, 20))),
    "target": st.one_of(st.none(), st.sampled_from(EXTREME), st.tuples(st.integers(1, 25), st.integers(1, 25))),
    "magnitude": st.sampled_from([1.0, 4.0, 10.0]),
    "dtype": st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64]),
}
thresholds = {
    "threshold": st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    "mask_threshold": st.sampled_from([0.1, 0.5, 0.8]),
    "overlap": st.sampled_from([0.0, 0.5, 0.8, 1.0]),
}


class Problem:
    """Outputs for a batch, and what each image's part of them is."""

    def __init__(self, seed, batch, queries, labels, size, canvas, target, magnitude, dtype):
        draw = torch.Generator().manual_seed(seed)
        self.classes = (torch.randn(batch, queries, labels + 1, generator=draw) * 2).to(dtype)
        self.masks = (torch.randn(batch, queries, *size, generator=draw) * magnitude).to(dtype)
        self.canvas, self.image_sizes, mask = (4 * size[0], 4 * size[1]), [], None
        if canvas is not None:
            self.canvas = canvas
            self.image_sizes = [
                tuple(int(torch.randint(1, edge + 1, (), generator=draw)) for edge in canvas) for _ in range(batch)
            ]
            mask = pixel_mask(canvas, *self.image_sizes)
        self.image_sizes = self.image_sizes or [self.canvas] * batch
        self.targets = None if target is None else [target] * batch
        self.sizes = self.targets or self.image_sizes
        self.fuse = {label for label in range(labels) if torch.rand((), generator=draw) < 0.3}
        self.outputs = SimpleNamespace(
            class_queries_logits=self.classes, masks_queries_logits=self.masks, pixel_mask=mask
        )

    def on_canvas(self, image: int) -> torch.Tensor:
        """The mask logits of an image, cut to it, (N, h, w). Places are computed in float32, as they are defined."""
        height, width = self.image_sizes[image]
        return bilinear(self.masks[image].float(), self.canvas)[:, :height, :width]

    def probabilities(self, image: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of labels (N, K+1) and of masks at the answer's size (N, H, W)."""
        masks = bilinear(self.on_canvas(image), self.sizes[image])
        return self.classes[image].double().softmax(-1), masks.double().sigmoid()


def check_segments(answer: dict, canvas: np.ndarray, segments: list) -> None:
    """Map, ids, labels, fusion and scores."""
    infos = answer["segments_info"]
    assert [info["id"] for info in infos] == list(range(1, len(infos) + 1))
    assert [[info["label_id"], info["was_fused"]] for info in infos] == [segment[:2] for segment in segments]
    assert np.allclose([info["score"] for info in infos], [segment[2] for segment in segments], atol=CLOSE)
    assert answer["segmentation"].dtype == torch.int32
    assert np.array_equal(answer["segmentation"].numpy(), canvas)
