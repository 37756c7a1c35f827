"""The backbone of Figure 2: an image becomes feature maps of strides 4, 8, 16 and 32."""

from __future__ import annotations

import difflib

import timm
import torch
from timm.layers import freeze_batch_norm_2d
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from transformers import PreTrainedConfig

from .blocks import for_caches
from .swin import NAME as SWIN_NAME
from .swin import SwinBackbone
from .winograd import Conv3x3

STRIDES = [4, 8, 16, 32]


def load_backbone(config: PreTrainedConfig) -> nn.Module:
    """The backbone that `config.backbone` names, with random weights; `.channels` are its maps' channels.

    Raises `ValueError` where the name or one of `config.backbone_kwargs` is not known, or the model has no maps of the
    four strides.
    """
    kwargs = dict(config.backbone_kwargs or {})
    if SWIN_NAME.fullmatch(config.backbone):
        return SwinBackbone(config, config.backbone, **kwargs)
    return TimmBackbone(config.backbone, config.freeze_batch_norm, kwargs)


class TimmBackbone(nn.Module):
    """Any timm model that gives `features_only` maps of strides 4, 8, 16 and 32."""

    def __init__(self, name: str, freeze_batch_norm: bool, kwargs: dict):
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"backbone {name!r} is neither a Swin Transformer nor a timm model{hint}")
        multi_grid = kwargs.pop("multi_grid", None)
        try:
            model = timm.create_model(name, features_only=True, pretrained=False, **kwargs)
        except TypeError as error:  # which is what an unknown argument raises
            raise ValueError(f"timm's {name!r} does not take the backbone_kwargs {kwargs}: {error}") from error
        if multi_grid:
            dilate_last_stage(model, multi_grid)
        strides = model.feature_info.reduction()
        missing = [stride for stride in STRIDES if stride not in strides]
        if missing:
            raise ValueError(f"backbone {name!r} has maps of strides {strides}; those of {missing} are missing")
        # The last map of each stride.
        self.indices = [max(i for i, stride in enumerate(strides) if stride == wanted) for wanted in STRIDES]
        self.channels = [model.feature_info.channels()[index] for index in self.indices]
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self.model = freeze_batch_norms(model) if freeze_batch_norm else model
        for module in self.model.modules():
            if type(module) is nn.Conv2d and module.kernel_size == (3, 3):
                module.__class__ = Conv3x3  # the same weights
        if not any(parameter.is_meta for parameter in self.model.parameters()):
            for module in self.model.modules():
                module._is_hf_initialized = True  # timm knows best how to initialise its own models

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass; `activation_checkpointing_enable` sets it.

        timm decides what a checkpointed part is, a stage for most models. Batch norms that are not frozen see a batch
        twice so, and their running statistics follow it a little faster.
        """
        return getattr(self.model, "grad_checkpointing", False)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        if hasattr(self.model, "set_grad_checkpointing"):
            self.model.set_grad_checkpointing(enable)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pixel_values` (B, 3, H, W) to maps of strides 4, 8, 16 and 32."""
        # Convolutions are faster with channels last in memory, and what follows keeps the order.
        features = self.model(pixel_values.contiguous(memory_format=torch.channels_last))
        features = [features[index] for index in self.indices]
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]  # (B, C, H/s, W/s)
        return tuple(features)


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's; without gradients in one pass over its input instead of two.

    Where `owns_input`, nobody else needs that input, and on a CPU the result takes its place.
    """

    owns_input = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to the same shape."""
        if torch.is_grad_enabled():
            return super().forward(x)  # for which nothing is kept; `batch_norm` keeps its input
        # In half precision `batch_norm` is exact to it, scale and shift are not.
        if self.owns_input and for_caches(x) and x.dtype == self.weight.dtype == torch.float32:
            scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
            shift = self.bias - self.running_mean * scale
            return torch.addcmul(shift.view(-1, 1, 1), x, scale.view(-1, 1, 1), out=x)
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def freeze_batch_norms(model: nn.Module) -> nn.Module:
    """Makes the batch norms of a timm model constants."""
    model = freeze_batch_norm_2d(model)
    for module in model.modules():
        if type(module) is FrozenBatchNorm2d:
            module.__class__ = FrozenBatchNorm  # the same buffers
    blocks = [block for block in model.modules() if isinstance(block, (BasicBlock, Bottleneck))]
    if blocks:  # a ResNet, in which each comes after a convolution
        for module in (model.bn1, *(module for block in blocks for module in block.modules())):
            if isinstance(module, FrozenBatchNorm):
                module.owns_input = True
    return model


def dilate_last_stage(resnet: nn.Module, dilations: list[int]) -> None:
    """Dilates the 3x3 convolutions of a ResNet's last stage, one number a block, as in R101c; its stride stays 2."""
    blocks = resnet.layer4
    if len(blocks) != len(dilations):
        raise ValueError(f"multi_grid {dilations} must have one dilation for each of the {len(blocks)} blocks")
    for block, dilation in zip(blocks, dilations, strict=True):
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
