"""Compiled, exported and ONNX networks answer as the model does, at sizes that they were not made at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from helpers import with_segments
from maskformer import MaskFormerUniversalImageProcessorPil, PerPixelBaselineImageProcessorPil
from maskformer.export import SIZES, main, parity
from maskformer.onnx_model import OnnxModel

SWIN = {
    "backbone": "swin_tiny_patch4_window7_224",
    "backbone_kwargs": {"embed_dim": 12, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]},
    "pixel_decoder_encoder_layers": 1,
}
KINDS = {"resnet": {}, "swin with encoder": SWIN}


def pixels(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


def assert_same(found, expected) -> None:
    for name in ("class_queries_logits", "masks_queries_logits"):
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(getattr(found, name), expected[name], rtol=0, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_compilation_serves_all_sizes(tiny_model, kind, backend):
    model = tiny_model(**KINDS[kind])
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for size in [(2, 64, 96), (2, 96, 64), (3, 128, 160), (3, 75, 101)]:
            assert_same(compiled(pixels(*size)), model(pixels(*size)))
    assert counter.frame_count <= 2  # whole images of the window or the stride, and others


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_torch_export_with_dynamic_batch_and_size(tiny_model, kind):
    model = tiny_model(**KINDS[kind])
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with torch.no_grad():
        program = torch.export.export(model, (pixels(2, 96, 128),), dynamic_shapes=({**free},), strict=False).module()
        for size in SIZES:
            assert_same(program(pixels(*size)), model(pixels(*size)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_of_a_maskformer(tiny_model, tmp_path, kind, capsys):
    model = with_segments(tiny_model(**KINDS[kind]))
    processor = MaskFormerUniversalImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 128}, label_ids_to_fuse=[0]
    )
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    path = tmp_path / "model.onnx"
    main([str(tmp_path / "model"), "--output", str(path)])
    printed = capsys.readouterr().out
    assert printed.count("masks_queries_logits") == len(SIZES)
    assert all(row["share"] < 1e-4 for row in parity(model, path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.onnx"]

    images = [
        np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        for i, size in enumerate([(60, 90), (100, 70)])
    ]
    inputs = processor(images=images, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs)
    outputs = OnnxModel(path)(inputs["pixel_values"], inputs["pixel_mask"])
    assert_same(outputs, expected)
    sizes = [(60, 90), (100, 70)]
    thresholds = {"threshold": 0.3, "overlap_mask_area_threshold": 0.3}  # at which each image has a segment
    for one, other in zip(
        processor.post_process_panoptic_segmentation(outputs, **thresholds, target_sizes=sizes),
        processor.post_process_panoptic_segmentation(expected, **thresholds, target_sizes=sizes),
        strict=True,
    ):
        assert [s["label_id"] for s in one["segments_info"]] == [s["label_id"] for s in other["segments_info"]] != []
        assert (one["segmentation"] != other["segmentation"]).float().mean() < 2e-3
    for method in ("semantic", "instance"):
        assert len(getattr(processor, f"post_process_{method}_segmentation")(outputs, target_sizes=sizes)) == 2

    with pytest.raises(SystemExit):
        main([str(tmp_path / "model"), "--output", str(path)])
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_of_a_per_pixel_baseline(tiny_per_pixel_model, tmp_path):
    model, processor = tiny_per_pixel_model(use_transformer_decoder=True), PerPixelBaselineImageProcessorPil()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), "--output", str(tmp_path / "model.onnx")])
    pixel_values = pixels(2, 75, 101)
    outputs = OnnxModel(tmp_path / "model.onnx")(pixel_values)
    with torch.no_grad():
        expected = model(pixel_values)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-4, atol=1e-4)
    same = torch.stack(processor.post_process_semantic_segmentation(outputs)) == torch.stack(
        processor.post_process_semantic_segmentation(expected)
    )
    assert same.float().mean() > 0.998


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        ("model", "model.txt", "ends in .onnx"),
        ("nothing", "new.onnx", "not a model folder"),
        ("model", "there.onnx", "--overwrite"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line_and_leaves_nothing(tmp_path, capsys, model, output, message):
    (tmp_path / "there.onnx").write_text("kept")
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path / model), "--output", str(tmp_path / output)])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "kept"
