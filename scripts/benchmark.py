"""Measures what models, training steps and metrics cost, and how fast training data are made.

    python scripts/benchmark.py complexity --markdown
    python scripts/benchmark.py data --recipe nuclei/maskformer_resnet18_scratch --train_path FOLDER/train
    python scripts/benchmark.py inference --markdown
    python scripts/benchmark.py post-process --markdown
    python scripts/benchmark.py train-step --markdown
    python scripts/benchmark.py parts --markdown
    python scripts/benchmark.py metrics

`complexity` prints parameters and multiply-adds of every recipe beside the numbers of the paper. They are counted as
the paper's were: one image of the size of the training crop (COCO panoptic: 800 x 1088, where the paper averages over
100 images), the official semantic inference and the auxiliary heads of PerPixelBaseline+ included.

`data` prints how many images a second one core takes through source, augmentation and collation, and the share of the
time that each step has. Any setting of the recipe can be given, as --train_path FOLDER or --crop_size "[256, 256]".

`inference` prints what a photograph takes from image processor to answer, and its forward pass alone, with this package
and with transformers' own MaskFormer of the same weights, in turns; `--fastest` adds bfloat16 and `torch.compile`. "of
the machine" is the share of the rate at which it multiplies large matrices in float32. `--recipe all` takes every
recipe of the paper, and prints the images a second that it states (on a V100).

`post-process` prints what the way from predictions to answers takes in time and memory.

`train-step` prints peak memory above the model, and seconds, of forward pass, loss and backward pass, with the loss
computed by the official formulas, by this package's two ways, each also with activation checkpointing, and by
transformers' own model with the same weights.

`parts` prints what matching and the image processor take beside transformers' own.

`metrics` prints what each metric takes for an image of 480 x 640 pixels, 133 labels and 20 segments, beside one plain
`numpy.bincount` over as many pixels, and by how much its memory grows over many images.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from maskformer import MaskFormerUniversalConfig
from maskformer.benchmarks.alternating import alternate, multiplication_rate
from maskformer.benchmarks.complexity import Complexity, count_complexity
from maskformer.benchmarks.data import STEPS, DataCost, measure_data
from maskformer.benchmarks.inference import OURS, THEIRS, InferenceCost, measure_inference
from maskformer.benchmarks.metrics import MetricCost, measure_metrics
from maskformer.benchmarks.parts import PARTS
from maskformer.benchmarks.post_process import TASKS, answer_runs, measure_post_processing
from maskformer.benchmarks.train_step import LOSSES, Step, measure_steps
from maskformer.convert.hugging_face_config import config_to_transformers
from maskformer.data.example import BadSample
from maskformer.data.sources import load_source
from maskformer.recipes import Recipe, list_recipes, load_recipe
from maskformer.recipes.command_line import parse_with_recipe

INFERENCE = ["ade20k-150/maskformer_swin_tiny", "ade20k-150/maskformer_r50"]
INFERENCE_COLUMNS = ("recipe", "way", "ms", "spread", "forward ms", "of the machine", "times", "same labels")
INFERENCE_COLUMNS += ("images a second", "paper")
# Canvas, size of the image (height, width) and number of labels.
POST_PROCESS = {"semantic": ((512, 704), (512, 683), 150), "segments": ((800, 1088), (480, 640), 133)}
COLUMNS = ("recipe", "image", "parameters (M)", "paper", "multiply-adds (G)", "paper")
CHECKPOINTING = {"both": (False, True), "without": (False,), "with": (True,)}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    complexity = commands.add_parser("complexity", help="parameters and multiply-adds of recipes")
    complexity.add_argument("recipes", nargs="*", metavar="RECIPE", help="names or files; all of the paper by default")
    data = commands.add_parser("data", help="images a second a core, and the share of each step", allow_abbrev=False)
    data.add_argument("--recipe", help="name or YAML file of a recipe; shapes/demo by default")
    data.add_argument("--images", type=int, default=200, help="how many are measured")
    inference = commands.add_parser("inference", help="from a photograph to its answer, beside transformers")
    inference.add_argument("--recipe", nargs="+", default=INFERENCE, help="names or files, or `all` of the paper's")
    inference.add_argument("--size", type=int, nargs=2, default=(512, 683), help="height and width of the photograph")
    inference.add_argument("--rounds", type=int, default=7, help="times that each is measured; medians are printed")
    inference.add_argument("--fastest", action="store_true", help="bfloat16 and torch.compile too")
    post = commands.add_parser("post-process", help="from predictions to answers, beside transformers")
    post.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="all by default")
    post.add_argument("--rounds", type=int, default=7, help="times that each is measured; medians are printed")
    step = commands.add_parser("train-step", help="memory and seconds of a training step, by loss")
    step.add_argument("--recipe", default="ade20k-150/maskformer_r50", help="name or YAML file of a recipe")
    step.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="which losses, all by default")
    step.add_argument("--checkpointing", choices=CHECKPOINTING, default="both", help="of activations, both by default")
    step.add_argument("--image_size", type=int, default=512, help="height and width")
    step.add_argument("--batch_size", type=int, default=2, help="images of a step")
    step.add_argument("--masks", type=int, default=20, help="targets of each image")
    step.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are printed")
    part = commands.add_parser("parts", help="matching and the image processor, beside transformers")
    part.add_argument("--rounds", type=int, default=7, help="times that each is measured; medians are printed")
    metric = commands.add_parser("metrics", help="what metrics cost, beside one count of the pixels, and their memory")
    metric.add_argument("--images", type=int, default=5000, help="over how many memory is watched")
    metric.add_argument("--rounds", type=int, default=51, help="times that each is measured; medians are printed")
    metric.add_argument("--peer_path", type=Path, help="folder with panopticapi/ or evaluate's metrics/mean_iou/")
    for command in (inference, post, step, part):
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    for command in (complexity, data, inference, post, step, part, metric):
        form = command.add_mutually_exclusive_group()
        form.add_argument("--markdown", action="store_true", help="print a Markdown table")
        form.add_argument("--json", action="store_true", help="print JSON, with every number")
    return parser


def table_row(recipe: Recipe, cost: Complexity) -> tuple[str, ...]:
    """One row of the table; "-" where the paper has no number."""
    params, flops = (str(recipe.published.get(key, "-")) for key in ("params", "flops"))
    measured = f"{cost.parameters / 1e6:.1f}", f"{cost.multiply_adds / 1e9:.1f}"
    return recipe.name, "x".join(map(str, cost.image_size)), measured[0], params, measured[1], flops


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]], markdown: bool) -> str:
    """Aligned columns, the first to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in [columns, *rows]) for column in range(len(columns))]

    def line(row):
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells)

    rule = [f"{'-' * (width - 1)}{':' if i else '-'}" for i, width in enumerate(widths)]
    return "\n".join([line(columns), line(rule if markdown else ["-" * width for width in widths]), *map(line, rows)])


