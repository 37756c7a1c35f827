"""Recipes on the command line: `--recipe NAME` and any setting of it as `--name value`."""

from __future__ import annotations

import argparse
from collections.abc import Container

import yaml

from maskformer.data.nearest import Parser, did_you_mean
from maskformer.recipes.recipe import TEXT_SETTINGS, Recipe, list_recipes, load_recipe, resolve, section_of


def recipe_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser that knows `--recipe` and shows a working example."""
    epilog = "Any setting of the recipe can be given too, as --learning_rate 1e-4 or --num_queries 50."
    parser = Parser(description, example, epilog=epilog)
    parser.add_argument("--recipe", help=f"name or YAML file of a recipe; {', '.join(list_recipes())}")
    return parser


def parse_overrides(words: list[str]) -> dict:
    """`--name value` and `--name=value` as a dict; values are read as YAML, but those of text settings as they are.

    Raises `ValueError` for a word that is no option and for an option without a value or with one that is no YAML.
    """
    values, words = {}, list(words)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--"):
            raise ValueError(f"{word!r} is not an option; options are written as --name value")
        if not equals:
            if not words or words[0].startswith("--"):
                raise ValueError(f"the option {option} needs a value")
            value = words.pop(0)
        name = option[2:].replace("-", "_")
        try:
            # YAML would cut a path at " #", and take a folder 2024-05-01 for a date.
            text = name in TEXT_SETTINGS and value != "null"
            values[name] = value if text else resolve(yaml.safe_load(value))
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "it does not parse"
            raise ValueError(f"the value of {option} is not valid YAML: {value!r} ({problem})") from error
    return values


def check_not_an_option(name: str, parser: argparse.ArgumentParser) -> None:
    """Raises `ValueError` for a name that is no setting, where an option of the program is the nearest to it."""
    try:
        section_of(name)
    except ValueError as error:
        hint = did_you_mean(f"--{name}", parser._option_string_actions)
        if hint and "did you mean" not in str(error):
            raise ValueError(f"there is no option --{name}{hint}") from None
        raise


def parse_with_recipe(
    parser: argparse.ArgumentParser,
    default: str | None = None,
    settings: dict | None = None,
    reads: Container[str] | None = None,
) -> tuple[argparse.Namespace, Recipe]:
    """Known arguments and the recipe with its overrides; whatever is wrong ends the program with exit code 2.

    `settings` replace those of the recipe `default`, where the command line names neither a recipe nor them. `reads`
    are the settings that the program uses, where it does not use all: others are refused, not ignored.
    """
    arguments, rest = parser.parse_known_args()
    try:
        overrides = parse_overrides(rest)
        for name in overrides:
            check_not_an_option(name, parser)
        for name in overrides:
            if reads is not None and name not in reads and section_of(name):
                raise ValueError(f"--{name} has no effect here: it is a setting of training or of the model's making")
        if arguments.recipe is None:
            overrides = (settings or {}) | overrides
        return arguments, load_recipe(arguments.recipe or default).override(overrides)
    except ValueError as error:
        parser.error(str(error))
