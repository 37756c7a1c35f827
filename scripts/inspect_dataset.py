"""Reads a dataset once: what is in it, and what is wrong with it, file by file.

Prints images, segments and pixels of every label, and the problems; writes `histogram.png` and `contact_sheet.png`,
examples beside their segments. Ends with exit code 1 where there are problems.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from maskformer.data.sources import load_source
from maskformer.data.validation import Messages, Report, inspect
from maskformer.recipes.arguments import AUGMENTATION, DataArguments
from maskformer.recipes.command_line import parse_with_recipe, recipe_parser
from maskformer.training.dataset_pictures import draw_contact_sheet, draw_histogram

EXAMPLE = "python scripts/inspect_dataset.py --source panoptic_folder --train_path FOLDER --output_dir outputs/inspect"
# What describes a dataset, and not what training makes of it.
SETTINGS = {field.name for field in dataclasses.fields(DataArguments)} - AUGMENTATION
LABEL_MAP_SOURCES = ("semantic_folder", "pairs", "hub")  # those that `ignore_index` and `reduce_labels` are settings of
SHOWN = 20  # messages of a kind
BAR = 30  # characters


def parse_arguments():
    """The command line, and the recipe whose data settings describe the dataset."""
    parser = recipe_parser(__doc__, EXAMPLE)
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--output_dir", type=Path, help="folder of the two pictures; without it there are none")
    parser.add_argument("--limit", type=int, help="read only the first images")
    arguments, recipe = parse_with_recipe(parser, default="shapes/demo", reads=SETTINGS)
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be at least 1, not {arguments.limit}")
    if arguments.output_dir and arguments.output_dir.exists() and not arguments.output_dir.is_dir():
        parser.error(f"--output_dir {arguments.output_dir} is a file; a folder is needed")
    return parser, arguments, recipe


def table(report: Report) -> str:
    """One row a label, with a bar of its share of the pixels, as long as the largest share allows."""
    lines = [f"{'label':<24} {'images':>8} {'segments':>9} {'pixels':>8}"]
    shares = report.pixels_per_label / max(report.pixels, 1)
    for label, name in enumerate(report.labels.names):
        bar = "█" * round(BAR * shares[label] / max(shares.max(), 1e-9)) or ("▏" if shares[label] else "")
        counts = f"{report.images_per_label[label]:>8} {report.segments_per_label[label]:>9} {shares[label]:>8.2%}"
        lines.append(f"{name[:24]:<24} {counts} {bar}".rstrip())
    lines.append(f"{'void':<24} {'':>8} {'':>9} {report.void_pixels / max(report.pixels, 1):>8.2%}")
    return "\n".join(lines)


def summary(report: Report) -> str:
    """Numbers of the dataset as a whole."""
    lines = [f"{report.usable} of {report.images} images are usable, with {report.segments} segments"]
    if report.usable:
        heights, widths = zip(*report.sizes, strict=True)
        (height, width), often = report.sizes.most_common(1)[0]
        lines.append(
            f"sizes: {min(heights)} to {max(heights)} pixels high, {min(widths)} to {max(widths)} wide;"
            f" {len(report.sizes)} in all, the commonest {height} x {width} ({often} images)"
        )
        mean = sum(number * images for number, images in report.things.items()) / report.usable
        lines.append(f"things an image: {min(report.things)} to {max(report.things)}, {mean:.1f} on average")
    return "\n".join(lines)


def listing(kind: str, messages: Messages) -> str:
    """The first messages of a kind, and how many more there are."""
    lines = [f"{messages.count} {kind}{'s' if messages.count != 1 else ''}" + (":" if messages.count else "")]
    lines += [f"  {message}" for message in messages.first[:SHOWN]]
    if messages.count > SHOWN:
        lines.append(f"  ... and {messages.count - SHOWN} more")
    return "\n".join(lines)


def main() -> None:
    parser, arguments, recipe = parse_arguments()
    try:
        source = load_source(recipe.data, arguments.split)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    settings = {}
    if recipe.data.source in LABEL_MAP_SOURCES and recipe.data.label_kind == "semantic":
        settings = {"ignore_index": recipe.data.ignore_index, "reduce_labels": recipe.data.reduce_labels}
    report = inspect(source, arguments.limit, **settings)
    print(table(report), summary(report), listing("warning", report.warnings), sep="\n\n")
    print(listing("problem", report.problems))
    for mistake in report.mistakes:
        print(f"the whole dataset: {mistake}")
    if arguments.output_dir and report.usable:
        draw_histogram(report, arguments.output_dir / "histogram.png")
        draw_contact_sheet(source, arguments.output_dir / "contact_sheet.png", arguments.limit)
        print(f"{arguments.output_dir / 'histogram.png'} and {arguments.output_dir / 'contact_sheet.png'}")
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
