"""The per-pixel baselines that MaskFormer is compared with (section 4.1): the same network, every pixel classified.

PerPixelBaseline classifies per-pixel embeddings with a 1x1 convolution. In PerPixelBaseline+ the transformer module
gives each class an embedding, and a pixel's logit for a class is the dot product of the two.

Shapes: B images of H x W, K classes, C hidden channels, C_E embedding channels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from .configuration_maskformer import PerPixelBaselineConfig
from .modeling_maskformer import (
    MaskFormerUniversalModelOutput,
    MaskFormerUniversalPreTrainedModel,
    enter_pipeline_table,
    whole_canvas,
)
from .per_pixel_loss import cross_entropy_sum, labels_on_grid, loss_normalizers
from .pixel_level_module import PixelLevelModule, attended_channels
from .segmentation_module import MaskHead
from .transformer_decoder import TransformerDecoder


@dataclass
class PerPixelBaselineForSemanticSegmentationOutput(ModelOutput):
    """A class for every pixel.

    Args:
        loss: sum of `loss_dict`, when labels are given.
        loss_dict: `loss_sem_seg`, and `loss_sem_seg_0` ... for the auxiliary layers of PerPixelBaseline+, the first
            decoder layer being 0.
        logits: (B, K, H/4, W/4).
        pixel_mask: (B, H, W); its shape is the canvas, its ones are the image. Post-processing needs it.
        hidden_states, attentions, cross_attentions: as in `MaskFormerUniversalModelOutput`; empty without a decoder.
    """

    loss: torch.FloatTensor | None = None
    loss_dict: dict[str, torch.FloatTensor] | None = None
    logits: torch.FloatTensor | None = None
    pixel_mask: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


class PixelClassifier(nn.Conv2d):
    """A 1x1 convolution, a class of its own because of its initial weights."""

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__(config.mask_feature_size, config.num_labels, kernel_size=1)


class PixelClassificationModule(nn.Module):
    """Per-pixel embeddings to label logits."""

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__()
        if config.use_transformer_decoder:
            self.mask_head = MaskHead(config)
        else:
            self.classifier = PixelClassifier(config)

    def forward(self, segment_embeddings: torch.Tensor | None, pixel_embeddings: torch.Tensor) -> torch.Tensor:
        """Q (B, K, C) of one decoder layer, None without one, and E_pixel (B, C_E, h, w) to (B, K, h, w)."""
        if segment_embeddings is None:
            return self.classifier(pixel_embeddings)
        label_embeddings = self.mask_head(segment_embeddings)  # (B, K, C_E)
        return torch.einsum("bkc,bchw->bkhw", label_embeddings, pixel_embeddings)  # (B, K, h, w)


class PerPixelBaselinePreTrainedModel(MaskFormerUniversalPreTrainedModel):
    """Initialisation and loading."""

    config: PerPixelBaselineConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, PixelClassifier):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PerPixelBaselineModel(PerPixelBaselinePreTrainedModel):
    """The network up to its embeddings: pixel-level module, and the transformer module of PerPixelBaseline+."""

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^segmentation_module\."]  # of a whole model's file

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__(config)
        self.pixel_level_module = PixelLevelModule(config)
        self.transformer_module = None
        if config.use_transformer_decoder:
            self.transformer_module = TransformerDecoder(config, attended_channels(config, self.pixel_level_module))
        self.post_init()

    @capture_outputs
    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, **kwargs
    ) -> MaskFormerUniversalModelOutput:
        """`pixel_values` (B, 3, H, W), normalised; `pixel_mask` is accepted and not used, as in the official code.

        Further arguments: `return_dict`, `output_hidden_states`, and `output_attentions`, for eager attention.
        The output's `segment_embeddings` are one (B, K, C) a decoder layer, None without a decoder.
        """
        image_features, pixel_embeddings, attended = self.pixel_level_module(pixel_values)
        return MaskFormerUniversalModelOutput(
            image_features=image_features,
            pixel_embeddings=pixel_embeddings,
            segment_embeddings=self.transformer_module(attended) if self.transformer_module is not None else None,
        )


class PerPixelBaselineForSemanticSegmentation(PerPixelBaselinePreTrainedModel):
    """A per-pixel baseline with its classifier and its loss."""

    _auto_class = "AutoModelForSemanticSegmentation"

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__(config)
        self.model = PerPixelBaselineModel(config)
        self.segmentation_module = PixelClassificationModule(config)
        self.post_init()
        enter_pipeline_table("MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES", PerPixelBaselineForSemanticSegmentation)

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        normalizers: dict[str, torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PerPixelBaselineForSemanticSegmentationOutput:
        """Classifies every pixel, and gives the cross-entropy at full resolution where labels are given.

        Args:
            pixel_values: (B, 3, H, W), normalised.
            pixel_mask: (B, H, W), one on the image and zero on padding; handed on to post-processing, not used.
            labels: integers (B, H, W) on the padded canvas, `config.ignore_index` where there is no class.
            normalizers: what the losses are divided by, from `loss_normalizers`; by default what this batch has.
            output_hidden_states: whether to return the states of the decoder layers.
            output_attentions: whether to return their attention weights, which eager attention has.

        Raises `ValueError` where labels do not fit the images or the label set.
        """
        batch, _, height, width = pixel_values.shape
        embeddings = self.model(pixel_values, **self.recorded_outputs(output_hidden_states, output_attentions))
        segment_embeddings = embeddings.segment_embeddings or (None,)
        logits = self.segmentation_module(segment_embeddings[-1], embeddings.pixel_embeddings)  # (B, K, H/4, W/4)
        loss_dict = None
        if labels is not None:
            if labels.shape != (batch, height, width):
                raise ValueError(
                    f"labels of shape {tuple(labels.shape)} do not fit pixel_values; it must be"
                    f" ({batch}, {height}, {width}), the padded canvas"
                )
            loss_dict = self.losses(logits, segment_embeddings[:-1], embeddings.pixel_embeddings, labels, normalizers)
        output = PerPixelBaselineForSemanticSegmentationOutput(
            loss=sum(loss_dict.values()) if loss_dict else None,
            loss_dict=loss_dict,
            logits=logits,
            pixel_mask=whole_canvas(pixel_values) if pixel_mask is None else pixel_mask,
            hidden_states=embeddings.hidden_states,
            attentions=embeddings.attentions,
            cross_attentions=embeddings.cross_attentions,
        )
        return output if return_dict is not False else output.to_tuple()

    def loss_normalizers(self, batches: list[dict]) -> dict[str, torch.Tensor]:
        """What the losses of one step are divided by, for `forward`, from the `labels` of all micro-batches; to be used
        as `MaskFormerForUniversalSegmentation.loss_normalizers` is."""
        return loss_normalizers([batch["labels"] for batch in batches], self.config.ignore_index, self.device)

    def losses(
        self,
        logits: torch.Tensor,
        auxiliary_embeddings: tuple[torch.Tensor, ...],
        pixel_embeddings: torch.Tensor,
        labels: torch.Tensor,
        normalizers: dict[str, torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        """The losses of all layers by their official names. Logits of auxiliary layers exist one layer at a time."""
        ignore_index = self.config.ignore_index
        labels = labels_on_grid(labels, logits, ignore_index)
        if normalizers is None:
            normalizers = loss_normalizers([labels], ignore_index, logits.device)

        def loss(logits: torch.Tensor) -> torch.Tensor:
            total = cross_entropy_sum(logits, labels, ignore_index)
            return total / normalizers["num_pixels"].to(total)

        losses = {"loss_sem_seg": loss(logits)}
        if self.config.deep_supervision:
            for layer, segment_embeddings in enumerate(auxiliary_embeddings):
                layer_logits = self.segmentation_module(segment_embeddings, pixel_embeddings)  # (B, K, H/4, W/4)
                losses[f"loss_sem_seg_{layer}"] = loss(layer_logits)
        return losses


__all__ = [
    "PerPixelBaselineForSemanticSegmentation",
    "PerPixelBaselineForSemanticSegmentationOutput",
    "PerPixelBaselineModel",
    "PerPixelBaselinePreTrainedModel",
]
