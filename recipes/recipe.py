"""Recipes: one YAML file for each row of a table, with everything that defines model, data, training and test."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from maskformer.data.augmentation import Augmentation
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.loading import Collator, SemanticCollator
from maskformer.data.nearest import did_you_mean
from maskformer.image_processing.image_processing_maskformer import (
    MaskFormerUniversalImageProcessorPil,
    PerPixelBaselineImageProcessorPil,
)
from maskformer.modeling.configuration_maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.recipes.arguments import DataArguments, EvaluationArguments, TrainingArguments

FOLDER = Path(__file__).resolve().parent
SECTIONS = {"data": DataArguments, "training": TrainingArguments, "evaluation": EvaluationArguments}
# Each kind of model, with the image processor that resizes as the official pipeline does.
MODELS = {
    MaskFormerUniversalConfig.model_type: (MaskFormerUniversalConfig, MaskFormerUniversalImageProcessorPil),
    PerPixelBaselineConfig.model_type: (PerPixelBaselineConfig, PerPixelBaselineImageProcessorPil),
}
SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
# The settings that are text, such as paths and revisions: what looks like a number or a date in them is none.
TEXT_SETTINGS = {
    field.name
    for section in (*SECTIONS.values(), *(config_class for config_class, _ in MODELS.values()))
    for field in dataclasses.fields(section)
    if field.type in (str, str | None)
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One resolved recipe; `model` and `image_processor` hold what differs from the defaults of those classes.

    `labels` names the label set of its dataset, where it has one. `published` holds the paper's numbers: `miou_ss` and
    `miou_ms` (single scale; multi scale and flip), `pq`, `pq_th`, `pq_st`, `sq`, `rq` in percent, `params` in millions,
    `flops` in 1e9 multiply-adds, `fps`.
    """

    name: str
    labels: str | None
    published: dict[str, float]
    model_type: str
    model: dict[str, Any]
    image_processor: dict[str, Any]
    data: DataArguments
    training: TrainingArguments
    evaluation: EvaluationArguments

    def label_set(self) -> LabelSet:
        """The label set of the recipe's dataset; raises `ValueError` where the recipe names none."""
        if self.labels is None:
            raise ValueError(f"recipe {self.name} names no label set; the labels of a dataset are needed")
        return load_label_set(self.labels)

    def build_config(self, labels: LabelSet | None = None) -> MaskFormerUniversalConfig | PerPixelBaselineConfig:
        """The model's configuration, for the recipe's label set or another."""
        labels = labels or self.label_set()
        config_class, _ = MODELS[self.model_type]
        values = dict(self.model)
        if config_class is PerPixelBaselineConfig and self.data.ignore_index is not None:
            values["ignore_index"] = self.data.ignore_index
        colors = [list(color) for color in labels.colors]
        return config_class(**values, id2label=labels.id2label, label2id=labels.label2id, label_colors=colors)

    def build_image_processor(
        self, labels: LabelSet | None = None
    ) -> MaskFormerUniversalImageProcessorPil | PerPixelBaselineImageProcessorPil:
        """The image processor of training and test, for the recipe's label set or another.

        The recipe's own labels come with the value of void pixels in the dataset's files; other labels might use it.
        A MaskFormer's carries the thresholds of the recipe, as `test_protocol`.
        """
        ignore_index = self.data.ignore_index if labels is None else None
        labels = labels or self.label_set()
        _, processor_class = MODELS[self.model_type]
        values = {"ignore_index": ignore_index, "label_ids_to_fuse": labels.stuff_ids, "num_labels": len(labels)}
        if processor_class is MaskFormerUniversalImageProcessorPil:
            values["test_protocol"] = self.evaluation.protocol()
        return processor_class(**(values | self.image_processor))

    def build_augmentation(self) -> Augmentation:
        """The training augmentation; images get the size they have in the test unless the recipe gives others."""
        _, processor_class = MODELS[self.model_type]
        size = self.image_processor.get("size", processor_class.size)
        augmentation = self.data.build_augmentation()
        resized = self.image_processor.get("do_resize", processor_class.do_resize) and size.get("shortest_edge")
        if augmentation.shortest_edges or not resized:
            return augmentation
        edges = {"shortest_edges": [size["shortest_edge"]], "longest_edge": size.get("longest_edge")}
        return dataclasses.replace(augmentation, **edges)

    def build_collator(self, image_processor) -> Collator | SemanticCollator:
        """What makes batches for training this recipe's model of examples, with its image processor."""
        if self.model_type == PerPixelBaselineConfig.model_type:
            ignore_index = self.data.ignore_index
            return SemanticCollator(
                image_processor, PerPixelBaselineConfig.ignore_index if ignore_index is None else ignore_index
            )
        return Collator(image_processor, self.data.keep_emptied_segments)

    def override(self, values: dict[str, Any]) -> Recipe:
        """This recipe with single values replaced, whatever section they are in.

        Raises `ValueError` for a name that no section has, with the nearest one that exists, and for a wrong type.
        """
        content = self.sections()
        for name, value in values.items():
            content[section_of(name, self.model_type)][name] = value
        return make_recipe(self.name, content)

    def sections(self) -> dict[str, Any]:
        """The recipe as plain values."""
        plain = {"labels": self.labels, "published": dict(self.published)}
        plain |= {"model": {"model_type": self.model_type, **self.model}, "image_processor": dict(self.image_processor)}
        return plain | {section: dataclasses.asdict(getattr(self, section)) for section in SECTIONS}

    def save(self, path: str | Path) -> None:
        """Writes the resolved recipe, in the form that `load_recipe` reads."""
        Path(path).write_text(yaml.safe_dump(self.sections(), sort_keys=False), encoding="utf-8")


