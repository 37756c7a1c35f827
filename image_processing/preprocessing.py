"""What happens to an image and its labels before the network, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image


def output_size(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Height and width, in pixels, to which an image is resized without distortion, by detectron2's rules.

    `size` is `{"shortest_edge", "longest_edge"}`: the shorter edge gets its length unless the longer one would exceed
    `longest_edge` (may be missing); sizes are rounded as `int(x + 0.5)`. `{"height", "width"}` is taken as it is, which
    distorts. Raises `ValueError` for other keys.
    """
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
    if not shortest:
        raise ValueError(f"size needs 'shortest_edge' (and 'longest_edge'), or 'height' and 'width', not {dict(size)}")
    # The order of these operations decides how halves round.
    ratio = shortest / min(height, width)
    edges = (shortest, ratio * width) if height < width else (ratio * height, shortest)
    if longest and max(edges) > longest:
        shrink = longest / max(edges)
        edges = (edges[0] * shrink, edges[1] * shrink)
    return max(1, int(edges[0] + 0.5)), max(1, int(edges[1] + 0.5))


def resize_with_pil(image: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """`image` (H, W, 3), uint8 or float32, resized to `size` (h, w) by PIL."""
    height, width = size
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resample))
    channels = [
        np.array(Image.fromarray(np.ascontiguousarray(image[..., c])).resize((width, height), resample))
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)  # (h, w, 3)


def resize_labels(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`label_map` (..., H, W) of any integers resized to `size` (h, w), exactly as PIL's nearest does."""
    rows, columns = (nearest_pixels(old, new) for old, new in zip(label_map.shape[-2:], size, strict=True))
    return label_map[..., rows[:, None], columns]  # (..., h, w)


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """The old index (new,) of every new pixel along one edge.

    PIL resizes a ramp of indices instead of the map, since it knows no 64-bit integers; how it breaks ties between two
    pixels (by accumulated rounding) no closed formula repeats.
    """
    ramp = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(ramp.resize((new, 1), Image.Resampling.NEAREST))[0]


def canvas_size(
    sizes: Sequence[tuple[int, int]], size_divisor: int, pad_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The smallest canvas (H, W) for images of `sizes`, its edges multiples of `size_divisor` (0: any), or `pad_size`.

    Raises `ValueError` if `pad_size` is smaller than an image.
    """
    height, width = (max(edges) for edges in zip(*sizes, strict=True))
    if pad_size is not None:
        if height > pad_size[0] or width > pad_size[1]:
            raise ValueError(f"pad_size {tuple(pad_size)} is smaller than the images, which need {(height, width)}")
        return tuple(pad_size)
    step = size_divisor or 1
    return -(-height // step) * step, -(-width // step) * step


def normalization(
    rescale_factor: float = 1.0, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Offset and divisor, float32 (C, 1, 1), so that `(x - offset) / divisor` rescales and normalises at once.

    `mean` and `std` refer to the rescaled values. For ImageNet's and 1/255 this is the official arithmetic, on values
    up to 255: 123.675 and 58.395 for red, and so on.
    """
    offset, divisor = (torch.tensor(x, dtype=torch.float64) / rescale_factor for x in (mean, std))
    return offset.float().view(-1, 1, 1), divisor.float().view(-1, 1, 1)  # (C, 1, 1)


def label_arrays(segmentation_maps, image_sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """`segmentation_maps`, one or several PIL images, arrays or tensors, as one integer array an image.

    An array is (H, W), or (P, H, W) where segments overlap and lie in several maps; a single array of three dimensions
    is a stack of maps, one an image. Raises `ValueError`, naming the index, if a map is no array of integers or not as
    large as its image, and if there are not as many maps as images.
    """
    is_stack = isinstance(segmentation_maps, np.ndarray | torch.Tensor) and segmentation_maps.ndim == 3
    if not is_stack and not isinstance(segmentation_maps, list | tuple):
        segmentation_maps = [segmentation_maps]
    if len(segmentation_maps) != len(image_sizes):
        raise ValueError(f"there are {len(segmentation_maps)} segmentation maps for {len(image_sizes)} images")
    arrays = []
    for index, (label_map, size) in enumerate(zip(segmentation_maps, image_sizes, strict=True)):
        array = label_map.numpy(force=True) if isinstance(label_map, torch.Tensor) else np.asarray(label_map)
        if array.ndim == 3 and array.shape[0] == 1:
            array = array[0]
        if array.ndim not in (2, 3) or array.dtype.kind not in "iub" or colors_on(array, size):
            raise ValueError(
                f"segmentation_maps[{index}] must be (H, W) or (P, H, W) integers, not {array.shape} {array.dtype}"
                " (COCO's panoptic colours are to be turned into ids first)"
            )
        if array.shape[-2:] != tuple(size):
            raise ValueError(
                f"segmentation_maps[{index}] is {array.shape[-2]}x{array.shape[-1]} but image {index} is"
                f" {size[0]}x{size[1]} (height x width, EXIF rotation applied)"
            )
        arrays.append(array)
    return arrays


def colors_on(array: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether `array` looks like (H, W, channels) of an image of `size`, and not like (P, H, W)."""
    return array.ndim == 3 and array.shape[-2:] != tuple(size) and array.shape[:2] == tuple(size)


def distinct(label_map: np.ndarray) -> np.ndarray:
    """The values of a map, ascending. Only those where it changes are sorted: most pixels are as their neighbour."""
    values = label_map.ravel()
    return np.unique(np.append(values[:1], values[1:][values[1:] != values[:-1]]))


def binary_masks(
    label_map: np.ndarray,
    canvas_size: tuple[int, int],
    id_to_label: Mapping[int, int] | None = None,
    ignore_index: int | None = None,
    do_reduce_labels: bool = False,
    num_labels: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks bool (n, H, W) on the canvas and label ids int64 (n,), by ascending value in the map.

    `label_map` (h, w) or, where segments overlap, (P, h, w) lies at the top left of the canvas; padding belongs to no
    mask. Without `id_to_label` the values are label ids, one mask each; with it they are segment ids, and an id it
    lacks (void, a crowd) gets no mask. Label `ignore_index` is void. `do_reduce_labels`, for files that count labels
    from 1: 0 is void too, all others are lowered by one, and `ignore_index` None means 255.
    Raises `ValueError` for a label below 0 or, where `num_labels` is known, not below it.
    """
    if do_reduce_labels and ignore_index is None:
        ignore_index = 255
    void = {None, ignore_index, 0 if do_reduce_labels else None}
    ids = distinct(label_map).tolist()
    source = {i: i if id_to_label is None else id_to_label.get(i) for i in ids}
    labels = {i: label - int(do_reduce_labels) for i, label in source.items() if label not in void}
    for i, label in labels.items():
        if not 0 <= label < (2**63 if num_labels is None else num_labels):  # of int64
            known = "at least 0, and below 2**63" if num_labels is None else f"0 to {num_labels - 1}"
            raise ValueError(f"value {i} stands for label {label}, but labels are {known}; is it the ignore_index?")
    height, width = label_map.shape[-2:]
    maps = label_map.reshape(-1, height, width)  # (P, h, w)
    masks = torch.zeros((len(labels), *canvas_size), dtype=torch.bool)  # (n, H, W)
    for mask, i in zip(masks.numpy()[:, :height, :width], labels, strict=True):  # (h, w), of the tensor's memory
        if len(maps) == 1:
            np.equal(maps[0], i, out=mask)
        else:
            np.any(maps == i, axis=0, out=mask)
    return masks, torch.tensor(list(labels.values()), dtype=torch.int64)
