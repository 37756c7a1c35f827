"""What a saved model folder holds beside the weights: where its classes are found, and a model card."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from transformers import PreTrainedConfig

# The classes of each kind of model by Auto class. The files that they name are copied into the folder by transformers.
MASKFORMER = "modeling_maskformer.MaskFormerForUniversalSegmentation"
AUTO_MAPS = {
    "maskformer_universal": {
        "AutoConfig": "configuration_maskformer.MaskFormerUniversalConfig",
        "AutoModel": "modeling_maskformer.MaskFormerUniversalModel",
        "AutoModelForImageSegmentation": MASKFORMER,
        "AutoModelForSemanticSegmentation": MASKFORMER,
        "AutoModelForUniversalSegmentation": MASKFORMER,
    },
    "per_pixel_baseline": {
        "AutoConfig": "configuration_maskformer.PerPixelBaselineConfig",
        "AutoModel": "modeling_per_pixel_baseline.PerPixelBaselineModel",
        "AutoModelForSemanticSegmentation": "modeling_per_pixel_baseline.PerPixelBaselineForSemanticSegmentation",
    },
}
TEMPLATE = "# Model Card for Model ID"  # of transformers' own, in which nothing is filled in
CARD = """---
library_name: transformers
pipeline_tag: image-segmentation
tags:
- maskformer
{license}---

# {title}

[Per-Pixel Classification is Not All You Need for Semantic Segmentation](https://arxiv.org/abs/2107.06278)

## Use

```python
from transformers import pipeline

# The folder holds the code of the model, which needs timm and scipy. With the package of this project installed,
# `import maskformer` stands for `trust_remote_code=True`.
segmenter = pipeline("image-segmentation", model="{name}", trust_remote_code=True)
print(segmenter("photo.jpg", subtask="{subtask}"))
```

## Labels

{labels}
"""


def auto_map(config: PreTrainedConfig) -> dict[str, str] | None:
    """The entry `auto_map` of `config.json`: `module.Class` by Auto class; None for a model of another type."""
    return dict(AUTO_MAPS[config.model_type]) if config.model_type in AUTO_MAPS else None


def model_card(config: PreTrainedConfig, name: str) -> str:
    """The card of a model that is loaded by `name`."""
    per_pixel = config.model_type == "per_pixel_baseline"
    return CARD.format(
        title=f"{'A per-pixel baseline' if per_pixel else 'MaskFormer'} with {as_text(config.backbone)}",
        name=name,
        license=yaml.safe_dump({"license": config.weights_license}, width=1000) if config.weights_license else "",
        subtask="semantic" if per_pixel else "panoptic",
        labels=", ".join(as_text(config.id2label[index]) for index in sorted(config.id2label)),
    )


def as_text(value: object) -> str:
    """`value` as text within a line of Markdown, whatever it holds: names of labels come from data."""
    line = re.sub(r"([\\`*\[\]<>&]|\b_(?!\w)|(?<!\w)_)", r"\\\1", one_line(value))
    return re.sub(r"^(\d*)([-#+=~.)])", r"\1\\\2", line)  # what begins a heading, a list, a rule


def as_code(value: object) -> str:
    """`value` as code within a line of Markdown."""
    line = one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def one_line(value: object) -> str:
    """`value` as text without ends of lines, and without characters that control a terminal."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", str(value)).split())


def write_model_card(config: PreTrainedConfig, folder: Path) -> None:
    """Writes `README.md` into `folder`, unless there is one."""
    path = folder / "README.md"
    if not path.exists():
        path.write_text(model_card(config, "this folder"), encoding="utf-8")


def replace_template_card(config: PreTrainedConfig, folder: Path, repo_id: str) -> None:
    """Writes the card of `repo_id` into `folder` where transformers' template stands, whose tags it keeps."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if TEMPLATE not in text:
        return
    card = ModelCard(model_card(config, repo_id))
    card.data.tags += [tag for tag in ModelCard(text).data.tags or [] if tag not in card.data.tags]
    card.save(path)
