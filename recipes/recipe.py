"""Recipes: one YAML file for each row of a table, with everything that defines model, data, training and test."""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from maskformer.data.label_set import LabelSet
from maskformer.image_processing.image_processing_maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig
from maskformer.recipes.arguments import DataArguments, EvaluationArguments, TrainingArguments

FOLDER = Path(__file__).resolve().parent
SECTIONS = {"data": DataArguments, "training": TrainingArguments, "evaluation": EvaluationArguments}
SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One resolved recipe; `model` and `image_processor` hold what differs from the defaults of those classes."""

    name: str
    model: dict[str, Any]
    image_processor: dict[str, Any]
    data: DataArguments
    training: TrainingArguments
    evaluation: EvaluationArguments

    def build_config(self, labels: LabelSet) -> MaskFormerUniversalConfig:
        """The model's configuration for a label set."""
        return MaskFormerUniversalConfig(**self.model, id2label=labels.id2label, label2id=labels.label2id)

    def build_image_processor(self, labels: LabelSet) -> MaskFormerUniversalImageProcessorPil:
        """The image processor of training and test, which resizes as the official pipeline does."""
        return MaskFormerUniversalImageProcessorPil(**self.image_processor, label_ids_to_fuse=labels.stuff_ids)

    def override(self, values: dict[str, Any]) -> Recipe:
        """This recipe with single values replaced, whatever section they are in.

        Raises `ValueError` for a name that no section has, with the nearest one that exists, and for a wrong type.
        """
        changes: dict[str, dict] = {}
        for name, value in values.items():
            changes.setdefault(section_of(name), {})[name] = value
        return make_recipe(
            self.name, {section: content | changes.get(section, {}) for section, content in self.sections().items()}
        )

    def sections(self) -> dict[str, dict]:
        """The recipe as plain values."""
        plain = {"model": dict(self.model), "image_processor": dict(self.image_processor)}
        return plain | {section: dataclasses.asdict(getattr(self, section)) for section in SECTIONS}

    def save(self, path: str | Path) -> None:
        """Writes the resolved recipe, in the form that `load_recipe` reads."""
        Path(path).write_text(yaml.safe_dump(self.sections(), sort_keys=False), encoding="utf-8")


def known_names() -> dict[str, list[str]]:
    """The names that each section knows."""
    names = {section: [field.name for field in dataclasses.fields(cls)] for section, cls in SECTIONS.items()}
    config = [field.name for field in dataclasses.fields(MaskFormerUniversalConfig)]
    processor = MaskFormerUniversalImageProcessorPil.valid_kwargs.__annotations__
    return names | {"model": config, "image_processor": list(processor)}


def section_of(name: str) -> str:
    """The first section that knows `name`."""
    names = known_names()
    for section, known in names.items():
        if name in known:
            return section
    near = difflib.get_close_matches(name, sum(names.values(), []), n=1)
    raise ValueError(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def make_recipe(name: str, content: dict[str, Any]) -> Recipe:
    """A recipe from plain values.

    Raises `ValueError` for sections or names that do not exist, naming the nearest, and for values of a wrong type.
    """
    known = known_names()
    for section, values in content.items():
        if section not in known:
            raise ValueError(f"recipe {name}: there is no section {section!r}; there are {', '.join(known)}")
        for key in values or {}:
            if key not in known[section]:
                near = difflib.get_close_matches(key, known[section], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"recipe {name}: section {section!r} has no {key!r}{hint}")
    values = {section: resolve(content.get(section) or {}) for section in known}
    try:
        arguments = {section: cls(**values[section]) for section, cls in SECTIONS.items()}
        MaskFormerUniversalConfig(**values["model"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"recipe {name}: {error}") from error
    except Exception as error:  # the strict dataclasses of huggingface_hub raise classes of their own
        raise ValueError(f"recipe {name}: {' '.join(str(error).split())}") from error
    return Recipe(name, values["model"], values["image_processor"], **arguments)


def resolve(value: Any) -> Any:
    """Numbers such as 1e-4, which YAML 1.1 takes for text, as numbers."""
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    return float(value) if isinstance(value, str) and SCIENTIFIC.fullmatch(value) else value


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, such as `shapes/demo`."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of this name, or in the YAML file of this path.

    Raises `ValueError` where there is none, naming the nearest, or where it does not parse.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(name), list_recipes(), n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no recipe {str(name)!r}{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a recipe is a mapping of sections: {', '.join(known_names())}")
    return make_recipe(str(name), content)
