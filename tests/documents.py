"""What a page of the documentation holds: Python, commands, links; and whether a command names what exists."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import maskformer
from helpers import ROOT
from maskformer import export
from maskformer.convert import __main__ as convert
from maskformer.recipes.command_line import parse_overrides

PROGRAMS = ("make ", "python ", "accelerate ", ".venv/bin/python ")


def python_blocks(page: Path) -> list[str]:
    """The blocks of a page that are Python."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page: Path) -> list[str]:
    """The commands of a page, of its blocks of bash and of its indented lines, each on one line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"(?:^ {4}\S.*\n(?: .*\n)*)", text, re.M)
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    inline = [code for code in re.findall(r"`([^`\n]+)`", text) if "scripts/" in code and "..." not in code]
    return [line for line in lines + inline if line.startswith(PROGRAMS)]


def links(page: Path) -> list[str]:
    """Where a page leads to, headings included (`other.md#heading`)."""
    return sorted(set(re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))))


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether a link of `page` has an end: a file, and a heading of it where one is named."""
    if target.startswith("https://"):
        return True
    name, _, heading = target.partition("#")
    path = page.parent / name if name else page
    if not heading:
        return path.exists()
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return heading in [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]


def check_command(command: str, monkeypatch) -> None:
    """Fails where `command` names a script, an option, a recipe or a target that does not exist."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    parsers = {"maskformer.convert": convert.make_parser, "maskformer.export": export.make_parser}
    if "-m" in words:
        module = words[words.index("-m") + 1]
        parsers[module]().parse_args(words[words.index("-m") + 2 :])
        return
    assert all((ROOT / word).is_file() for word in words if word.startswith("scripts/"))
    if words[-1] == "--help":
        return
    script = next(word for word in words if word.startswith("scripts/") and word.endswith(".py"))
    options = words[words.index(script) + 1 :]
    if script == "scripts/prepare_dataset.py":
        monkeypatch.setattr("sys.argv", [script, *options])
        runpy.run_path(str(ROOT / script))["parse_arguments"]()
        return
    check_options(script, options)


def check_options(script: str, options: list[str]) -> None:
    """Fails where `script` knows neither an option nor, being one that reads recipes, its field."""
    known = set(re.findall(r'"(--\w+)"', (ROOT / script).read_text()))
    names = [word.partition("=")[0] for word in options if word.startswith("--")]
    if script not in ("scripts/train.py", "scripts/eval.py", "scripts/inspect_dataset.py", "scripts/benchmark.py"):
        assert set(names) <= known, set(names) - known
        return
    recipe = maskformer.load_recipe(options[options.index("--recipe") + 1] if "--recipe" in options else "shapes/demo")
    fields, position = [], 0
    while position < len(options):
        end = next((i for i in range(position + 1, len(options)) if options[i].startswith("--")), len(options))
        if options[position].startswith("--") and options[position] not in known | {"--recipe"}:
            fields += options[position:end]
        position = end
    recipe.override(parse_overrides(fields))
