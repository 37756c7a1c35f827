"""Model cards of converted weights."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig

from maskformer.modeling.saved_folder import as_code, as_text
from maskformer.recipes import Recipe

OFFICIAL_LICENSE = (
    "The official weights of MaskFormer are published under CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/),"
    " for non-commercial use, and so are these, which are the same numbers."
)
SAME_LICENSE = "These weights have the licence of the weights that they were converted from."


def model_card(
    config: PreTrainedConfig, sources: dict[str, str], licence: str, image_processor: bool = True, theirs: bool = False
) -> str:
    """The text of `README.md`: what the weights are, the `sources` they come from, licence, and how to load them.

    `theirs` is for folders of transformers' own MaskFormer.
    """
    official = licence == OFFICIAL_LICENSE
    header = ["---", "library_name: transformers", "pipeline_tag: image-segmentation", "tags:", "- maskformer"]
    header += [f"license: {config.weights_license}", "---", ""] if official else ["---", ""]
    auto = (
        "AutoModelForSemanticSegmentation"
        if config.model_type == "per_pixel_baseline"
        else "AutoModelForUniversalSegmentation"
    )
    backbone = config.backbone_config.model_type if theirs else config.backbone
    body = [
        f"# {config.model_type} with {as_text(backbone)}, {config.num_labels} labels",
        "",
        "Per-Pixel Classification is Not All You Need for Semantic Segmentation (https://arxiv.org/abs/2107.06278).",
        "",
        "| | |",
        "|---|---|",
        *("| {} | {} |".format(name, value.replace("|", "\\|")) for name, value in sources.items()),
        "",
        "## Licence",
        "",
        licence,
        "",
        "## Use",
        "",
        "```python",
        *([] if theirs else ["import maskformer  # registers the classes with transformers"]),
        f"from transformers import {'AutoImageProcessor, ' if image_processor else ''}{auto}",
        "",
        f'model = {auto}.from_pretrained("this folder")',
        *(['image_processor = AutoImageProcessor.from_pretrained("this folder")'] if image_processor else []),
        "```",
        "",
    ]
    return "\n".join(header + body)


def protocol_in_words(recipe: Recipe) -> str:
    """How `recipe` tests, in words; the image processor beside the weights does so."""
    processor, evaluation = recipe.build_image_processor(), recipe.evaluation
    edges = f"shortest edge {processor.size['shortest_edge']}, longest at most {processor.size['longest_edge']} pixels"
    padding = f"padded to a multiple of {processor.size_divisor}" if processor.size_divisor else "not padded"
    if recipe.model_type == "per_pixel_baseline":
        return f"{edges}, {padding}"
    order = "masks are resized, then combined" if processor.resize_masks_first else "combined, then resized"
    return (
        f"{edges}, {padding}; semantic answers: {order}; panoptic ones: {evaluation.panoptic_method}, classes above"
        f" {evaluation.threshold}, overlap {evaluation.overlap_mask_area_threshold}"
    )


def source_rows(checkpoint: Path, digest: str, **rows: str) -> dict[str, str]:
    """The table of a card: file, its SHA-256, and `rows`."""
    return {"converted from": as_code(checkpoint.name), "its SHA-256": f"`{digest}`", **rows}
