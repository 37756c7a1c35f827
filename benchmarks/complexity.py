"""What a recipe's model costs: parameters, and multiply-adds by the conventions of fvcore, which the paper's are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d
from transformers import PreTrainedConfig

from maskformer import MaskFormerForUniversalSegmentation, PerPixelBaselineForSemanticSegmentation
from maskformer.recipes import Recipe

# Operations for each element: of what a normalisation gets (a batch norm of fixed statistics only scales and shifts),
# and of what resizing gives.
NORMALIZATIONS = {
    nn.LayerNorm: 5,
    nn.GroupNorm: 5,
    nn.BatchNorm2d: 2,
    FrozenBatchNorm2d: 2,
    FrozenBatchNormAct2d: 2,
}
RESIZINGS = {torch.ops.aten.upsample_nearest2d: 1, torch.ops.aten.upsample_bilinear2d: 4}
ASPECT = 1.36  # of the image that panoptic models of COCO are counted at: 800 x 1088


@dataclass(frozen=True)
class Complexity:
    """Parameters, and multiply-adds for one image of (height, width), in all and for each kind of operation."""

    parameters: int
    image_size: tuple[int, int]
    multiply_adds: int
    by_operation: dict[str, int]


def image_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width that `recipe` is counted at: its training crop, as in the paper, or else its test size."""
    if recipe.data.crop_size:
        return tuple(recipe.data.crop_size)
    shortest = recipe.image_processor["size"]["shortest_edge"]
    return shortest, round(ASPECT * shortest)


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """The model of a configuration, without memory for its weights."""
    with torch.device("meta"):
        if config.model_type == "per_pixel_baseline":
            return PerPixelBaselineForSemanticSegmentation(config).eval()
        return MaskFormerForUniversalSegmentation(config).eval()


def official_inference(outputs, size: tuple[int, int], resize_masks_first: bool) -> None:
    """The official semantic inference (§3.4), which the paper's numbers include; here it only has to be counted.

    What is resized a second time comes from the canvas to the image, whose sizes are the same here.
    """

    def resize(maps: torch.Tensor) -> torch.Tensor:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)  # (B, C, H, W)

    if "logits" in outputs:
        resize(resize(outputs.logits))
        return
    masks = resize(outputs.masks_queries_logits)  # (B, N, H, W)
    if resize_masks_first:
        masks = resize(masks)
    classes = outputs.class_queries_logits.softmax(-1)[..., :-1]  # (B, N, K)
    scores = torch.einsum("bnk,bnhw->bkhw", classes, masks.sigmoid())  # (B, K, H, W)
    if not resize_masks_first:
        resize(scores)


def auxiliary_heads(model: nn.Module, outputs) -> None:
    """What PerPixelBaseline+ predicts from the layers before the last: officially in inference too, here in training
    only, so that the model without them does less than is counted."""
    config = model.config
    pixel_embeddings = outputs.logits.new_empty(1, config.mask_feature_size, *outputs.logits.shape[-2:])
    for _ in range(config.decoder_layers - 1):
        queries = pixel_embeddings.new_empty(1, config.num_queries, config.hidden_size)  # (B, K, C)
        model.segmentation_module(queries, pixel_embeddings)


@torch.no_grad()
def count_complexity(recipe: Recipe) -> Complexity:
    """Counts the model of `recipe` with its inference; nothing is computed, so that it takes no memory.

    Raises `ValueError` for a recipe that names no label set.
    """
    model, size = empty_model(recipe.build_config()), image_size(recipe)
    counts = dict.fromkeys(("convolution", "matrix product", "normalization", "resizing", "auxiliary heads"), 0)

    def count_normalization(module, inputs, output):
        factor = next(factor for kind, factor in NORMALIZATIONS.items() if isinstance(module, kind))
        counts["normalization"] += factor * inputs[0].numel()

    for module in model.modules():
        if isinstance(module, tuple(NORMALIZATIONS)):
            module.register_forward_hook(count_normalization)

    def resizing(factor: int):
        # PyTorch's counter counts a multiply-add as two.
        return lambda *shapes, out_shape, **kwargs: 2 * factor * torch.Size(out_shape).numel()

    mapping = {operation: resizing(factor) for operation, factor in RESIZINGS.items()}
    # PyTorch takes an operation apart before it counts, unless the mapping has its overload too.
    mapping |= {operation.default: count for operation, count in mapping.items()}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        outputs = model(torch.empty(1, 3, *size, device="meta"))
        official_inference(outputs, size, bool(recipe.image_processor.get("resize_masks_first")))
    for operation, flops in counter.get_flop_counts()["Global"].items():
        kind = "resizing" if operation in RESIZINGS else "matrix product"
        counts["convolution" if operation == torch.ops.aten.convolution else kind] += flops // 2
    if getattr(model.config, "use_transformer_decoder", False):
        with FlopCounterMode(display=False) as counter:
            auxiliary_heads(model, outputs)
        counts["auxiliary heads"] = counter.get_total_flops() // 2
    return Complexity(model.num_parameters(), size, sum(counts.values()), counts)
