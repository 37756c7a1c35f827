"""What a network says of one image, or of one view of it."""

from __future__ import annotations

import numpy as np

from .image_prediction import ImagePrediction, image_predictions
from .image_processing_maskformer import rgb_array


def eight_bit_image(image) -> np.ndarray:
    """An image of any kind, or its path, as uint8 (H, W, 3) RGB; `ValueError` for an image of floats."""
    array = rgb_array(image, None)
    if array.dtype != np.uint8:
        raise ValueError(f"views of an image are cut and resized as 8-bit pixels, but the image holds {array.dtype}")
    return array


def last_predictions(model, inputs: dict):
    """The outputs of `model` for an image processor's `inputs`, without those of auxiliary layers, which cost time."""
    last = {"output_auxiliary_logits": False} if hasattr(model, "late_projection") else {}  # a MaskFormer
    return model(**{name: inputs[name].to(model.device) for name in ("pixel_values", "pixel_mask")}, **last)


def predict_view(model, image_processor, view: np.ndarray, output_size: tuple[int, int]) -> ImagePrediction:
    """The outputs for `view`, uint8 (h, w, 3), which is normalised and padded but not resized.

    They stay as small as the network made them; `output_size` (height, width) is the size that answers are to have.
    """
    inputs = image_processor(images=view, do_resize=False, input_data_format="channels_last", return_tensors="pt")
    outputs = last_predictions(model, inputs)
    return image_predictions(outputs, [output_size])[0]
