"""docs/migration.md is true: its examples print what it says they print."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from helpers import ROOT
from maskformer.convert.__main__ import make_parser

TEXT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What each block prints, one after another."""
    names, outputs = {}, []
    for code, _ in BLOCKS:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, "migration.md", "exec"), names)
        outputs.append(output.getvalue())
    return outputs


@pytest.mark.parametrize("index", range(len(BLOCKS)), ids=lambda index: BLOCKS[index][0].splitlines()[-1].strip()[:40])
def test_examples_print_what_the_page_says(printed, index):
    assert printed[index] == BLOCKS[index][1]


def test_the_commands_of_the_table_parse():
    commands = re.findall(r"`python -m maskformer.convert ([^`]+)`", TEXT)
    assert commands
    for command in commands:
        make_parser().parse_args(command.split())
