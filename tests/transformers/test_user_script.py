"""A user's script, with public names only: load, segment, fine-tune, adapt, export, load again, compare."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import maskformer
from helpers import with_segments

SCRIPT = """
import numpy as np
import peft
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, Trainer, TrainingArguments, pipeline

import maskformer
from maskformer.export import main as export
from maskformer.onnx_model import OnnxModel

# Load, and segment by the pipeline: three tasks.
image = Image.open("photo.png")
segmenter = pipeline("image-segmentation", model="model")
for task in ("panoptic", "instance", "semantic"):
    segments = segmenter(image, subtask=task, threshold=0.3)
    print(task, bool(segments), all(segment["mask"].size == image.size for segment in segments))

# Fine-tune on label maps.
processor = AutoImageProcessor.from_pretrained("model", backend="pil")
model = AutoModelForUniversalSegmentation.from_pretrained("model")
random = np.random.default_rng(0)
examples = [{"image": random.integers(0, 255, (64, 64, 3), np.uint8), "labels": np.eye(64, dtype=np.uint8)}] * 4


def collate(examples):
    images, maps = [e["image"] for e in examples], [e["labels"] for e in examples]
    return dict(processor(images, segmentation_maps=maps, return_tensors="pt"))


metrics = maskformer.SegmentationMetrics(model.config, processor)
arguments = TrainingArguments(
    "trainer", max_steps=2, per_device_train_batch_size=2, batch_eval_metrics=True, remove_unused_columns=False,
    report_to="none", use_cpu=True, disable_tqdm=True,
)
trainer = Trainer(
    model, arguments, data_collator=collate, train_dataset=examples, eval_dataset=examples,
    preprocess_logits_for_metrics=metrics.preprocess_logits, compute_metrics=metrics.compute,
)
trainer.train()
print("pq", 0 <= trainer.evaluate()["eval_pq"] <= 1)

# LoRA: train, merge, save with the image processor.
adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
loss = adapted(**collate(examples[:2])).loss
loss.backward()
torch.optim.AdamW(p for p in adapted.parameters() if p.requires_grad).step()
adapted.merge_and_unload().save_pretrained("merged")
processor.save_pretrained("merged")

# Export, load again, compare.
export(["merged", "--output", "merged.onnx"])
again = AutoModelForUniversalSegmentation.from_pretrained("merged")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    expected = again(**inputs)
exported = OnnxModel("merged.onnx")(inputs["pixel_values"], inputs["pixel_mask"])
print("same", torch.allclose(exported.masks_queries_logits, expected.masks_queries_logits, rtol=1e-3, atol=1e-3))
answers = [
    processor.post_process_panoptic_segmentation(outputs, threshold=0.3, target_sizes=[image.size[::-1]])[0]
    for outputs in (exported, expected)
]
print("segments", answers[0]["segments_info"] == answers[1]["segments_info"] or len(answers[0]["segments_info"]))
"""


@pytest.mark.slow
def test_load_segment_fine_tune_adapt_export_and_compare(tiny_model, tmp_path):
    with_segments(tiny_model()).save_pretrained(tmp_path / "model")
    maskformer.MaskFormerUniversalImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    ).save_pretrained(tmp_path / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 90, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-W", "default", "script.py"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    for expected in ("panoptic True True", "instance True True", "semantic True True", "pq True", "same True"):
        assert expected in lines
    assert "maskformer" not in "\n".join(line for line in run.stderr.splitlines() if "Warning" in line)
