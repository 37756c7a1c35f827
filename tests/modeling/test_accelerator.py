"""What a GPU computes is what the CPU computes, and mixed precision keeps the losses exact.

python -m pytest -m gpu
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from helpers import ROOT, with_segments
from maskformer import MaskFormerUniversalImageProcessor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
BACKBONES = ["resnet18", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0"]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """No TF32: float32 products, as on the CPU."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def batch(device: str = "cpu") -> dict:
    """Two random images of 3 and 0 targets, one of which is padded."""
    random = torch.Generator().manual_seed(1)
    pixel_mask = torch.ones(2, 96, 128, dtype=torch.bool)
    pixel_mask[1, :, 100:] = False
    return {
        "pixel_values": torch.randn(2, 3, 96, 128, generator=random).to(device),
        "pixel_mask": pixel_mask.to(device),
        "mask_labels": [torch.rand(n, 96, 128, generator=random).gt(0.5).to(device) for n in (3, 0)],
        "class_labels": [torch.randint(4, (n,), generator=random).to(device) for n in (3, 0)],
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_outputs_losses_and_gradients_are_those_of_the_cpu(tiny_model, backbone):
    model = tiny_model(backbone=backbone)
    here = model(**batch())
    here.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    there = model.cuda()(**batch("cuda"))
    there.loss.backward()
    for name in ("class_queries_logits", "masks_queries_logits", "loss"):
        torch.testing.assert_close(there[name].cpu(), here[name], rtol=1e-3, atol=1e-3)
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert name not in expected
            continue
        distance = (parameter.grad.cpu() - expected[name]).norm()
        assert distance <= 1e-3 * expected[name].norm() + 1e-6, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("points", [None, 500])
def test_losses_are_float32_under_autocast(tiny_model, dtype, points):
    model = tiny_model(train_num_points=points).cuda()
    with torch.autocast("cuda", dtype):
        outputs = model(**batch("cuda"))
    torch.manual_seed(0)
    exact = model(**batch("cuda")).loss
    assert outputs.loss.dtype == torch.float32 and outputs.class_queries_logits.dtype == dtype
    assert abs(outputs.loss - exact) <= 0.05 * exact
    outputs.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["semantic", "panoptic", "instance"])
def test_answers_are_those_of_the_cpu(tiny_model, name):
    model = with_segments(tiny_model())
    processor = MaskFormerUniversalImageProcessor()
    with torch.no_grad():
        outputs = model(batch()["pixel_values"])
    post_process = getattr(processor, f"post_process_{name}_segmentation")
    keywords = {"target_sizes": [(150, 200), (75, 100)]}
    here = post_process(outputs, **keywords)
    for field in ("class_queries_logits", "masks_queries_logits"):
        outputs[field] = outputs[field].cuda()
    there = post_process(outputs, **keywords)
    for cpu, gpu in zip(here, there, strict=True):
        if name == "semantic":
            assert (cpu == gpu.cpu()).float().mean() > 0.999
            continue
        assert [row["label_id"] for row in cpu["segments_info"]] == [row["label_id"] for row in gpu["segments_info"]]
        assert (cpu["segmentation"] == gpu["segmentation"].cpu()).float().mean() > 0.999


def test_a_compiled_model_answers_the_same(tiny_model):
    model = tiny_model().cuda()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for height, width in ((64, 96), (96, 160)):
            pixel_values = torch.randn(1, 3, height, width, device="cuda")
            expected, given = model(pixel_values), compiled(pixel_values)
            torch.testing.assert_close(given.masks_queries_logits, expected.masks_queries_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_on_the_accelerator(tmp_path, precision):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += ["--mixed_precision", precision, "scripts/train.py", "--recipe", "shapes/demo", "--max_steps", "3"]
    command += ["--backbone_weights", "null", "--train_scenes", "16", "--validation_scenes", "4"]
    run = subprocess.run([*command, "--output_dir", tmp_path / "run"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "PQ" in run.stdout
