"""What somebody meant who wrote a name that does not exist."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from pathlib import Path


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'X'?` with the nearest of the `known` names, nothing where none has a likeness of `cutoff`."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_path(path: Path) -> str:
    """The same for a path, its first part that does not exist compared with what lies beside it."""
    for ancestor in reversed([path, *path.parents]):
        if not ancestor.exists() and ancestor.parent.is_dir():
            beside = {item.name: item for item in ancestor.parent.iterdir()}
            near = difflib.get_close_matches(ancestor.name, beside, n=1)
            return f"; did you mean '{beside[near[0]] / path.relative_to(ancestor)}'?" if near else ""
    return ""


class Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest option, takes none by its first letters, and shows an example."""

    def __init__(self, description: str, example: str, **kwargs):
        super().__init__(
            description=f"{description}\n\nexample:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str):
        """Ends the program with exit code 2 and `message`."""
        unknown = re.fullmatch(r"unrecognized arguments: (--[\w-]+).*", message)
        super().error(message + (did_you_mean(unknown[1], self._option_string_actions) if unknown else ""))