def known_names(model_type: str = MaskFormerUniversalConfig.model_type) -> dict[str, list[str]]:
    """The names that each section knows, for a kind of model."""
    config_class, processor_class = MODELS[model_type]
    names = {section: [field.name for field in dataclasses.fields(cls)] for section, cls in SECTIONS.items()}
    config = ["model_type", *(field.name for field in dataclasses.fields(config_class))]
    return names | {"model": config, "image_processor": list(processor_class.valid_kwargs.__annotations__)}


def section_of(name: str, model_type: str = MaskFormerUniversalConfig.model_type) -> str:
    """The first section that knows `name`."""
    names = known_names(model_type)
    for section, known in names.items():
        if name in known:
            return section
    raise ValueError(f"there is no setting {name!r}{did_you_mean(name, sum(names.values(), []))}")


def make_recipe(name: str, content: dict[str, Any]) -> Recipe:
    """A recipe from plain values.

    Raises `ValueError` for sections or names that do not exist, naming the nearest, and for values of a wrong type.
    """
    content = resolve(content)
    for section, values in content.items():
        if section != "labels" and not isinstance(values, dict | None):
            raise ValueError(f"recipe {name}: section {section!r} must be a mapping of names to values, not {values!r}")
    labels, published = content.pop("labels", None), content.pop("published", None) or {}
    model, image_processor = dict(content.get("model") or {}), content.get("image_processor") or {}
    model_type = str(model.pop("model_type", MaskFormerUniversalConfig.model_type))
    if model_type not in MODELS:
        raise ValueError(f"recipe {name}: there is no model_type {model_type!r}; there are {', '.join(MODELS)}")
    known = known_names(model_type)
    for section, values in content.items():
        if section not in known:
            there = ", ".join(["labels", "published", *known])
            raise ValueError(f"recipe {name}: there is no section {section!r}; there are {there}")
        for key in values or {}:
            if key not in known[section]:
                hint = did_you_mean(str(key), known[section])
                raise ValueError(f"recipe {name}: section {section!r} has no {key!r}{hint}")
    try:
        arguments = {section: cls(**(content.get(section) or {})) for section, cls in SECTIONS.items()}
        config_class, processor_class = MODELS[model_type]
        config_class(**model)
        processor_class(**image_processor)
        if labels is not None:
            load_label_set(labels)
    except (TypeError, ValueError) as error:
        raise ValueError(f"recipe {name}: {error}") from error
    except Exception as error:  # the strict dataclasses of huggingface_hub raise classes of their own
        raise ValueError(f"recipe {name}: {' '.join(str(error).split())}") from error
    return Recipe(name, labels, published, model_type, model, image_processor, **arguments)


def resolve(value: Any) -> Any:
    """Numbers such as 1e-4, which YAML 1.1 takes for text, as numbers; a setting that is text stays what it is."""
    if isinstance(value, dict):
        return {key: item if key in TEXT_SETTINGS else resolve(item) for key, item in value.items()}
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
        raise ValueError(f"there is no recipe {str(name)!r}{did_you_mean(str(name), list_recipes(), cutoff=0.3)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a recipe is a mapping of sections: {', '.join(known_names())}")
    return make_recipe(str(name), content)
