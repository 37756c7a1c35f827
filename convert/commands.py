"""What the subcommands of `python -m maskformer.convert` do; each writes its output whole, or raises `ValueError`."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from maskformer.convert import model_card as cards
from maskformer.convert.backbone import load_backbone_weights, save_backbone_weights
from maskformer.convert.folders import (
    MODELS,
    PROCESSOR,
    build_model,
    fill,
    read_model_folder,
    save_official,
    write_file,
    write_model_folder,
)
from maskformer.convert.hugging_face import dropped, from_transformers, to_transformers
from maskformer.convert.hugging_face_config import (
    config_from_transformers,
    config_to_transformers,
    processor_from_transformers,
    processor_to_transformers,
)
from maskformer.convert.official import from_official, to_official, upgrade
from maskformer.convert.recipe_inference import infer_recipe
from maskformer.convert.verify import check_entries, check_forward, check_logits
from maskformer.convert.weights import find_folder_weights, find_weights, read_weights
from maskformer.data.files import sha256
from maskformer.image_processing.image_processing_maskformer import MaskFormerUniversalImageProcessorPil
from maskformer.modeling.saved_folder import as_code
from maskformer.recipes import load_recipe


def convert_from_official(checkpoint: Path, out: Path, recipe: str | None, verify: bool) -> None:
    """An official checkpoint, `.pkl` or `.pth` of either layout, to a model folder."""
    chosen = load_recipe(recipe) if recipe else None
    state_dict = read_weights(checkpoint)
    try:
        chosen = chosen or infer_recipe(state_dict)
        config = chosen.build_config()
        config.weights_license = "cc-by-nc-4.0"
        model = build_model(config, from_official(state_dict, config))
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    print(f"recipe: {chosen.name}" + ("" if recipe else ", by the names and shapes of the weights"))
    if verify:
        print(check_entries(upgrade(state_dict), to_official(model.state_dict(), config)))
        print(check_forward(model))
    rows = cards.source_rows(
        checkpoint, sha256(checkpoint), recipe=as_code(chosen.name), test=cards.protocol_in_words(chosen)
    )
    card = cards.model_card(config, rows, cards.OFFICIAL_LICENSE)
    write_model_folder(out, model, card, chosen.build_image_processor().save_pretrained)


def convert_to_official(folder: Path, out: Path, verify: bool) -> None:
    """A model folder to an official checkpoint, in the v2 layout."""
    config, state_dict = read_model_folder(folder)
    official = to_official(state_dict, config)
    if verify:
        print(check_entries(state_dict, from_official(official, config)))
        print(check_forward(build_model(config, state_dict)))
    save_official(official, out)


def convert_from_transformers(folder: Path, out: Path, verify: bool) -> None:
    """A folder of transformers' MaskFormer to a model folder."""
    their_config, state_dict = read_model_folder(folder, MaskFormerConfig)
    config = config_from_transformers(their_config)
    model = build_model(config, from_transformers(state_dict, config))
    if lost := dropped(state_dict):
        print(f"left out, because nothing uses them: {', '.join(lost)}; to-transformers writes ones and zeros")
    if verify:
        back = to_transformers(model.state_dict(), config)
        theirs = fill(MaskFormerForInstanceSegmentation(their_config), back)
        print(check_logits(model, theirs))
    has_processor = (folder / PROCESSOR).is_file()
    processor = MaskFormerUniversalImageProcessorPil(num_labels=config.num_labels)
    if has_processor:
        processor = processor_from_transformers(MaskFormerImageProcessorPil.from_pretrained(folder))
    else:
        print(f"{folder} has no {PROCESSOR}: the default image processor is written")
    weights = find_folder_weights(folder)
    rows = cards.source_rows(weights[0], sha256(weights[0]), layout="transformers' MaskFormerForInstanceSegmentation")
    write_model_folder(out, model, cards.model_card(config, rows, cards.SAME_LICENSE), processor.save_pretrained)


def convert_to_transformers(folder: Path, out: Path, verify: bool) -> None:
    """A model folder to a folder of transformers' MaskFormer."""
    config, state_dict = read_model_folder(folder)
    their_config = config_to_transformers(config)
    converted = to_transformers(state_dict, config)
    theirs = fill(MaskFormerForInstanceSegmentation(their_config), converted)
    if verify:
        print(check_entries(state_dict, from_transformers(converted, config)))
        print(check_logits(build_model(config, state_dict), theirs))
    processor = MaskFormerUniversalImageProcessorPil(num_labels=config.num_labels)
    if (folder / PROCESSOR).is_file():
        processor = MaskFormerUniversalImageProcessorPil.from_pretrained(folder)
    weights = find_folder_weights(folder)
    rows = cards.source_rows(weights[0], sha256(weights[0]))
    card = cards.model_card(their_config, rows, cards.SAME_LICENSE, theirs=True)
    write_model_folder(out, theirs, card, processor_to_transformers(processor).save_pretrained)


def convert_backbone(checkpoint: str, out: Path, folder: Path | None, recipe: str | None, verify: bool) -> None:
    """Pre-trained backbone weights into the model of a folder, or into a new one of a recipe.

    An `out` that ends in `.safetensors` gets the backbone alone, anything else the whole model.
    """
    if folder is not None:
        config, state_dict = read_model_folder(folder)
        model = build_model(config, state_dict)
    else:
        chosen = load_recipe(recipe)
        config = chosen.build_config()
        torch.manual_seed(0)  # the weights beside the backbone's are drawn
        model = MODELS[type(config)](config).eval()
    load_backbone_weights(model, checkpoint)
    if verify:
        print(check_forward(model))
    if out.suffix == ".safetensors":
        write_file(out, lambda path: save_backbone_weights(model, path))
        return

    def save_processor(new: Path) -> None:
        if folder is None:
            chosen.build_image_processor().save_pretrained(new)
        elif (folder / PROCESSOR).is_file():
            shutil.copy(folder / PROCESSOR, new)

    path = find_weights(checkpoint)
    drawn = f"drawn with seed 0, as recipe {as_code(recipe)} says"
    rest = drawn if folder is None else f"from the folder {as_code(folder.name)}"
    rows = cards.source_rows(path, sha256(path), **{"what": "the backbone alone", "other weights": rest})
    has_processor = folder is None or (folder / PROCESSOR).is_file()
    write_model_folder(out, model, cards.model_card(config, rows, cards.SAME_LICENSE, has_processor), save_processor)