def complexity(parser: argparse.ArgumentParser) -> None:
    """Counts and prints; an unknown recipe ends the program with exit code 2."""
    arguments = parser.parse_args()
    try:
        recipes = [load_recipe(name) for name in arguments.recipes or list_recipes()]
        if not arguments.recipes:
            recipes = [recipe for recipe in recipes if recipe.labels]
        bar = tqdm(recipes, desc="counting", unit="recipe", leave=False)
        costs = [count_complexity(recipe) for recipe in bar]
    except ValueError as error:
        parser.error(str(error))
    if arguments.json:
        rows = [
            {
                "recipe": recipe.name,
                "image_size": cost.image_size,
                "parameters": cost.parameters,
                "multiply_adds": cost.multiply_adds,
                "by_operation": cost.by_operation,
                "published": {key: recipe.published.get(key) for key in ("params", "flops")},
            }
            for recipe, cost in zip(recipes, costs, strict=True)
        ]
        print(json.dumps(rows, indent=1))
    else:
        print(table(COLUMNS, [table_row(*pair) for pair in zip(recipes, costs, strict=True)], arguments.markdown))


def data(parser: argparse.ArgumentParser) -> None:
    """Measures and prints; a dataset that cannot be read ends the program with exit code 2."""
    arguments, recipe = parse_with_recipe(parser, default="shapes/demo")
    if arguments.images < 1:
        parser.error(f"--images must be at least 1, not {arguments.images}")
    torch.set_num_threads(1)
    try:
        source, augmentation = load_source(recipe.data, "train"), recipe.build_augmentation()
        collate = recipe.build_collator(recipe.build_image_processor(source.labels))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    training = recipe.training
    try:
        cost = measure_data(source, augmentation, collate, training.batch_size, arguments.images, training.seed)
    except BadSample as error:
        sys.exit(f"error: {error}\n(scripts/inspect_dataset.py lists all such examples)")
    if arguments.json:
        content = {"recipe": recipe.name, "source": recipe.data.source, "images": cost.images}
        content |= {"images_per_second": cost.images_per_second, "seconds": cost.seconds}
        print(json.dumps(content, indent=1))
    else:
        print(table(("step", "ms an image", "share"), cost_rows(cost), arguments.markdown))
        print(f"\n{recipe.name}, {recipe.data.source}: {cost.images_per_second:.1f} images a second a core")


