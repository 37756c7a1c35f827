"""Configurations of MaskFormer and of the per-pixel baselines (arXiv 2107.06278).

Types are checked when a configuration is made; that needs annotations that are types, not text (`from __future__`).
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class SegmentationNetworkConfig(PreTrainedConfig):
    r"""The backbone, the pixel decoder and the transformer decoder, which all models of the paper share (section 4.1).

    The number of classes K is `num_labels`, set through `id2label`.

    Args:
        backbone: a Swin by its timm name (`swin_tiny_patch4_window7_224`), or any timm model that has `features_only`
            with maps of strides 4, 8, 16 and 32 (`resnet50`, `convnext_tiny`, `tf_efficientnet_lite0`).
        backbone_kwargs: further arguments of the backbone, for instance `{"drop_path_rate": 0.3}`.
        freeze_batch_norm: the backbone's batch norm keeps its statistics and its affine parameters, as in the paper.
            Switch it off to train a backbone from scratch.
        pixel_decoder_encoder_layers: transformer encoder layers on the stride-32 map of the pixel decoder (0 or 6 in
            the paper).
        feature_size: channels of the feature pyramid.
        mask_feature_size: channels C_E of the per-pixel and mask embeddings.
        hidden_size: width of the transformer decoder.
        num_attention_heads: heads of each of its attentions.
        intermediate_size: width of its feed-forward layers.
        decoder_layers: number of its layers L.
        decoder_stride: stride of the backbone's map that it attends to: 32 in the paper, finer where images are small.
        dropout: of its attention weights, feed-forward layers and residuals.
        pre_norm: normalise before each sublayer instead of after it.
        deep_supervision: every decoder layer predicts and is supervised, not only the last.
        label_colors: RGB colour of each label (0 to 255), for pictures.
        weights_license: licence of the weights, as the Hub names it, where it is known: converted official weights are
            "cc-by-nc-4.0". Model cards repeat it.
    """

    backbone: str = "resnet50"
    backbone_kwargs: dict[str, Any] | None = None
    freeze_batch_norm: bool = True
    pixel_decoder_encoder_layers: int = 0
    feature_size: int = 256
    mask_feature_size: int = 256
    hidden_size: int = 256
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    decoder_layers: int = 6
    decoder_stride: int = 32
    dropout: float | int = 0.1
    pre_norm: bool = False
    deep_supervision: bool = True
    label_colors: list[list[int]] | None = None
    weights_license: str | None = None

    # What an evaluation by transformers' Trainer need not keep.
    keys_to_ignore_at_inference = ["loss_dict", "auxiliary_logits", "hidden_states", "attentions", "cross_attentions"]

    def validate_architecture(self):
        """Refuses combinations that no network can be built from."""
        for name in ("feature_size", "hidden_size"):
            value = getattr(self, name)
            if value % 32:
                raise ValueError(f"{name} must be a multiple of 32, for group normalisation and positions, not {value}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads"
                f" ({self.num_attention_heads})"
            )
        if self.decoder_layers < 1 or self.num_queries < 1:
            raise ValueError(
                f"decoder_layers and num_queries must be at least 1, not {self.decoder_layers} and {self.num_queries}"
            )
        if self.decoder_stride not in (4, 8, 16, 32):
            raise ValueError(f"decoder_stride must be 4, 8, 16 or 32, not {self.decoder_stride}")
        if self.pixel_decoder_encoder_layers and self.decoder_stride != 32:
            raise ValueError("with pixel_decoder_encoder_layers the decoder attends to the encoder's map, of stride 32")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")


@strict
class MaskFormerUniversalConfig(SegmentationNetworkConfig):
    r"""Everything that defines a MaskFormer; the defaults are the paper's (section 4.1).

    Beyond the fields of `SegmentationNetworkConfig`; queries predict one class more than `num_labels`, "no object".

    Args:
        num_queries: number of segments N that are predicted.
        class_weight: weight of the cross-entropy, in the loss and in the matching cost.
        mask_weight: weight of the focal loss, lambda_focal, likewise.
        dice_weight: weight of the dice loss, lambda_dice, likewise.
        no_object_weight: weight of the class "no object" inside the cross-entropy.
        output_auxiliary_logits: whether predictions of the auxiliary layers are returned where there are no targets.
            Without them inference computes and holds one layer's masks only.
        train_num_points: masks are matched and scored at so many sampled points instead of everywhere, as
            Mask2Former does (12544 there). The paper's loss is that of full resolution, None.
        oversample_ratio: of the points of the loss, how many times as many are drawn to choose uncertain ones from.
        importance_sample_ratio: the share of the points that are the most uncertain of those drawn.
    """

    model_type = "maskformer_universal"
    _auto_class = "AutoConfig"  # saved folders hold the code

    num_queries: int = 100
    class_weight: float | int = 1.0
    mask_weight: float | int = 20.0
    dice_weight: float | int = 1.0
    no_object_weight: float | int = 0.1
    output_auxiliary_logits: bool = True
    train_num_points: int | None = None
    oversample_ratio: float | int = 3.0
    importance_sample_ratio: float | int = 0.75

    def validate_point_sampling(self):
        """Refuses numbers of points that cannot be drawn."""
        if self.train_num_points is not None and self.train_num_points < 1:
            raise ValueError(f"train_num_points must be at least 1, or None, not {self.train_num_points}")
        if self.oversample_ratio < 1 or not 0 <= self.importance_sample_ratio <= 1:
            raise ValueError(
                "oversample_ratio must be at least 1 and importance_sample_ratio lie in [0, 1], not"
                f" {self.oversample_ratio} and {self.importance_sample_ratio}"
            )


@strict
class PerPixelBaselineConfig(SegmentationNetworkConfig):
    r"""Everything that defines a per-pixel baseline (section 4.1); the defaults are PerPixelBaseline's of ADE20K.

    Beyond the fields of `SegmentationNetworkConfig`; those of the transformer decoder count for PerPixelBaseline+ only.

    Args:
        use_transformer_decoder: the transformer decoder makes one embedding a class, which pixels are compared with
            (PerPixelBaseline+). Otherwise a 1x1 convolution classifies them.
        ignore_index: the label of pixels without a class; the loss leaves them out.
    """

    model_type = "per_pixel_baseline"
    _auto_class = "AutoConfig"

    use_transformer_decoder: bool = False
    ignore_index: int = 255

    @property
    def num_queries(self) -> int:
        """Each class has its query: N = K."""
        return self.num_labels


__all__ = ["MaskFormerUniversalConfig", "PerPixelBaselineConfig"]
