"""Evaluates a model as the paper does, and writes numbers, a report, pictures and, if asked for, predictions.

Launch modes: `python scripts/eval.py`, or `accelerate launch scripts/eval.py` on any number of CPUs or GPUs. An
evaluation that was interrupted goes on when it is started again. `--table 2 --models FOLDER` evaluates the models of a
table of the paper, in FOLDER/DATASET/MODEL, and prints it with published and measured numbers side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub import snapshot_download
from transformers.utils.logging import disable_progress_bar

from maskformer.data.example import BadSample
from maskformer.data.files import replace_file
from maskformer.data.sources import load_source
from maskformer.evaluation.evaluate_model import Options, evaluate_model, key_of
from maskformer.evaluation.progress import Progress
from maskformer.evaluation.scores import in_one_line
from maskformer.evaluation.tables import TABLES, fill, model_folder_of, recipes_of
from maskformer.evaluation.together import together
from maskformer.recipes.arguments import AUGMENTATION, PROTOCOL, DataArguments, EvaluationArguments
from maskformer.recipes.command_line import parse_overrides, parse_with_recipe, recipe_parser
from maskformer.training.model_folder import load_model_folder, near_model_folder

EXAMPLE = "python scripts/eval.py --model outputs/demo/best"
# What an evaluation reads of a recipe: where the data are, and the protocol.
TRAINING_DATA = {"train_path", "train_split", "train_scenes", "streaming", *AUGMENTATION}
SETTINGS = {field.name for field in dataclasses.fields(DataArguments)} - TRAINING_DATA
SETTINGS |= {field.name for field in dataclasses.fields(EvaluationArguments)} - {"best_metric"}
TITLES = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "iou": "IoU", "ap": "AP"}


def make_parser() -> argparse.ArgumentParser:
    """The options that are no settings of a recipe."""
    parser = recipe_parser(__doc__, EXAMPLE)
    parser.add_argument("--model", help="folder of a trained model, or its name on the Hub")
    parser.add_argument("--table", type=int, choices=sorted(TABLES), help="a table of the paper")
    parser.add_argument("--models", type=Path, help="folder of its models, each in DATASET/MODEL as recipes are called")
    parser.add_argument("--output_dir", type=Path, help="folder of all that is written; the model's by default")
    parser.add_argument("--limit", type=int, help="evaluate only the first images")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="raise", help="unusable examples")
    parser.add_argument("--save_predictions", action="store_true", help="write predictions in the formats of others")
    parser.add_argument("--save_every", type=int, default=100, help="images between saves of what was counted")
    return parser


def check(parser, arguments) -> None:
    """Ends the program, with exit code 2, where options contradict each other."""
    if (arguments.model is None) == (arguments.table is None):
        parser.error("one of --model and --table is needed")
    if arguments.table and not (arguments.models and arguments.models.is_dir()):
        parser.error(f"--table needs --models, a folder of model folders; {arguments.models} is none")
    if arguments.table and arguments.recipe:
        parser.error("--table has its own recipes; --recipe has no effect")
    for name in {"tta", "sliding_window"} & settings_given(sys.argv):
        if arguments.table:
            parser.error(f"--table has its own columns; --{name} has no effect")
    for name in ("limit", "save_every"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(arguments, name)}")


def find_model(parser, name: str, output_dir: Path | None) -> Path:
    """The model folder `name`, or what the Hub has under that name, downloaded."""
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir() or name.count("/") != 1:
        parser.error(f"{name} is not a model folder: it has no config.json{near_model_folder(folder)}")
    if output_dir is None:
        parser.error(f"--output_dir is needed for {name}, which is no folder here but a name on the Hub")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # of the network and of the Hub, in classes of their own
        reason = str(error).strip().splitlines()[0]
        parser.error(f"{name} is not a model folder, nor a model that the Hub gave: {reason}")


def model_recipe(parser, folder: Path):
    """The recipe of data and protocol: the model's own, unless another is named.

    A model without a recipe beside it, such as a converted one, has the protocol that its image processor carries.
    """
    saved = folder.resolve().parent / "recipe.yaml"
    if saved.is_file():
        return parse_with_recipe(parser, str(saved), reads=SETTINGS)[1]
    arguments, rest = parser.parse_known_args()
    # Or generated scenes, which nobody asked for, would stand for one's own data.
    if arguments.recipe is None and not {"source", "validation_scenes"} & settings_given(rest):
        try:
            load_model_folder(folder)  # what is wrong with the model itself comes first
        except ValueError as error:
            parser.error(str(error))
        parser.error(f"there is no {saved}; --recipe NAME, or --source, says where the data of {folder} are")
    return parse_with_recipe(parser, "shapes/demo", saved_protocol(folder), SETTINGS)[1]


def settings_given(words: list[str]) -> set[str]:
    """The names of the options among command-line words."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def saved_protocol(folder: Path) -> dict:
    """The settings of a recipe's test protocol that the image processor in `folder` carries, or none."""
    try:
        content = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        protocol = dict(content.get("test_protocol") or {})
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # loading the folder says what is wrong with it
    return {PROTOCOL[name]: value for name, value in protocol.items() if name in PROTOCOL}


