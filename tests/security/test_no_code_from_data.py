"""Nothing in the project turns data into code: no pickle but through the restricted reader, no eval, no shell."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from helpers import ROOT

NEVER = {  # whoever names one of these, calls it
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "pickle._Unpickler",
    "_pickle.loads",
    "pandas.read_pickle",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "__import__",
}
MODULES = {"joblib", "dill", "shelve", "marshal", "cloudpickle", "jsonpickle", "cPickle"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}
# Files that may: the reader itself; what reads its own pickles back; and what runs the documents' own examples.
ALLOWED = {
    "pickle.Unpickler": ["convert/pickles.py"],
    "pickle.loads": [
        "notebooks/convert_an_official_checkpoint.ipynb",
        "tests/ade20k_trees.py",
        "tests/convert/test_command.py",
        "tests/data/test_cityscapes.py",
        "tests/data/test_coco_instances.py",
        "tests/data/test_coco_panoptic.py",
        "tests/data/test_hub.py",
        "tests/data/test_instance_maps.py",
        "tests/data/test_pairs.py",
        "tests/data/test_shapes.py",
        "tests/scripts/test_prepare_dataset.py",
        "tests/security/test_hostile_pickles.py",
    ],
    "os.system": ["tests/hostile_pickles.py", "tests/security/test_hostile_pickles.py"],
    "exec": [
        "tests/convert/test_backbone.py",
        "tests/convert/test_command.py",
        "tests/convert/test_weights.py",
        "tests/test_docs.py",
        "tests/test_migration.py",
        "tests/test_readme.py",
    ],
}
FOREIGN = {"outputs", "build", "dist", "venv", "env"}  # what a run, a build or a user leaves in the checkout
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in FOREIGN]
SOURCES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".ipynb")
) + sorted(ROOT.glob("*.py"))


def code_of(path: Path) -> str:
    """The Python in a file, of a notebook that of its cells; lines for the shell become comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell).splitlines()]
    return "\n".join("#" + line if line.lstrip()[:1] in ("!", "%") else line for line in lines)


class Finder(ast.NodeVisitor):
    """Collects what is forbidden; `names` are what names of a module stand for."""

    def __init__(self):
        self.names: dict[str, str] = {}
        self.found: list[str] = []

    def visit_Import(self, node):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            self.names[alias.asname or whole] = whole
            self._check_module(alias.name)

    def visit_ImportFrom(self, node):
        self._check_module(node.module or "")
        for alias in node.names:
            self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if alias.name == "*" and node.module in ("pickle", "os", "yaml"):
                self.found.append(f"{node.module}.*")
            self._check_name(f"{node.module}.{alias.name}")

    def visit_Attribute(self, node):
        self._check_name(self.dotted(node))
        self.generic_visit(node)

    def visit_Name(self, node):
        if node.id in ("eval", "exec", "__import__"):
            self.found.append(node.id)

    def visit_Call(self, node):
        name = self.dotted(node.func)
        given = {word.arg: word.value for word in node.keywords}
        values = {word: value.value for word, value in given.items() if isinstance(value, ast.Constant)}
        if name in ("torch.load", "torch.serialization.load") and values.get("weights_only") is not True:
            self.found.append("torch.load")
        if name == "numpy.load" and values.get("allow_pickle", "allow_pickle" in given) is not False:
            self.found.append("numpy.load")
        loaders = {self.dotted(value) for value in [*node.args[1:], given.get("Loader")] if value is not None}
        if name in ("yaml.load", "yaml.load_all") and not loaders & SAFE_LOADERS:
            self.found.append(name)
        self.found += [word for word in ("shell", "trust_remote_code") if values.get(word, word in given) is not False]
        if name in ("getattr", "operator.attrgetter", "importlib.import_module"):
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            self.found += [word for word in words if word in NEVER | MODULES | {"loads", "system"}]
        self.generic_visit(node)

    def dotted(self, node) -> str:
        """The full name that a node stands for, or nothing."""
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return self.names.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def _check_module(self, module: str) -> None:
        self.found += [module] if module.partition(".")[0] in MODULES else []

    def _check_name(self, name: str) -> None:
        self.found += [name] if name in NEVER else []


def found_in(code: str) -> set[str]:
    """What some Python does that is forbidden."""
    finder = Finder()
    finder.visit(ast.parse(code))
    return set(finder.found)


def test_data_are_never_code():
    assert len(SOURCES) > 200
    found = {(what, str(path.relative_to(ROOT))) for path in SOURCES for what in found_in(code_of(path))}
    allowed = {(what, file) for what, files in ALLOWED.items() for file in files}
    assert not found - allowed, f"forbidden, or to be listed here with a reason: {sorted(found - allowed)}"
    assert not allowed - found, f"listed here in vain: {sorted(allowed - found)}"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pickle\npickle.load(file)", "pickle.load"),
        ("import pickle as p\nread = p.loads", "pickle.loads"),
        ("from pickle import loads as read", "pickle.loads"),
        ("from pickle import *", "pickle.*"),
        ("import pickle\nclass A(pickle.Unpickler): pass", "pickle.Unpickler"),
        ("import torch\ntorch.load(path)", "torch.load"),
        ("import torch as t\nt.load(path, weights_only=False)", "torch.load"),
        ("from torch import load\nload(path, weights_only=choice)", "torch.load"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "numpy.load"),
        ("import numpy as np\nnp.load(path, allow_pickle=choice)", "numpy.load"),
        ("import yaml\nyaml.load(text)", "yaml.load"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("import joblib", "joblib"),
        ("from dill import loads", "dill"),
        ("import shelve, marshal", "marshal"),
        ("x = eval(text)", "eval"),
        ("import builtins\nexec(text)", "exec"),
        ("import subprocess\nsubprocess.run(line, shell=True)", "shell"),
        ("import os\nos.system(line)", "os.system"),
        ("model = Auto.from_pretrained(name, trust_remote_code=True)", "trust_remote_code"),
        ("import importlib\nimportlib.import_module('dill')", "dill"),
    ],
)
def test_the_search_finds(code, what):
    assert what in found_in(code)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)\nyaml.safe_load(text)",
        "import pickle\npickle.dumps(1)\nmodel.eval()\nimport json\njson.loads(text)",
        "text = 'pickle.loads(x) and trust_remote_code=True'",
    ],
)
def test_the_search_leaves_alone(code):
    assert found_in(code) == set()
