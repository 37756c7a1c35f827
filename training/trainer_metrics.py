"""Panoptic quality and mean IoU for `transformers.Trainer`, counted batch by batch, without keeping logits."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import EvalPrediction, PreTrainedConfig

from maskformer.metrics import MeanIoU, PanopticQuality

VOID = -1  # of label maps: pixels that no target covers


class SegmentationMetrics:
    """The two functions by which a `Trainer` evaluates MaskFormer or a per-pixel baseline, in one process.

    ```python
    metrics = SegmentationMetrics(model.config, image_processor)
    Trainer(
        ...,
        args=TrainingArguments(..., batch_eval_metrics=True, remove_unused_columns=False),
        preprocess_logits_for_metrics=metrics.preprocess_logits,
        compute_metrics=metrics.compute,
    )
    ```

    With `batch_eval_metrics` the Trainer does not keep the targets either. Answers are compared at the size of the
    model's input, after `image_processor.test_protocol`; `scripts/eval.py` compares them at the size of the images.
    Labels are things unless `image_processor.label_ids_to_fuse` has them.
    """

    def __init__(self, config: PreTrainedConfig, image_processor):
        self.image_processor = image_processor
        self.ignore_index = getattr(config, "ignore_index", VOID)
        self.mean_iou = MeanIoU(num_labels=config.num_labels, ignore_index=self.ignore_index)
        self.quality = None
        if hasattr(image_processor, "post_process_panoptic_segmentation"):
            stuff = set(image_processor.label_ids_to_fuse or ())
            self.quality = PanopticQuality(
                categories=[{"id": label, "isthing": int(label not in stuff)} for label in range(config.num_labels)]
            )

    def preprocess_logits(self, logits: tuple[torch.Tensor, ...], labels) -> torch.Tensor:
        """Counts a batch of B images, and returns zeros (B,) for the Trainer to keep.

        `logits` are the model's outputs without loss: class and mask logits, or label logits, and the pixel mask.
        `labels` are `(mask_labels, class_labels)` of a MaskFormer, or label maps (B, H, W) of a per-pixel baseline.
        """
        if self.quality is None:
            outputs = SimpleNamespace(logits=logits[0], pixel_mask=logits[1])
            references = list(labels)
        else:
            names = ("class_queries_logits", "masks_queries_logits", "pixel_mask")
            outputs = SimpleNamespace(**dict(zip(names, logits, strict=True)))
            segments = [segments_of(*target) for target in zip(*labels, strict=True)]
            references = [semantic for _, semantic in segments]
            panoptic = self.image_processor.post_process_panoptic_segmentation(
                outputs, **(self.image_processor.test_protocol or {})
            )
            for answer, (truth, _) in zip(panoptic, segments, strict=True):
                self.quality.add(prediction=answer, reference=cut(truth, answer["segmentation"].shape))
        answers = self.image_processor.post_process_semantic_segmentation(outputs)
        for answer, truth in zip(answers, references, strict=True):
            height, width = answer.shape
            self.mean_iou.add(prediction=answer.cpu(), reference=truth[:height, :width].cpu())
        return outputs.pixel_mask.new_zeros(len(outputs.pixel_mask))

    def compute(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """The metrics of all that was counted, as fractions; nothing, unless `compute_result`."""
        if not compute_result:
            return {}
        iou = self.mean_iou.compute()
        result = {key: iou[key] for key in ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "overall_accuracy")}
        if self.quality is not None:
            quality = self.quality.compute()
            result |= {f"{key}{kind}": quality[f"{key}{kind}"] for key in ("pq", "sq", "rq") for kind in KINDS}
        return result


KINDS = ("", "_things", "_stuff")


def segments_of(masks: torch.Tensor, labels: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """The targets of one image, masks (n, H, W) and labels (n,), as segments and as a label map (H, W).

    Where masks overlap the last counts, since a pixel has one segment in both metrics.
    """
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32)
    semantic = torch.full(masks.shape[1:], VOID, dtype=torch.int64)
    for index, (mask, label) in enumerate(zip(masks.cpu().bool(), labels.tolist(), strict=True), start=1):
        ids[mask] = index
        semantic[mask] = label
    infos = [{"id": index, "label_id": label} for index, label in enumerate(labels.tolist(), start=1)]
    return {"segmentation": ids, "segments_info": infos}, semantic


def cut(truth: dict, size: tuple[int, int]) -> dict:
    """`truth` on the image's `size` (height, width), which lies at the top left of the canvas."""
    ids = truth["segmentation"][: size[0], : size[1]]
    present = set(ids.unique().tolist())
    return {"segmentation": ids, "segments_info": [info for info in truth["segments_info"] if info["id"] in present]}
