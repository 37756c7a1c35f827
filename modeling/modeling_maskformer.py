"""MaskFormer, in the order of Figure 2: pixel-level module, transformer module, segmentation module.

Shapes: B images of H x W, N queries, K classes, L decoder layers, C hidden channels, C_E embedding channels.
Symbols of section 3.3: image features F, per-pixel embeddings E_pixel, per-segment embeddings Q, mask embeddings
E_mask.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, logging
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_maskformer import MaskFormerUniversalConfig
from .initialization import initialize
from .loss import loss_normalizers, mask_classification_losses
from .pixel_decoder import MaskProjection
from .pixel_level_module import PixelLevelModule, attended_channels
from .point_sampling import PointSampling
from .saved_folder import auto_map, replace_template_card, write_model_card
from .segmentation_module import SegmentationModule
from .transformer_decoder import ImageAttention, QueryAttention, TransformerDecoder, TransformerDecoderLayer
from .transformers_layout import HUB_ARGUMENTS, is_transformers_layout, read_transformers_layout

logger = logging.get_logger(__name__)


@dataclass
class MaskFormerUniversalModelOutput(ModelOutput):
    """What the network computes before it is told what a class or a mask is.

    Args:
        image_features: F, the backbone's maps of strides 4, 8, 16 and 32.
        pixel_embeddings: E_pixel, (B, C_E, H/4, W/4).
        segment_embeddings: Q, one (B, N, C) a decoder layer.
        hidden_states: with `output_hidden_states`, what enters the first decoder layer and what leaves each, (B, N, C).
        attentions: with `output_attentions`, the weights between queries of each decoder layer, (B, heads, N, N).
        cross_attentions: likewise those of the M places of the image, (B, heads, N, M).
    """

    image_features: tuple[torch.FloatTensor, ...] | None = None
    pixel_embeddings: torch.FloatTensor | None = None
    segment_embeddings: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MaskFormerForUniversalSegmentationOutput(ModelOutput):
    """N masks, each with a class.

    Args:
        loss: weighted sum of `loss_dict`, when targets are given.
        loss_dict: weighted losses: `loss_ce`, `loss_mask`, `loss_dice`, and `loss_ce_0` ... for the auxiliary layers,
            the first decoder layer being 0.
        class_queries_logits: (B, N, K+1), the last class being "no object".
        masks_queries_logits: (B, N, H/4, W/4).
        auxiliary_logits: one dict of those two for each decoder layer but the last; None where they are not wanted.
        pixel_mask: (B, H, W); its shape is the canvas, its ones are the image. Post-processing needs it.
        hidden_states, attentions, cross_attentions: as in `MaskFormerUniversalModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    loss_dict: dict[str, torch.FloatTensor] | None = None
    class_queries_logits: torch.FloatTensor | None = None
    masks_queries_logits: torch.FloatTensor | None = None
    auxiliary_logits: list[dict[str, torch.FloatTensor]] | None = None
    pixel_mask: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


class MaskFormerUniversalPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving."""

    config: MaskFormerUniversalConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["TransformerDecoderLayer", "TransformerEncoderLayer", "Block"]
    _can_record_outputs = {
        "hidden_states": OutputRecorder(TransformerDecoderLayer, num_hidden_layers_key="decoder_layers"),
        "attentions": OutputRecorder(QueryAttention, index=1),
        "cross_attentions": OutputRecorder(ImageAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        initialize(module, pre_norm=self.config.pre_norm)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False):
        # For code outside of transformers it would skip modules without parameters of their own (attention, decoder),
        # lest they overwrite loaded ones; `initialize` leaves those alone anyway.
        super()._initialize_weights(module, is_custom_code=False)

    def post_init(self):
        """As `PreTrainedModel.post_init`; `_no_split_modules` then names layers of this model only.

        FSDP refuses names of layers that are absent, such as those of Swin's blocks in a ResNet.
        """
        super().post_init()
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    def get_input_embeddings(self) -> None:
        """None: images have no table of embeddings. Without this, transformers raises where FSDP asks."""
        return None

    def save_pretrained(self, save_directory, *args, is_main_process: bool = True, **kwargs):
        """As `PreTrainedModel.save_pretrained`; the folder also says which class is which, and has a model card."""
        self.config.auto_map = auto_map(self.config) or self.config.auto_map
        super().save_pretrained(save_directory, *args, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_model_card(self.config, Path(save_directory))

    def _upload_modified_files(self, working_dir, repo_id: str, *args, **kwargs):
        """Before it uploads, transformers has put an empty template in the place of a card that is not on the Hub."""
        replace_template_card(self.config, Path(working_dir), repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def recorded_outputs(self, output_hidden_states: bool | None, output_attentions: bool | None) -> dict[str, bool]:
        """What is to be recorded, as arguments of the network; None means what the configuration says.

        Raises `ValueError` where attention weights are wanted that the attention in use does not give.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_attentions and self.config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions needs attn_implementation='eager', not {self.config._attn_implementation!r}, which"
                " keeps no weights: model.set_attn_implementation('eager')"
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}


def enter_pipeline_table(table: str, model_class: type[PreTrainedModel]) -> None:
    """Adds a class to `table` of names: pipelines log an error for a model that is in none, remote code included."""
    # Here, for registering the models (maskformer/registration.py) follows this import and needs them whole.
    from transformers.models.auto import modeling_auto

    getattr(modeling_auto, table).setdefault(model_class.config_class.model_type, model_class.__name__)


def whole_canvas(pixel_values: torch.Tensor) -> torch.Tensor:
    """The pixel mask of images (B, 3, H, W) that fill their canvas, int64 (B, H, W)."""
    return torch.ones_like(pixel_values[:, 0], dtype=torch.int64)  # (B, H, W)


def layer_predictions(class_logits: torch.Tensor, mask_logits: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """What layers predict, (L, B, N, K+1) and (L, B, N, h, w), as one dict each."""
    return [
        {"class_queries_logits": classes, "masks_queries_logits": masks}
        for classes, masks in zip(class_logits, mask_logits, strict=True)
    ]


class MaskFormerUniversalModel(MaskFormerUniversalPreTrainedModel):
    """The network of Figure 2 up to its embeddings: pixel-level module and transformer module."""

    _auto_class = "AutoModel"  # saved folders hold the code

    _keys_to_ignore_on_load_unexpected = [r"^segmentation_module\."]  # of a whole model's file

    def __init__(self, config: MaskFormerUniversalConfig):
        super().__init__(config)
        self.pixel_level_module = PixelLevelModule(config)
        self.transformer_module = TransformerDecoder(config, attended_channels(config, self.pixel_level_module))
        self.post_init()

    @capture_outputs
    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, project: bool = True, **kwargs
    ) -> MaskFormerUniversalModelOutput:
        """`pixel_values` (B, 3, H, W), normalised; `pixel_mask` is accepted and not used, as in the official code.

        Further arguments: `return_dict`, `output_hidden_states`, and `output_attentions`, for eager attention. Without
        `project`, `pixel_embeddings` are what the pixel decoder's last convolution makes them of.
        """
        image_features, pixel_embeddings, attended = self.pixel_level_module(pixel_values, project)
        return MaskFormerUniversalModelOutput(
            image_features=image_features,
            pixel_embeddings=pixel_embeddings,
            segment_embeddings=self.transformer_module(attended),
        )


class MaskFormerForUniversalSegmentation(MaskFormerUniversalPreTrainedModel):
    """MaskFormer with its heads and its loss: semantic, instance and panoptic segmentation by one model."""

    _auto_class = "AutoModelForUniversalSegmentation"

    def __init__(self, config: MaskFormerUniversalConfig):
        super().__init__(config)
        self.model = MaskFormerUniversalModel(config)
        self.segmentation_module = SegmentationModule(config)
        self.post_init()
        enter_pipeline_table("MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES", MaskFormerForUniversalSegmentation)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """As `PreTrainedModel.from_pretrained`; checkpoints of transformers' own MaskFormer are converted."""
        name = pretrained_model_name_or_path
        if name is None or config is not None or not is_transformers_layout(name, kwargs):
            return super().from_pretrained(name, *args, config=config, **kwargs)
        config, state_dict = read_transformers_layout(name, kwargs)
        logger.warning(f"{name} holds transformers' own MaskFormer; its configuration and weights are converted.")
        kwargs = {key: value for key, value in kwargs.items() if key not in HUB_ARGUMENTS}
        loading = {"dtype", "torch_dtype"}  # of the weights: `from_pretrained` reads them, "auto" included
        config.update({key: kwargs.pop(key) for key in list(kwargs) if hasattr(config, key) and key not in loading})
        loaded = super().from_pretrained(None, *args, config=config, state_dict=state_dict, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        model.config.name_or_path = model.name_or_path = str(name)
        return loaded

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        mask_labels: list[torch.Tensor] | None = None,
        class_labels: list[torch.Tensor] | None = None,
        return_dict: bool | None = None,
        normalizers: dict[str, torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        output_auxiliary_logits: bool | None = None,
    ) -> MaskFormerForUniversalSegmentationOutput:
        """Predicts N masks with one class each, and their loss where targets are given (section 3.3).

        Args:
            pixel_values: (B, 3, H, W), normalised.
            pixel_mask: (B, H, W), one on the image and zero on padding; handed on to post-processing, not used.
            mask_labels: for each image the target masks, bool (n_i, H, W) on the padded canvas.
            class_labels: for each image their classes, int64 (n_i,).
            normalizers: what the losses are divided by, from `loss_normalizers`; by default what this batch has.
            output_hidden_states: whether to return the states of the decoder layers.
            output_attentions: whether to return their attention weights, which eager attention has.
            output_auxiliary_logits: whether to return what the other layers predict, by default as the configuration
                says; without targets, the last layer's predictions take less time alone.

        Raises `ValueError` where targets do not fit the images or the label set.
        """
        learns = mask_labels is not None and class_labels is not None
        if output_auxiliary_logits is None:
            output_auxiliary_logits = self.config.output_auxiliary_logits
        with_auxiliary = learns or output_auxiliary_logits
        one_layer = not (self.config.deep_supervision and with_auxiliary)
        projection = self.late_projection(len(pixel_values)) if one_layer and not learns else None
        recorded = self.recorded_outputs(output_hidden_states, output_attentions)
        embeddings = self.model(pixel_values, project=projection is None, **recorded)
        segment_embeddings = embeddings.segment_embeddings[-1 if one_layer else 0 :]
        class_logits, mask_logits = self.segmentation_module(
            torch.stack(segment_embeddings), embeddings.pixel_embeddings, projection
        )
        loss_dict = None
        if learns:
            loss_dict = self.weighted_losses(
                class_logits, mask_logits, mask_labels, class_labels, tuple(pixel_values.shape[-2:]), normalizers
            )
        output = MaskFormerForUniversalSegmentationOutput(
            loss=sum(loss_dict.values()) if loss_dict else None,
            loss_dict=loss_dict,
            class_queries_logits=class_logits[-1],
            masks_queries_logits=mask_logits[-1],
            auxiliary_logits=layer_predictions(class_logits[:-1], mask_logits[:-1]) if with_auxiliary else None,
            pixel_mask=whole_canvas(pixel_values) if pixel_mask is None else pixel_mask,
            hidden_states=embeddings.hidden_states,
            attentions=embeddings.attentions,
            cross_attentions=embeddings.cross_attentions,
        )
        return output if return_dict is not False else output.to_tuple()

    def late_projection(self, images: int) -> MaskProjection | None:
        """The pixel decoder's last convolution if, of one layer's masks, it had better come after the dot products.

        It had not with more queries than per-pixel features, and cannot in a program for any number of images, or
        where an adapter stands in its place.
        """
        projection = self.model.pixel_level_module.pixel_decoder.mask_projection
        compiles = torch.compiler.is_exporting() or (torch.compiler.is_compiling() and images != 1)
        fewer = self.config.num_queries < self.config.mask_feature_size
        return projection if fewer and not compiles and type(projection) is MaskProjection else None

    def loss_normalizers(self, batches: list[dict]) -> dict[str, torch.Tensor]:
        """What the losses of one step of the optimiser are divided by, for `forward`.

        `batches` are all micro-batches whose gradients this process adds up; only their `class_labels` are read. All
        processes of a job must call this together, before the first forward pass. The sum of the gradients of the
        micro-batches, averaged over processes (as DDP and FSDP do), is then the gradient of one batch of all images,
        and likewise the losses. So nothing else may divide by the number of micro-batches: `Accelerator.backward` does
        unless its `gradient_accumulation_steps` is 1 (`no_sync` then holds back the exchange of gradients).
        """
        class_labels = [labels for batch in batches for labels in batch["class_labels"]]
        return loss_normalizers(class_labels, self.config.num_queries, self.config.no_object_weight, self.device)

    def weighted_losses(
        self,
        class_logits: torch.Tensor,
        mask_logits: torch.Tensor,
        mask_labels: list[torch.Tensor],
        class_labels: list[torch.Tensor],
        canvas_size: tuple[int, int],
        normalizers: dict[str, torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        """The losses of all layers by their official names, weighted; the last layer's carry no number."""
        config = self.config
        points = None
        if config.train_num_points is not None:
            points = PointSampling(config.train_num_points, config.oversample_ratio, config.importance_sample_ratio)
        weights = {"loss_ce": config.class_weight, "loss_mask": config.mask_weight, "loss_dice": config.dice_weight}
        losses = mask_classification_losses(
            class_logits,
            mask_logits,
            mask_labels,
            class_labels,
            tuple(weights.values()),
            config.no_object_weight,
            canvas_size,
            normalizers,
            points,
        )
        last = len(class_logits) - 1
        return {
            name if layer == last else f"{name}_{layer}": weights[name] * loss for (name, layer), loss in losses.items()
        }


__all__ = [
    "MaskFormerForUniversalSegmentation",
    "MaskFormerForUniversalSegmentationOutput",
    "MaskFormerUniversalModel",
    "MaskFormerUniversalModelOutput",
    "MaskFormerUniversalPreTrainedModel",
]
