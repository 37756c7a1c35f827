"""transformers' Trainer and PEFT train the models as the training script does."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForUniversalSegmentation, Trainer, TrainingArguments

from maskformer import (
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineImageProcessorPil,
    SegmentationMetrics,
)
from maskformer.metrics import MeanIoU, PanopticQuality
from maskformer.training.step import train_step


def scene(seed: int) -> dict:
    """An image and its label map: label 0, with a rectangle of label 1 + seed % 3."""
    random = np.random.default_rng(seed)
    labels = np.zeros((64, 64), np.uint8)
    top, left = random.integers(4, 28, 2)
    labels[top : top + 30, left : left + 30] = 1 + seed % 3
    image = (60 * labels[..., None] + random.integers(0, 40, (64, 64, 3))).astype(np.uint8)
    return {"image": image, "labels": labels}


SCENES = [scene(seed) for seed in range(4)]
PROCESSOR = MaskFormerUniversalImageProcessorPil(label_ids_to_fuse=[0])


def collate(examples: list[dict]) -> dict:
    return dict(
        PROCESSOR(
            images=[example["image"] for example in examples],
            segmentation_maps=[example["labels"] for example in examples],
            do_resize=False,
            return_tensors="pt",
        )
    )


def collate_per_pixel(examples: list[dict]) -> dict:
    batch = collate(examples)
    labels = torch.stack([torch.from_numpy(example["labels"]).long() for example in examples])
    return {"pixel_values": batch["pixel_values"], "pixel_mask": batch["pixel_mask"], "labels": labels}


def arguments(tmp_path, **changes) -> TrainingArguments:
    settings = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "max_grad_norm": 0.1,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "batch_eval_metrics": True,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(output_dir=str(tmp_path), **(settings | changes))


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("kind", ["maskformer", "per-pixel"])
def test_the_losses_of_the_training_script(tiny_model, tiny_per_pixel_model, tmp_path, kind, said):
    make, collator = (tiny_model, collate) if kind == "maskformer" else (tiny_per_pixel_model, collate_per_pixel)
    trainer = Trainer(make(), arguments(tmp_path), data_collator=collator, train_dataset=SCENES)
    trainer.train()
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    accelerator = Accelerator(cpu=True)
    expected = [
        float(train_step(accelerator, model, optimizer, [collator(SCENES)], clip_norm=0.1)["loss"]) for _ in range(3)
    ]
    assert expected[0] > expected[-1]
    assert losses(trainer) == pytest.approx(expected, rel=2e-3)
    assert losses(trainer)[0] == pytest.approx(expected[0], rel=1e-5)
    assert [text for text in said if "maskformer" in text.lower()] == []


def test_saves_and_resumes(tiny_model, tmp_path):
    whole = Trainer(tiny_model(), arguments(tmp_path / "whole"), data_collator=collate, train_dataset=SCENES)
    whole.train()
    first = arguments(tmp_path / "parts", max_steps=2, save_strategy="steps", save_steps=2)
    Trainer(tiny_model(), first, data_collator=collate, train_dataset=SCENES).train()
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    rest = Trainer(tiny_model(), arguments(tmp_path / "parts"), data_collator=collate, train_dataset=SCENES)
    rest.train(resume_from_checkpoint=str(checkpoint))
    assert rest.state.global_step == 3
    assert losses(rest)[-1] == pytest.approx(losses(whole)[-1], rel=1e-4)
    assert AutoModelForUniversalSegmentation.from_pretrained(checkpoint).config.num_queries == 7


def test_evaluates_by_panoptic_quality_and_mean_iou(tiny_model, tmp_path):
    """The numbers of the metrics themselves, on answers image by image; no logits are kept."""
    model = tiny_model()
    metrics = SegmentationMetrics(model.config, PROCESSOR)
    trainer = Trainer(
        model,
        arguments(tmp_path),
        data_collator=collate,
        eval_dataset=SCENES,
        preprocess_logits_for_metrics=metrics.preprocess_logits,
        compute_metrics=metrics.compute,
    )
    found = trainer.evaluate()
    iou = MeanIoU(num_labels=4, ignore_index=None)
    quality = PanopticQuality(categories=[{"id": label, "isthing": int(label > 0)} for label in range(4)])
    total = 0.0
    for example in SCENES:
        batch = collate([example])
        with torch.no_grad():
            outputs = model(**batch)
        total += float(outputs.loss) / len(SCENES)
        iou.add(
            prediction=PROCESSOR.post_process_semantic_segmentation(outputs)[0], reference=example["labels"].astype(int)
        )
        present = np.unique(example["labels"]).tolist()
        quality.add(
            prediction=PROCESSOR.post_process_panoptic_segmentation(outputs)[0],
            reference={
                "segmentation": example["labels"].astype(int) + 1,
                "segments_info": [{"id": label + 1, "label_id": label} for label in present],
            },
        )
    assert found["eval_mean_iou"] == pytest.approx(iou.compute()["mean_iou"], abs=1e-3)
    assert found["eval_pq"] == pytest.approx(quality.compute()["pq"], abs=1e-3, nan_ok=True)
    assert found["eval_loss"] == pytest.approx(total, rel=0.05)
    again = trainer.evaluate()
    assert again["eval_mean_iou"] == found["eval_mean_iou"]


def outputs_of(masks: torch.Tensor, labels: torch.Tensor, num_labels: int, pixel_mask: torch.Tensor) -> tuple:
    """Logits (class, mask, pixel mask) of a model that is sure of masks (n, H, W) and labels (n,)."""
    class_logits = torch.full((1, len(labels), num_labels + 1), -20.0)
    class_logits[0, range(len(labels)), labels] = 20.0
    mask_logits = torch.nn.functional.interpolate(40 * masks[None].float() - 20, scale_factor=0.25, mode="nearest")
    return class_logits, mask_logits, pixel_mask


def test_perfect_answers_have_quality_one_and_padding_does_not_count(tiny_config):
    metrics = SegmentationMetrics(tiny_config(), PROCESSOR)
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, :32, :32] = masks[1, :32, 32:] = masks[2, 32:48] = True
    labels = torch.tensor([0, 2, 2])
    pixel_mask = torch.zeros(1, 64, 64, dtype=torch.int64)
    pixel_mask[:, :48] = 1
    kept = metrics.preprocess_logits(outputs_of(masks, labels, 4, pixel_mask), ([masks], [labels]))
    assert kept.shape == (1,)
    assert metrics.compute(types.SimpleNamespace(), compute_result=False) == {}
    result = metrics.compute(types.SimpleNamespace())
    assert result["pq"] > 0.85 and result["rq"] == 1 and result["mean_iou"] > 0.85
    assert math.isnan(metrics.compute(types.SimpleNamespace())["mean_iou"])  # a fresh start


def test_a_per_pixel_baseline_is_evaluated_by_mean_iou(tiny_per_pixel_model, tmp_path):
    model = tiny_per_pixel_model()
    metrics = SegmentationMetrics(model.config, PerPixelBaselineImageProcessorPil())
    trainer = Trainer(
        model,
        arguments(tmp_path),
        data_collator=collate_per_pixel,
        eval_dataset=SCENES,
        preprocess_logits_for_metrics=metrics.preprocess_logits,
        compute_metrics=metrics.compute,
    )
    found = trainer.evaluate()
    assert 0 <= found["eval_mean_iou"] <= 1 and "eval_pq" not in found


def test_lora_trains_and_merges(tiny_model, tmp_path):
    import peft

    base = tiny_model()
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["class_head", "mask_head"])
    model = peft.get_peft_model(base, config)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in learning) and learning
    trainer = Trainer(model, arguments(tmp_path, max_steps=4), data_collator=collate, train_dataset=SCENES)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    model.eval()
    batch = collate(SCENES)
    with torch.no_grad():
        adapted = model(pixel_values=batch["pixel_values"])
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        loaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "adapter").eval()
        again = loaded(pixel_values=batch["pixel_values"])
    torch.testing.assert_close(again.masks_queries_logits, adapted.masks_queries_logits, rtol=1e-4, atol=1e-4)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    reloaded = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        outputs = reloaded(batch["pixel_values"])
    torch.testing.assert_close(outputs.masks_queries_logits, adapted.masks_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.class_queries_logits, adapted.class_queries_logits, rtol=1e-4, atol=1e-4)
