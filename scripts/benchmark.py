"""Measures what the models cost.

    python scripts/benchmark.py complexity --markdown

`complexity` prints parameters and multiply-adds of every recipe beside the numbers of the paper. They are counted as
the paper's were: one image of the size of the training crop (COCO panoptic: 800 x 1088, where the paper averages over
100 images), the official semantic inference and the auxiliary heads of PerPixelBaseline+ included.
"""

from __future__ import annotations

import argparse
import json

from tqdm.auto import tqdm

from maskformer.recipes import Recipe, list_recipes, load_recipe
from maskformer.training.complexity import Complexity, count_complexity

COLUMNS = ("recipe", "image", "parameters (M)", "paper", "multiply-adds (G)", "paper")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    complexity = commands.add_parser("complexity", help="parameters and multiply-adds of recipes")
    complexity.add_argument("recipes", nargs="*", metavar="RECIPE", help="names or files; all of the paper by default")
    form = complexity.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print JSON, with a row for each kind of operation")
    return parser, parser.parse_args()


def table_row(recipe: Recipe, cost: Complexity) -> tuple[str, ...]:
    """One row of the table; "-" where the paper has no number."""
    params, flops = (str(recipe.published.get(key, "-")) for key in ("params", "flops"))
    measured = f"{cost.parameters / 1e6:.1f}", f"{cost.multiply_adds / 1e9:.1f}"
    return recipe.name, "x".join(map(str, cost.image_size)), measured[0], params, measured[1], flops


def table(rows: list[tuple[str, ...]], markdown: bool) -> str:
    """Aligned columns, the first to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in [COLUMNS, *rows]) for column in range(len(COLUMNS))]

    def line(row):
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells)

    rule = [f"{'-' * (width - 1)}{':' if i else '-'}" for i, width in enumerate(widths)]
    return "\n".join([line(COLUMNS), line(rule if markdown else ["-" * width for width in widths]), *map(line, rows)])


def complexity(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Counts and prints; an unknown recipe ends the program with exit code 2."""
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
        print(table([table_row(*pair) for pair in zip(recipes, costs, strict=True)], arguments.markdown))


def main() -> None:
    parser, arguments = parse_arguments()
    {"complexity": complexity}[arguments.command](parser, arguments)


if __name__ == "__main__":
    main()