def cost_rows(cost: DataCost) -> list[tuple[str, ...]]:
    """A row for each step, and their sum."""
    rows = [(step, f"{1000 * cost.seconds[step] / cost.images:.2f}", f"{cost.share(step):.1%}") for step in STEPS]
    return [*rows, ("all", f"{1000 / cost.images_per_second:.2f}", "100.0%")]


def inference(parser: argparse.ArgumentParser) -> None:
    """Measures and prints; an unknown recipe ends the program with exit code 2."""
    arguments = parser.parse_args()
    try:
        recipes = [load_recipe(name) for name in (list_recipes() if arguments.recipe == ["all"] else arguments.recipe)]
    except ValueError as error:
        parser.error(str(error))
    recipes = [r for r in recipes if r.labels and r.model_type == MaskFormerUniversalConfig.model_type]
    if min(*arguments.size, arguments.rounds) < 1:
        parser.error("--size and --rounds must be at least 1")
    rate = multiplication_rate(arguments.device)
    rows, found = [], []
    for recipe in recipes:
        progress = partial(tqdm, desc=recipe.name, unit="turn", leave=False)
        cost = measure_inference(
            recipe, arguments.size, arguments.rounds, arguments.device, arguments.fastest, progress=progress
        )
        rows += inference_rows(recipe, cost, rate)
        found.append({"recipe": recipe.name, **asdict(cost)})
    if arguments.json:
        content = {"device": arguments.device, "size": arguments.size, "multiply_adds_a_second": rate}
        print(json.dumps(content | {"recipes": found}, indent=1))
    else:
        columns = (
            "recipe",
            "way",
            "ms",
            "spread",
            "forward ms",
            "of the machine",
            "times",
            "same labels",
            "fps",
            "paper",
        )
        print(table(columns, rows, arguments.markdown))


def inference_rows(recipe: Recipe, cost: InferenceCost, rate: float) -> list[tuple[str, ...]]:
    """A row for each way; "times" is how many times as fast as transformers, "-" where that has no such model."""
    peer = cost.timings.get(THEIRS)
    rows = []
    for name, timing in cost.timings.items():
        share = cost.multiply_adds / cost.forward[name].median / rate
        agreement = cost.agreement.get(name)
        row = (recipe.name, name, f"{1000 * timing.median:.0f}", f"{timing.spread:.0%}")
        row += (f"{1000 * cost.forward[name].median:.0f}", f"{share:.0%}")
        row += (f"{peer.median / timing.median:.2f}" if peer else "-", f"{agreement:.2%}" if agreement else "-")
        rows.append((*row, f"{1 / timing.median:.2f}", str(recipe.published.get("fps", "-")) if name == OURS else ""))
    return rows


def post_process(parser: argparse.ArgumentParser) -> None:
    """Measures and prints: semantic answers of ADE20K's protocol, panoptic and instance answers of COCO's."""
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    sizes = {task: POST_PROCESS["semantic" if task == "semantic" else "segments"] for task in arguments.tasks}
    runs = [answer_runs(task, *size, device=arguments.device) for task, size in sizes.items()]
    progress = partial(tqdm, desc="answers", unit="turn", leave=False)
    cost = measure_post_processing(runs, arguments.rounds, arguments.device, progress)
    rows, found = [], []
    for (task, way), timing in cost.timings.items():
        memory, times = cost.memory[task, way], timing.median / cost.timings[task, OURS].median
        megabytes = "-" if memory is None else f"{memory / 1e6:.0f}"
        rows.append((task, way, f"{1000 * timing.median:.1f}", f"{times:.1f}", megabytes))
        found.append({"task": task, "way": way, "seconds": timing.seconds, "bytes": memory})
    if arguments.json:
        print(json.dumps({"device": arguments.device, "rows": found}, indent=1))
    else:
        columns = ("task", "way", "ms", "times this package", "peak memory (MB)")
        print(table(columns, rows, arguments.markdown))


