"""A network exported to ONNX, run by onnxruntime; image processors take its outputs as they take the model's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

MISSING = "ONNX needs the extra packages of this project: pip install 'maskformer-universal[export]'"


@dataclass
class OnnxOutput:
    """What post-processing needs of a batch: class and mask logits, or label logits, and where the images lie."""

    pixel_mask: torch.Tensor
    class_queries_logits: torch.Tensor | None = None
    masks_queries_logits: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class OnnxModel:
    """The network in the ONNX file `path`.

    `providers` are onnxruntime's, for instance `["CUDAExecutionProvider"]`; by default all that are installed.
    Raises `ImportError` where onnxruntime is missing.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(MISSING) from error
        providers = providers or onnxruntime.get_available_providers()
        self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> OnnxOutput:
        """The outputs for `pixel_values` (B, 3, H, W), normalised; `pixel_mask` (B, H, W) is handed on."""
        if pixel_mask is None:
            batch, _, height, width = pixel_values.shape
            pixel_mask = torch.ones(batch, height, width, dtype=torch.int64)
        arrays = self.session.run(self.names, {"pixel_values": pixel_values.float().numpy(force=True)})
        return OnnxOutput(pixel_mask, **dict(zip(self.names, map(torch.from_numpy, arrays), strict=True)))
