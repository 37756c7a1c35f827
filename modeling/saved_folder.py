"""What a saved model folder holds beside the weights: where its classes are found, and a model card."""

from __future__ import annotations

from pathlib import Path

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
CARD = """---
library_name: transformers
pipeline_tag: image-segmentation
tags:
- maskformer
---

# {title}

[Per-Pixel Classification is Not All You Need for Semantic Segmentation](https://arxiv.org/abs/2107.06278)

## Use

```python
from transformers import pipeline

# The folder holds the code of the model, which needs timm and scipy. With the package of this project installed,
# `import maskformer` stands for `trust_remote_code=True`.
segmenter = pipeline("image-segmentation", model="this folder", trust_remote_code=True)
print(segmenter("photo.jpg", subtask="{subtask}"))
```

## Labels

{labels}
"""


def auto_map(config: PreTrainedConfig) -> dict[str, str]:
    """The entry `auto_map` of `config.json`: `module.Class` by Auto class."""
    return dict(AUTO_MAPS[config.model_type])


def write_model_card(config: PreTrainedConfig, folder: Path) -> None:
    """Writes `README.md` into `folder`, unless there is one."""
    path = folder / "README.md"
    if path.exists():
        return
    per_pixel = config.model_type == "per_pixel_baseline"
    labels = ", ".join(str(config.id2label[index]) for index in sorted(config.id2label))
    card = CARD.format(
        title=f"{'A per-pixel baseline' if per_pixel else 'MaskFormer'} with {config.backbone}",
        subtask="semantic" if per_pixel else "panoptic",
        labels=labels,
    )
    path.write_text(card, encoding="utf-8")
