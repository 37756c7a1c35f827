"""What a saved model folder holds beside the weights: where its classes are found, and a model card."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
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
segmenter = pipeline("image-segmentation", model="{name}", trust_remote_code=True)
print(segmenter("photo.jpg", subtask="{subtask}"))
```

## Labels

{labels}
"""


def auto_map(config: PreTrainedConfig) -> dict[str, str]:
    """The entry `auto_map` of `config.json`: `module.Class` by Auto class."""
    return dict(AUTO_MAPS[config.model_type])


def model_card(config: PreTrainedConfig, name: str) -> str:
    """The card of a model that is loaded by `name`."""
    per_pixel = config.model_type == "per_pixel_baseline"
    return CARD.format(
        title=f"{'A per-pixel baseline' if per_pixel else 'MaskFormer'} with {config.backbone}",
        name=name,
        subtask="semantic" if per_pixel else "panoptic",
        labels=", ".join(str(config.id2label[index]) for index in sorted(config.id2label)),
    )


def write_model_card(config: PreTrainedConfig, folder: Path) -> None:
    """Writes `README.md` into `folder`, unless there is one."""
    path = folder / "README.md"
    if not path.exists():
        path.write_text(model_card(config, "this folder"), encoding="utf-8")


def push_model_card(config: PreTrainedConfig, repo_id: str, private: bool | None, token: bool | str | None) -> None:
    """Uploads the card of a model to the Hub, unless the repository has one; transformers' own says nothing of it."""
    hub = HfApi(token=token)
    repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if not hub.file_exists(repo_id, "README.md"):
        card = model_card(config, repo_id).encode()
        hub.upload_file(
            path_or_fileobj=card, path_in_repo="README.md", repo_id=repo_id, commit_message="Upload model card"
        )