def train_step(parser: argparse.ArgumentParser) -> None:
    """Measures and prints; a recipe that is unknown or of another kind of model ends the program with exit code 2."""
    arguments = parser.parse_args()
    try:
        recipe = load_recipe(arguments.recipe)
    except ValueError as error:
        parser.error(str(error))
    if recipe.model_type != MaskFormerUniversalConfig.model_type:
        parser.error(f"{recipe.name} is a {recipe.model_type} model; the losses compared are those of MaskFormer")
    sizes = arguments.image_size, arguments.batch_size, arguments.masks
    if min(*sizes, arguments.rounds) < 1:
        parser.error("--image_size, --batch_size, --masks and --rounds must be at least 1")
    config = recipe.build_config()
    if "transformers" in arguments.losses:
        try:
            config_to_transformers(config)
        except ValueError as error:
            parser.error(f"{error}; name other --losses")
    steps = [
        Step(config, loss, saving, *sizes, arguments.device)
        for saving in CHECKPOINTING[arguments.checkpointing]
        for loss in arguments.losses
        if not (saving and loss == "transformers")
    ]
    if not steps:
        parser.error("transformers is measured without checkpointing only; name other --losses")
    costs = measure_steps(steps, arguments.rounds, partial(tqdm, desc="measuring", unit="step", leave=False))
    results = [
        {"loss": step.loss, "checkpointing": step.checkpointing, "bytes": cost.peak_memory, "seconds": cost.seconds}
        for step, cost in zip(steps, costs, strict=True)
    ]
    if arguments.json:
        print(json.dumps({"recipe": recipe.name, "device": arguments.device, "steps": results}, indent=1))
    else:
        columns = ("loss", "checkpointing", "peak memory (MB)", "of plain", "seconds", "of plain")
        print(table(columns, step_rows(results), arguments.markdown))
        print()
        print("\n".join(f"{name}: {LOSSES[name]}" for name in arguments.losses))


def step_rows(results: list[dict]) -> list[tuple[str, ...]]:
    """A row for each step; shares are of the plain loss without checkpointing, "-" where it was not measured."""
    plain = next((row for row in results if row["loss"] == "plain" and not row["checkpointing"]), {})

    def cells(row: dict, key: str, unit: float, digits: int) -> tuple[str, str]:
        if row[key] is None:
            return "-", "-"
        return f"{row[key] / unit:.{digits}f}", f"{row[key] / plain[key]:.0%}" if plain.get(key) else "-"

    return [
        (
            row["loss"],
            "yes" if row["checkpointing"] else "no",
            *cells(row, "bytes", 1e6, 0),
            *cells(row, "seconds", 1, 2),
        )
        for row in results
    ]


def parts(parser: argparse.ArgumentParser) -> None:
    """Measures and prints."""
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    rows, found = [], []
    for name, (description, make_runs) in PARTS.items():
        progress = partial(tqdm, desc=name, unit="turn", leave=False)
        timings = alternate(make_runs(arguments.device), arguments.rounds, arguments.device, progress)
        for way, timing in timings.items():
            times = timings[THEIRS].median / timing.median
            rows.append((f"{name}: {description}", way, f"{1000 * timing.median:.1f}", f"{times:.1f}"))
            found.append({"part": name, "way": way, "seconds": timing.seconds})
    if arguments.json:
        print(json.dumps({"device": arguments.device, "rows": found}, indent=1))
    else:
        print(table(("part", "way", "ms", "times as fast as transformers"), rows, arguments.markdown))


def metrics(parser: argparse.ArgumentParser) -> None:
    """Measures and prints."""
    arguments = parser.parse_args()
    if min(arguments.images, arguments.rounds) < 1:
        parser.error("--images and --rounds must be at least 1")
    try:
        cost = measure_metrics(arguments.images, arguments.rounds, peers=arguments.peer_path)
    except ValueError as error:
        parser.error(str(error))
    if arguments.json:
        content = {"images": cost.images, "seconds": cost.seconds, "growth": cost.growth}
        print(json.dumps(content | {"ratio": {name: cost.ratio(name) for name in cost.seconds}}, indent=1))
    else:
        columns = ("metric", "ms an image", "of one count", f"bytes more over {cost.images} images")
        print(table(columns, metric_rows(cost), arguments.markdown))


def metric_rows(cost: MetricCost) -> list[tuple[str, ...]]:
    """A row for the plain count and for each metric."""
    return [
        (name, f"{1000 * seconds:.2f}", f"{cost.ratio(name):.2f}", str(cost.growth.get(name, "-")))
        for name, seconds in cost.seconds.items()
    ]


def main() -> None:
    parser = build_parser()
    command = parser.parse_known_args()[0].command
    commands = {"complexity": complexity, "data": data, "inference": inference, "post-process": post_process}
    (commands | {"train-step": train_step, "parts": parts, "metrics": metrics})[command](parser)


if __name__ == "__main__":
    main()
