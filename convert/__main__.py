"""`python -m maskformer.convert`: checkpoints between the official layout, transformers' and ours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from transformers import MaskFormerConfig
from transformers.utils import logging

from maskformer.convert import commands
from maskformer.convert.folders import MODELS, check_output

EXAMPLES = """examples:
  python -m maskformer.convert from-official model_final.pkl my-model --recipe ade20k-150/maskformer_r50
  python -m maskformer.convert to-official my-model model_final.pth
  python -m maskformer.convert from-transformers their-model my-model --verify
  python -m maskformer.convert to-transformers my-model their-model
  python -m maskformer.convert backbone R-50.pkl my-model --recipe ade20k-150/maskformer_r50
  python -m maskformer.convert backbone timm/resnet50.a1_in1k backbone.safetensors --model my-model"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="python -m maskformer.convert",
        description="Checkpoints between the official layout, transformers' and ours. Every conversion is strict.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, source: str, source_help: str, out: str, out_help: str) -> argparse.ArgumentParser:
        subparser = subparsers.add_parser(name, help=help, description=help, allow_abbrev=False)
        subparser.add_argument("source", metavar=source, help=source_help)
        subparser.add_argument("out", metavar=out, type=Path, help=out_help)
        subparser.add_argument("--verify", action="store_true", help="check the result by a forward pass")
        subparser.add_argument("--overwrite", action="store_true", help=f"replace {out} if it exists")
        return subparser

    official = "published .pkl (v1 or v2 layout) or training .pth"
    subparser = add(
        "from-official", "an official checkpoint to a model folder", "CHECKPOINT", official, "OUT", "folder"
    )
    subparser.add_argument("--recipe", help="name or YAML file; without, it is inferred from the weights if possible")
    add("to-official", "a model folder to an official checkpoint", "FOLDER", "ours", "OUT", ".pth, or .pkl of arrays")
    add("from-transformers", "transformers' MaskFormer to a model folder", "FOLDER", "transformers'", "OUT", "folder")
    add("to-transformers", "a model folder to transformers' MaskFormer", "FOLDER", "ours", "OUT", "folder")
    weights = "detectron2's .pkl; .pth or .safetensors of torchvision, Swin or timm; or timm/NAME on the Hub"
    out_help = "a folder gets the model, a .safetensors file its backbone"
    subparser = add("backbone", "pre-trained weights into a model's backbone", "CHECKPOINT", weights, "OUT", out_help)
    group = subparser.add_mutually_exclusive_group(required=True)
    group.add_argument("--model", type=Path, metavar="FOLDER", help="the model that gets the backbone (stays as it is)")
    group.add_argument("--recipe", help="name or YAML file of the recipe of a new model")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Calls the subcommand. Raises `ValueError` or `OSError` for wrong input."""
    theirs = arguments.command == "to-transformers"
    others = [Path(value) for name, value in vars(arguments).items() if name in ("model", "recipe") and value]
    others = [path for path in others if path.resolve() != arguments.out.resolve()]  # a model may get its new backbone
    sources = [Path(arguments.source), *others]
    model_types = [config.model_type for config in ([MaskFormerConfig] if theirs else MODELS)]
    check_output(arguments.out, arguments.overwrite, sources, model_types)
    source, out, verify = arguments.source, arguments.out, arguments.verify
    if arguments.command == "from-official":
        commands.convert_from_official(Path(source), out, arguments.recipe, verify)
    elif arguments.command == "to-official":
        commands.convert_to_official(Path(source), out, verify)
    elif arguments.command == "from-transformers":
        commands.convert_from_transformers(Path(source), out, verify)
    elif arguments.command == "to-transformers":
        commands.convert_to_transformers(Path(source), out, verify)
    else:
        commands.convert_backbone(source, out, arguments.model, arguments.recipe, verify)
    print(f"wrote {out}")


def main(words: Sequence[str] | None = None) -> int:
    """The program: 0, or 2 with one line on standard error for wrong input."""
    arguments = make_parser().parse_args(words)
    logging.disable_progress_bar()
    try:
        run(arguments)
    except (ValueError, OSError, SafetensorError, RuntimeError) as error:
        # Safetensors and torch report a full disk by errors of their own.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
