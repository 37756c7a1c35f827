"""`python -m maskformer.export`: a model folder to one ONNX file, for any batch and image size, and its parity."""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from maskformer.data.files import replace_file
from maskformer.data.nearest import Parser
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig
from maskformer.onnx_model import MISSING, OnnxModel
from maskformer.training.model_folder import load_model_folder

EXAMPLE = "python -m maskformer.export outputs/demo/best --output model.onnx"
# (images, height, width) at which the file is compared with the model: not the size it is exported at, and odd ones.
SIZES = [(1, 64, 96), (2, 96, 64), (3, 75, 101), (1, 160, 128)]
TOLERANCE = 1e-3  # of the largest logit


class Network(nn.Module):
    """A model as a function of the image alone, with the tensors as outputs that post-processing needs."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = copy.deepcopy(model).float()
        # The last layer's alone: a file has one output for each tensor.
        self.model.config.output_auxiliary_logits = False
        masks = isinstance(model.config, MaskFormerUniversalConfig)
        self.names = ["class_queries_logits", "masks_queries_logits"] if masks else ["logits"]
        self.eval()

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pixel_values` (B, 3, H, W), normalised, to the outputs that `names` names."""
        outputs = self.model(pixel_values)
        return tuple(outputs[name] for name in self.names)


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Writes `model` as an ONNX file, in float32, for any number of images of any size above 32 pixels.

    Raises `ImportError` where a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(MISSING) from error
    network = Network(model)
    example = torch.zeros(2, 3, 96, 128)
    # What the exporter reports of its progress, and of decompositions of other libraries, is of no use here.
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=network.names,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
    program.save(path, external_data=False)


@torch.no_grad()
def parity(model: PreTrainedModel, path: Path) -> list[dict]:
    """How far the file is from the model, on random images of `SIZES`: for each size and output, the largest absolute
    value, the largest difference, and the latter as a share of the former."""
    network, exported = Network(model), OnnxModel(path, ["CPUExecutionProvider"])
    numbers = torch.Generator().manual_seed(0)
    rows = []
    for images, height, width in SIZES:
        pixel_values = torch.randn(images, 3, height, width, generator=numbers)
        outputs = exported(pixel_values)
        for name, expected in zip(network.names, network(pixel_values), strict=True):
            largest = float(expected.abs().max())
            difference = float((getattr(outputs, name) - expected).abs().max())
            size = f"{images} x {height} x {width}"
            rows.append({"size": size, "output": name, "largest": largest, "difference": difference})
            rows[-1]["share"] = difference / largest if difference else 0.0
    return rows


def report(rows: list[dict]) -> str:
    """The rows of `parity` as a table."""
    lines = ["images x height x width  output                largest value  largest difference"]
    lines += [
        f"{row['size']:<24} {row['output']:<21} {row['largest']:13.4g}  {row['difference']:.2g} ({row['share']:.1g})"
        for row in rows
    ]
    return "\n".join(lines)


def export_folder(folder: Path, output: Path, overwrite: bool) -> str:
    """Exports the model in `folder` to the file `output`, all or nothing, and returns the report of its parity.

    Raises `ValueError` if there is no such model, if `output` exists already (unless `overwrite`), and where the file
    does not do what the model does.
    """
    if output.suffix != ".onnx":
        raise ValueError(f"{output}: the name of an ONNX file ends in .onnx")
    if output.is_dir() or (output.exists() and not overwrite):
        raise ValueError(f"{output}: this exists already; --overwrite replaces a file")
    model, _ = load_model_folder(folder)
    with replace_file(output) as temporary:
        export_onnx(model, temporary)
        rows = parity(model, temporary)
        if not all(row["share"] <= TOLERANCE for row in rows):  # NaN is no share either
            raise ValueError(f"{output}: not written, since onnxruntime disagrees with the model:\n{report(rows)}")
    return report(rows)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    about = "A model folder to one ONNX file, for any batch and image size; then compared with the model."
    parser = Parser(about, EXAMPLE, prog="python -m maskformer.export")
    parser.add_argument("model", metavar="MODEL", type=Path, help="the folder of a model, with its image processor")
    parser.add_argument("--output", metavar="FILE.onnx", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports what the command line says; whatever is wrong ends the program with exit code 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        print(export_folder(options.model, options.output, options.overwrite))
    except (ValueError, ImportError, OSError) as error:
        parser.error(str(error))
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
