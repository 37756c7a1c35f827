"""Evaluates a model folder: panoptic quality and mean IoU, in all and for every label; mean IoU of per-pixel models.

Launch modes: `python scripts/eval.py`, or `accelerate launch scripts/eval.py` on any number of CPUs or GPUs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import Accelerator
from transformers.utils.logging import disable_progress_bar

from maskformer.data.example import BadSample
from maskformer.data.sources import load_source
from maskformer.recipes.arguments import PROTOCOL
from maskformer.recipes.command_line import parse_with_recipe, recipe_parser
from maskformer.training.evaluation import evaluate, in_one_line
from maskformer.training.history import write_json
from maskformer.training.model_folder import load_model_folder
from maskformer.training.pictures import draw_validation

EXAMPLE = "python scripts/eval.py --model outputs/demo/best"
# What an evaluation reads of a recipe: where the data are, and the protocol.
SETTINGS = {
    "source",
    "data_path",
    "validation_path",
    "validation_scenes",
    "scene_size",
    "ignore_index",
    "reduce_labels",
}
TITLES = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "iou": "IoU"}
SETTINGS |= {"eval_batch_size", *PROTOCOL.values()}


def parse_arguments():
    """The command line, and the recipe that describes data and protocol: the model's own, unless another is named.

    A model without a recipe beside it, such as a converted one, has the protocol that its image processor carries.
    """
    parser = recipe_parser(__doc__, EXAMPLE)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model")
    parser.add_argument(
        "--output_dir", type=Path, help="folder of results.json and the picture; the model's by default"
    )
    parser.add_argument("--limit", type=int, help="evaluate only the first images")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="raise", help="unusable examples")
    model = parser.parse_known_args()[0].model
    if not (model / "config.json").is_file():
        parser.error(f"{model} is not a model folder: it has no config.json")
    saved = model.parent / "recipe.yaml"
    if saved.is_file():
        arguments, recipe = parse_with_recipe(parser, str(saved), reads=SETTINGS)
    else:
        arguments, recipe = parse_with_recipe(parser, "shapes/demo", saved_protocol(model), SETTINGS)
    return parser, arguments, recipe


def saved_protocol(folder: Path) -> dict:
    """The settings of a recipe's test protocol that the image processor in `folder` carries, or none."""
    try:
        content = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        protocol = dict(content.get("test_protocol") or {})
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # loading the folder says what is wrong with it
    return {PROTOCOL[name]: value for name, value in protocol.items() if name in PROTOCOL}


def table(per_label: dict[str, dict]) -> str:
    """One row a label, in percent; labels that neither the data nor the answers hold have none."""
    keys = [key for key in ("pq", "sq", "rq", "iou") if all(key in row for row in per_label.values())]
    lines = [f"{'label':<24} " + " ".join(f"{TITLES[key]:>6}" for key in keys)]
    counted = "pq" in keys
    lines[0] += f" {'segments':>9}" * counted
    for name, row in per_label.items():
        segments = row.get("tp", 0) + row.get("fn", 0)
        if segments or row.get("fp") or not counted and row["iou"] == row["iou"]:
            numbers = " ".join(f"{100 * row[key]:6.1f}" for key in keys)
            lines.append(f"{name[:24]:<24} {numbers}" + f" {segments:>9}" * counted)
    return "\n".join(lines)


def main() -> None:
    parser, arguments, recipe = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    accelerator = Accelerator()
    folder = arguments.output_dir or arguments.model
    try:
        source = load_source(recipe.data, "validation")
        model, image_processor = load_model_folder(arguments.model)
        model.to(accelerator.device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if model.config.num_labels != len(source.labels):
        parser.error(f"the model has {model.config.num_labels} labels, the dataset {len(source.labels)}")
    skip_bad = arguments.on_bad_sample == "skip"
    try:
        metrics = evaluate(model, image_processor, source, recipe.evaluation, accelerator, skip_bad, arguments.limit)
    except BadSample as error:
        sys.exit(f"error: {error}\n(--on_bad_sample skip leaves such examples out)")
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "results.json", metrics)
        draw_validation(model, image_processor, source, recipe.evaluation, folder / "validation.png")
        print(table(metrics["per_label"]))
        print(f"{metrics['images']} images; {folder / 'results.json'} and {folder / 'validation.png'}")
        print(in_one_line(metrics))


if __name__ == "__main__":
    main()
