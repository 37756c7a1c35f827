"""Image processors: images and label maps into batches, outputs into answers."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PilBackend, TorchvisionBackend
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.image_utils import load_image as transformers_load_image
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_loading import load_image, to_rgb
from .image_prediction import image_predictions
from .post_processing import (
    detr_panoptic_segmentation,
    instance_segmentation,
    panoptic_segmentation,
    semantic_segmentation,
)
from .preprocessing import (
    binary_masks,
    canvas_size,
    label_arrays,
    normalization,
    output_size,
    resize_labels,
    resize_with_pil,
)
from .transformers_settings import own_settings


class MaskFormerUniversalImageProcessorKwargs(ImagesKwargs, total=False):
    """The settings that are saved with a processor, beyond those of transformers.

    size_divisor: the canvas of a batch is padded to a multiple of this many pixels; 0 is none.
    ignore_index: the label of void pixels in segmentation maps, None where there is none.
    do_reduce_labels: whether label maps count from 1, 0 being void (see `binary_masks`).
    num_labels: K; where it is known, labels outside 0 to K - 1 are refused.
    resize_masks_first: the order of semantic inference (see `semantic_scores`); True in panoptic recipes.
    label_ids_to_fuse: the label ids of stuff, whose segments panoptic inference merges and instances leave out.
    test_protocol: the arguments of `post_process_panoptic_segmentation` that the model is tested with, by their names
        (`threshold`, `mask_threshold`, `overlap_mask_area_threshold`, `method`), None where nobody said. The method's
        own defaults stay what they are; `**processor.test_protocol` gives it these.
    """

    size_divisor: int
    ignore_index: int | None
    do_reduce_labels: bool
    num_labels: int | None
    resize_masks_first: bool
    label_ids_to_fuse: list[int] | None
    test_protocol: dict[str, Any] | None


class Preprocessing:
    """Resizes without distortion, normalises, pads to the right and bottom, and cuts label maps into masks.

    Images may be PIL images, arrays, tensors or paths, of any mode (see `to_rgb`). What differs between the backends
    is `process_image` and `resize`.
    """

    _auto_class = "AutoImageProcessor"  # saved folders hold the code
    valid_kwargs = MaskFormerUniversalImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]
    default_to_square = False
    do_resize = True
    size = {"shortest_edge": 512, "longest_edge": 2048}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    size_divisor = 32
    ignore_index = None
    do_reduce_labels = False
    num_labels = None
    resize_masks_first = False
    label_ids_to_fuse = None
    test_protocol = None

    @classmethod
    def from_dict(cls, image_processor_dict: Mapping[str, Any], **kwargs):
        """A processor of saved settings, those of transformers' own MaskFormer included."""
        return super().from_dict(own_settings(image_processor_dict), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are saved. Both backends are named to those who load the code from the folder."""
        settings = super().to_dict()
        if "AutoImageProcessor" in (settings.get("auto_map") or {}):
            name = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__.removesuffix('Pil')}"
            settings["auto_map"] = {"AutoImageProcessor": {"torchvision": name, "pil": f"{name}Pil"}}
        return settings

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        instance_id_to_semantic_id: Mapping[int, int] | Sequence[Mapping[int, int] | None] | None = None,
        **kwargs: Unpack[MaskFormerUniversalImageProcessorKwargs],
    ) -> BatchFeature:
        """A batch of one or several images, for training with their segmentation maps.

        `segmentation_maps` holds one integer (H, W) map an image, of the image's size: label ids, or segment ids where
        `instance_id_to_semantic_id` (one, or one an image) says the label of each. Segments that overlap come in
        several maps, as (P, H, W).
        Returns `pixel_values` (B, 3, H, W) float32 and `pixel_mask` (B, H, W) int64, 1 on the image; with maps also the
        lists `mask_labels`, bool (n_i, H, W), and `class_labels`, int64 (n_i,), always of tensors (see `binary_masks`).
        Without padding (`do_pad=False`) every image is its own canvas.
        Raises `ValueError` for maps that do not fit their image, and labels that are none.
        """
        return super().preprocess(images, segmentation_maps, instance_id_to_semantic_id, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None,
        instance_id_to_semantic_id: Mapping[int, int] | Sequence[Mapping[int, int] | None] | None,
        **settings,
    ) -> BatchFeature:
        images = [
            self.process_image(image, input_data_format=settings["input_data_format"], device=settings["device"])
            for image in flat_list(images)
        ]
        if not images:
            raise ValueError("there are no images to process")
        original_sizes = [tuple(image.shape[-2:]) for image in images]
        if settings["do_resize"]:
            sizes = [output_size(*size, settings["size"]) for size in original_sizes]
            resized = [SizeDict(height=height, width=width) for height, width in sizes]
            images = [self.resize(*pair, settings["resample"]) for pair in zip(images, resized, strict=True)]
        data = self._pixels([torch.as_tensor(image) for image in images], settings)
        if segmentation_maps is not None:
            maps = label_arrays(segmentation_maps, original_sizes)
            maps = [resize_labels(array, image.shape[-2:]) for array, image in zip(maps, images, strict=True)]
            data |= self._labels(maps, instance_id_to_semantic_id, data["pixel_mask"], settings)
        return BatchFeature(
            data, tensor_type=settings["return_tensors"], skip_tensor_conversion=["mask_labels", "class_labels"]
        )

    def _pixels(self, images: list[Tensor], settings: dict) -> dict:
        """`pixel_values` and `pixel_mask` of resized images (3, h, w)."""
        offset, divisor = normalization(
            settings["rescale_factor"] if settings["do_rescale"] else 1.0,
            settings["image_mean"] if settings["do_normalize"] else 0.0,
            settings["image_std"] if settings["do_normalize"] else 1.0,
        )
        sizes = [tuple(image.shape[-2:]) for image in images]
        canvases = sizes
        if settings["do_pad"]:
            pad_size = settings["pad_size"] and (settings["pad_size"].height, settings["pad_size"].width)
            canvases = [canvas_size(sizes, settings["size_divisor"], pad_size)] * len(images)
        count = len(images)
        if settings["do_pad"]:
            pixel_values = images[0].new_zeros((count, 3, *canvases[0]), dtype=torch.float32)  # (B, 3, H, W)
            pixel_mask = images[0].new_zeros((count, *canvases[0]), dtype=torch.int64)  # (B, H, W)
        else:
            pixel_values = [
                image.new_empty((3, *size), dtype=torch.float32) for image, size in zip(images, sizes, strict=True)
            ]
            pixel_mask = [image.new_empty(size, dtype=torch.int64) for image, size in zip(images, sizes, strict=True)]
        for image, (height, width), values, mask in zip(images, sizes, pixel_values, pixel_mask, strict=True):
            # In place: these are the largest tensors here.
            values = values[:, :height, :width].copy_(image)  # (3, h, w)
            values.sub_(offset.to(image.device)).div_(divisor.to(image.device))
            mask[:height, :width] = 1
        return {"pixel_values": pixel_values, "pixel_mask": pixel_mask}

    def _labels(self, maps: list[np.ndarray], id_to_label, pixel_masks: Sequence[Tensor], settings: dict) -> dict:
        """`mask_labels` and `class_labels` of resized label maps (h, w)."""
        mappings = id_to_label if isinstance(id_to_label, list | tuple) else [id_to_label] * len(maps)
        if len(mappings) != len(maps):
            raise ValueError(f"instance_id_to_semantic_id has {len(mappings)} entries for {len(maps)} images")
        options = {name: settings[name] for name in ("ignore_index", "do_reduce_labels", "num_labels")}
        mask_labels, class_labels = [], []
        for index, (array, mapping, pixel_mask) in enumerate(zip(maps, mappings, pixel_masks, strict=True)):
            try:
                masks, labels = binary_masks(array, tuple(pixel_mask.shape), mapping, **options)
            except ValueError as error:
                raise ValueError(f"segmentation_maps[{index}]: {error}") from None
            mask_labels.append(masks)
            class_labels.append(labels)
        return {"mask_labels": mask_labels, "class_labels": class_labels}


def flat_list(images: ImageInput) -> list:
    """One image, a (B, ...) stack of four dimensions, or nested lists of those, as a flat list of images."""
    if isinstance(images, list | tuple):
        return [image for item in images for image in flat_list(item)]
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return list(images)
    return [images]


def rgb_array(image, input_data_format: str | ChannelDimension | None) -> np.ndarray:
    """One image of any kind, or its path or URL, as (H, W, 3), in memory that PyTorch can share."""
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:image/")):
        image = transformers_load_image(image)
    if isinstance(image, str | os.PathLike):
        return load_image(image)
    channels_first = None
    if input_data_format is not None:
        channels_first = ChannelDimension(input_data_format) == ChannelDimension.FIRST
    # A copy: PyTorch shares no read-only memory and no negative strides, which an edge of one pixel may keep.
    return np.array(to_rgb(image, channels_first), order="C")


class SemanticPostProcessing:
    """Semantic answers."""

    def post_process_semantic_segmentation(
        self,
        outputs,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        resize_masks_first: bool | None = None,
    ) -> list[Tensor]:
        """The label of every pixel, one int64 (H, W) map an image, by the official semantic inference (§3.4).

        `outputs` are a MaskFormer's or a per-pixel model's. `target_sizes` are (height, width) pairs, or a (B, 2)
        tensor; None means the images' sizes on the canvas, without padding. `resize_masks_first` is the order of the
        steps (see `post_processing.semantic_scores`); None means the saved one. Raises `ValueError` for NaN logits and
        for target sizes that do not fit (see `image_predictions`).
        """
        first = self.resize_masks_first if resize_masks_first is None else resize_masks_first
        return [semantic_segmentation(prediction, first) for prediction in image_predictions(outputs, target_sizes)]


class SegmentPostProcessing:
    """Panoptic and instance answers, of mask classification only."""

    def post_process_panoptic_segmentation(
        self,
        outputs,
        threshold: float = 0.8,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        label_ids_to_fuse: Collection[int] | None = None,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        method: str = "maskformer",
    ) -> list[dict]:
        """`{"segmentation": int32 (H, W), "segments_info": [...]}` an image, by the official panoptic inference (§3.4).

        Ids are 1, 2, 3, ..., each once; 0 is void. `label_ids_to_fuse` are the label ids of stuff, None means the saved
        ones. See `post_processing.panoptic_segmentation` for the rules and the entries, and
        `post_process_semantic_segmentation` for `target_sizes`. `method` "detr" is DETR's post-processing, the paper's
        row MaskFormer (DETR): see `post_processing.detr_panoptic_segmentation`; `threshold` is the only one it has.
        Raises `ValueError` for another `method`.
        """
        if method not in ("maskformer", "detr"):
            raise ValueError(f"unknown panoptic method {method!r}; there are 'maskformer' and 'detr'")
        fuse = frozenset((self.label_ids_to_fuse if label_ids_to_fuse is None else label_ids_to_fuse) or ())
        predictions = image_predictions(outputs, target_sizes)
        if method == "detr":
            return [detr_panoptic_segmentation(prediction, threshold, fuse) for prediction in predictions]
        thresholds = (threshold, mask_threshold, overlap_mask_area_threshold)
        return [panoptic_segmentation(prediction, *thresholds, fuse) for prediction in predictions]

    def post_process_instance_segmentation(
        self,
        outputs,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        return_coco_annotation: bool = False,
        return_binary_maps: bool = False,
    ) -> list[dict]:
        """`{"segmentation": ..., "segments_info": [...]}` an image, best instance first.

        The segmentation is an int32 (H, W) map of ids, 0 where there is none; or bool (n, H, W) maps; or n COCO RLEs,
        `{"size": [H, W], "counts": str}`. Only things count where `label_ids_to_fuse` (stuff) is saved. See
        `post_processing.instance_segmentation` for the rules, and `post_process_semantic_segmentation` for
        `target_sizes`. Raises `ValueError` if both other forms are asked for.
        """
        if return_coco_annotation and return_binary_maps:
            raise ValueError("return_coco_annotation and return_binary_maps exclude each other")
        form = "rle" if return_coco_annotation else "binary" if return_binary_maps else "map"
        thresholds = (threshold, mask_threshold, overlap_mask_area_threshold)
        return [
            instance_segmentation(prediction, *thresholds, frozenset(self.label_ids_to_fuse or ()), form)
            for prediction in image_predictions(outputs, target_sizes)
        ]


class TorchvisionPreprocessing(Preprocessing, TorchvisionBackend):
    """Resizes as torchvision does, on the device of the images or on `device`."""

    def process_image(
        self, image, input_data_format: str | ChannelDimension | None = None, device=None, **kwargs
    ) -> Tensor:
        """One image of any kind as (3, H, W), uint8 or float32."""
        if device is None and isinstance(image, Tensor):
            device = image.device
        return torch.from_numpy(rgb_array(image, input_data_format)).permute(2, 0, 1).to(device)  # (3, H, W)


class PilPreprocessing(Preprocessing, PilBackend):
    """Resizes 8-bit images with PIL, exactly as the official pipeline."""

    def process_image(self, image, input_data_format: str | ChannelDimension | None = None, **kwargs) -> np.ndarray:
        """One image of any kind as (3, H, W), uint8 or float32."""
        return rgb_array(image, input_data_format).transpose(2, 0, 1)  # (3, H, W)

    def resize(self, image: np.ndarray, size: SizeDict, resample: int) -> np.ndarray:
        """`image` (3, H, W) resized to `size`."""
        resized = resize_with_pil(image.transpose(1, 2, 0), (size.height, size.width), resample)  # (h, w, 3)
        return resized.transpose(2, 0, 1)  # (3, h, w)


class MaskFormerUniversalImageProcessor(SemanticPostProcessing, SegmentPostProcessing, TorchvisionPreprocessing):
    """MaskFormer's image processor: batches in, semantic, panoptic and instance answers out."""


class MaskFormerUniversalImageProcessorPil(SemanticPostProcessing, SegmentPostProcessing, PilPreprocessing):
    """`MaskFormerUniversalImageProcessor` with PIL's resizing."""


class PerPixelBaselineImageProcessor(SemanticPostProcessing, TorchvisionPreprocessing):
    """The image processor of the per-pixel baselines: the same batches, and semantic answers only."""


class PerPixelBaselineImageProcessorPil(SemanticPostProcessing, PilPreprocessing):
    """`PerPixelBaselineImageProcessor` with PIL's resizing."""