def make_options(arguments) -> Options:
    """How to evaluate, whatever the model."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return Options(
        command=f"python scripts/{shlex.join(words)}",
        limit=arguments.limit,
        skip_bad=arguments.on_bad_sample == "skip",
        save_predictions=arguments.save_predictions,
        save_every=arguments.save_every,
    )


def table_of_labels(per_label: dict[str, dict]) -> str:
    """One row a label, in percent; labels that neither the data nor the answers hold have none."""
    keys = [key for key in TITLES if any(key in row for row in per_label.values())]
    lines = [f"{'label':<24} " + " ".join(f"{TITLES[key]:>6}" for key in keys)]
    counted = "pq" in keys
    lines[0] += f" {'segments':>9}" * counted
    for name, row in per_label.items():
        segments = row.get("tp", 0) + row.get("fn", 0)
        if segments or row.get("fp") or not counted and row["iou"] == row["iou"]:
            values = [row.get(key, float("nan")) for key in keys]
            numbers = " ".join(f"{100 * value:6.1f}" if value == value else f"{'–':>6}" for value in values)
            lines.append(f"{name[:24]:<24} {numbers}" + f" {segments:>9}" * counted)
    return "\n".join(lines)


def run_model(parser, arguments, accelerator) -> None:
    """Evaluates one model."""
    folder = find_model(parser, arguments.model, arguments.output_dir)
    recipe = model_recipe(parser, folder)
    output = arguments.output_dir or folder
    try:
        with together(accelerator):
            source = load_source(recipe.data, "validation")
        results = evaluate_model(accelerator, arguments.model, folder, recipe, source, output, make_options(arguments))
    except (ValueError, OSError) as error:
        if not accelerator.is_main_process:
            sys.exit(2)  # the main process says why
        if isinstance(error, BadSample):
            sys.exit(f"error: {error}\n(--on_bad_sample skip leaves such examples out)")
        parser.error(str(error))
    if accelerator.is_main_process:
        print(table_of_labels(results["per_label"]))
        if "pq" not in results and recipe.evaluation.task != "semantic":
            print(f"semantic answers only: {why_semantic(recipe)}")
        print(f"{results['images']} images; {output / 'results.json'} and {output / 'report.html'}")
        print(in_one_line(results))


def why_semantic(recipe) -> str:
    """Why there is no panoptic quality of segments."""
    if recipe.evaluation.tta or recipe.evaluation.sliding_window:
        return "segments of several views of an image cannot be averaged"
    return "the model has no others, or all labels are stuff"


def run_table(parser, arguments, accelerator) -> None:
    """Evaluates the models of a table that are there, and prints it."""
    table = TABLES[arguments.table]
    parse_with_recipe(parser, table.recipes[0], reads=SETTINGS)  # for its checks
    try:
        recipes = recipes_of(table, parse_overrides(parser.parse_known_args()[1]))
    except ValueError as error:
        parser.error(str(error))
    options = make_options(arguments)
    output = arguments.output_dir or arguments.models

    def measure(recipe, tta: bool) -> dict | None:
        folder = model_folder_of(recipe.name, arguments.models)
        if folder is None:
            return None
        place = output / recipe.name / "multi_scale" if tta else output / recipe.name
        accelerator.print(f"{recipe.name}{', multi scale' if tta else ''}: {folder}", file=sys.stderr)
        try:
            with together(accelerator):
                source = load_source(recipe.data, "validation")
                key = key_of(folder, recipe, source, options)
            # As the main process sees it, or another one might go on to wait for it.
            (known,) = broadcast_object_list([finished(place, key)])
            if known:
                accelerator.print(f"taken from {place / 'results.json'}", file=sys.stderr)
                return known
            return evaluate_model(accelerator, recipe.name, folder, recipe, source, place, options)
        except (ValueError, OSError) as error:  # one model that fails takes none of the others with it
            accelerator.print(f"left blank: {error}", file=sys.stderr)
            return None

    text = fill(table, recipes, measure)
    if arguments.limit:
        text += f"\n\nMeasured on the first {arguments.limit} images only."
    if accelerator.is_main_process:
        with replace_file(output / f"table{arguments.table}.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(text)


def finished(folder: Path, key: str) -> dict | None:
    """The results in `folder`, if they are those of the evaluation `key`, and nothing else of it is missing."""
    if Progress(folder, key).paths():
        return None
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if results.get("key") == key else None


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_known_args()[0]
    check(parser, arguments)
    disable_progress_bar()  # of transformers, which shows one for every file
    accelerator = Accelerator()
    (run_table if arguments.table else run_model)(parser, arguments, accelerator)


if __name__ == "__main__":
    main()
