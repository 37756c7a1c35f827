"""Segments images: writes an overlay (masks, outlines, class names) and a JSON for each."""

from __future__ import annotations

import argparse
import glob
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from maskformer.data.files import replace_file
from maskformer.image_processing.image_loading import load_image
from maskformer.image_processing.inference import last_predictions
from maskformer.image_processing.visualization import draw_segments, draw_semantic
from maskformer.training.history import write_json
from maskformer.training.model_folder import load_model_folder

EXAMPLE = "python scripts/predict.py --model outputs/demo/best --output_dir outputs/answers photo.jpg folder/"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n\nexample:\n  {EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", help="images, folders of images, or patterns such as 'photos/*.jpg'")
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--task", choices=("panoptic", "instance", "semantic"), default="panoptic")
    parser.add_argument("--threshold", type=float, help="least score of a segment; by default the model's, or 0.5")
    parser.add_argument("--overwrite", action="store_true", help="replace answers that are there")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="skip", help="unreadable images")
    return parser, parser.parse_args()


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders and patterns name, in order and each once.

    Raises `ValueError` for an input that names none.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            paths = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
        else:
            paths = [path] if path.is_file() else [Path(item) for item in sorted(glob.glob(text, recursive=True))]
        if not paths:
            raise ValueError(f"{text}: there is no image of this name, folder or pattern")
        found |= dict.fromkeys(paths)
    return list(found)


def output_names(images: list[Path]) -> dict[Path, str]:
    """A name for each image's answers: its stem, or numbered where two images share one."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for image in images:
        name, number = image.stem, 2
        while name in taken:
            name, number = f"{image.stem}_{number}", number + 1
        taken.add(name)
        names[image] = name
    return names


def check_outputs(folder: Path, names: dict[Path, str], overwrite: bool) -> None:
    """Raises `ValueError` where answers would replace an image that is read, or, without `overwrite`, any file."""
    images = {image.resolve() for image in names}
    for name in names.values():
        for path in (folder / f"{name}.png", folder / f"{name}.json"):
            if path.resolve() in images:
                raise ValueError(f"{path} is one of the images, and would be replaced; choose another --output_dir")
            if path.exists() and not overwrite:
                raise ValueError(f"{folder} already holds answers ({path.name}); use --overwrite")


@torch.inference_mode()
def segment(model, image_processor, image, task: str, threshold: float | None) -> tuple[dict, object]:
    """The answer for one image (H, W, 3), as JSON values and as a picture."""
    outputs = last_predictions(model, image_processor(images=image, return_tensors="pt"))
    size = [image.shape[:2]]
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    colors = model.config.label_colors
    if colors is not None and len(colors) != len(names):
        colors = None  # the labels were replaced
    if task == "semantic":
        (labels,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=size)
        counts = torch.bincount(labels.flatten(), minlength=len(names)).tolist()
        segments = [{"label": names[i], "label_id": i, "area": area} for i, area in enumerate(counts) if area]
        return {"segments": segments}, draw_semantic(image, labels, names, colors)
    post_process = getattr(image_processor, f"post_process_{task}_segmentation")
    settings = {"threshold": 0.5}
    if task == "panoptic":
        settings |= image_processor.test_protocol or {}
    if threshold is not None:
        settings["threshold"] = threshold
    (answer,) = post_process(outputs, target_sizes=size, **settings)
    areas = torch.bincount(answer["segmentation"].flatten().long(), minlength=len(answer["segments_info"]) + 1).tolist()
    segments = [
        {"id": info["id"], "label": names[info["label_id"]], **info, "area": areas[info["id"]]}
        for info in answer["segments_info"]
    ]
    return {"segments": segments}, draw_segments(image, answer, names, colors, labels=max(image.shape[:2]) >= 64)


def write_answer(folder: Path, name: str, content: dict, picture) -> None:
    """Writes NAME.json and NAME.png, each all or nothing."""
    write_json(folder / f"{name}.json", content)
    with replace_file(folder / f"{name}.png") as temporary:
        picture.save(temporary, format="PNG")


def main() -> None:
    parser, arguments = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    try:
        images = find_images(arguments.inputs)
        names = output_names(images)
        check_outputs(arguments.output_dir, names, arguments.overwrite)
        model, image_processor = load_model_folder(arguments.model)
        if not hasattr(image_processor, f"post_process_{arguments.task}_segmentation"):
            kind = model.config.model_type
            raise ValueError(f"{arguments.model}: a {kind} model has no {arguments.task} answers; use --task semantic")
        model.to(Accelerator().device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in tqdm(images, desc="segmenting", unit="image"):
        try:
            image = load_image(path)
        except ValueError as error:
            if arguments.on_bad_sample == "raise":
                sys.exit(f"error: {error}\n(--on_bad_sample skip leaves such images out)")
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            failed += 1
            continue
        content, picture = segment(model, image_processor, image, arguments.task, arguments.threshold)
        header = {"image": str(path), "height": image.shape[0], "width": image.shape[1], "task": arguments.task}
        write_answer(arguments.output_dir, names[path], header | content, picture)
    print(
        f"{len(images) - failed} answers in {arguments.output_dir}" + (f", {failed} images skipped" if failed else "")
    )
    sys.exit(1 if failed == len(images) else 0)


if __name__ == "__main__":
    main()
