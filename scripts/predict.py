"""Segments images: writes an overlay (masks, outlines, class names) and a JSON for each.

--json adds masks, as COCO's RLE, to the JSON files, and writes coco.json, one dataset in COCO's format. --save_masks
adds NAME_mask.png, of 8 or 16 bits: the label ids of a semantic answer, or the ids of segments, 0 where there is none.
"""

from __future__ import annotations

import argparse
import glob
import sys
from collections import Counter
from pathlib import Path

from accelerate import Accelerator
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from maskformer.data.files import replace_file
from maskformer.data.nearest import Parser, nearest_path
from maskformer.evaluation.answers import batches_of_one_canvas
from maskformer.evaluation.coco_file import CocoFile
from maskformer.evaluation.photographs import STYLES, answer_photographs, draw_answer, in_smaller_batches, smallest
from maskformer.image_processing.image_loading import load_image
from maskformer.training.history import write_json
from maskformer.training.model_folder import load_model_folder

EXAMPLE = "python scripts/predict.py --model outputs/demo/best --output_dir outputs/answers photo.jpg folder/"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("inputs", nargs="+", help="images, folders of images, or patterns such as 'photos/*.jpg'")
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--task", choices=("panoptic", "instance", "semantic"), default="panoptic")
    parser.add_argument("--threshold", type=float, help="least score of a segment; by default the model's, or 0.5")
    parser.add_argument("--style", choices=STYLES, default="both", help="of the overlay: filled, outlined, ...")
    parser.add_argument("--legend", action="store_true", help="list classes, colours and areas beside the picture")
    parser.add_argument("--json", action="store_true", help="masks in the JSON files, and coco.json for all images")
    parser.add_argument("--save_masks", action="store_true", help="write a PNG of ids for each image too")
    parser.add_argument("--batch_size", type=int, default=1, help="images of one size at a time; fewer if memory ends")
    parser.add_argument("--overwrite", action="store_true", help="replace answers that are there")
    parser.add_argument(
        "--on_bad_sample", choices=("raise", "skip"), default="skip", help="unreadable images; skip names them"
    )
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size}: it must be at least 1")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        parser.error(f"--threshold {arguments.threshold:g}: scores lie between 0 and 1")
    if arguments.output_dir.exists() and not arguments.output_dir.is_dir():
        parser.error(f"--output_dir {arguments.output_dir} is a file; a folder is needed")
    return parser, arguments


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders and patterns name, in order and each once.

    Raises `ValueError` for an input that names none, with the nearest that exists.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            paths = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES and item.name[0] != ".")
            if not paths:
                below = path / "**" / "*.jpg"
                raise ValueError(f"{text}: there is no image in this folder itself; '{below}' are those below it")
        else:
            paths = [path] if path.is_file() else [Path(item) for item in sorted(glob.glob(text, recursive=True))]
        if not paths:
            raise ValueError(f"{text}: there is no image of this name, folder or pattern{nearest_path(path)}")
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


def check_outputs(folder: Path, names: dict[Path, str], arguments: argparse.Namespace) -> None:
    """Raises `ValueError` where answers would replace an image that is read, or, without `--overwrite`, any file."""
    images = {image.resolve() for image in names}
    endings = [".png", ".json"] + ["_mask.png"] * arguments.save_masks
    outputs = [folder / f"{name}{ending}" for name in names.values() for ending in endings]
    outputs += [folder / "coco.json"] * arguments.json
    for path, count in Counter(outputs).items():
        if path.resolve() in images:
            raise ValueError(f"{path} is one of the images, and would be replaced; choose another --output_dir")
        if count > 1:
            raise ValueError(f"{path} would be written twice; rename one of the images")
        if path.exists() and not arguments.overwrite:
            raise ValueError(f"{folder} already holds answers ({path.name}); use --overwrite")


def readable(images: list[Path], skip: bool, skipped: list[Path]):
    """The images one by one, as examples; those that cannot be read are named and, with `skip`, left out."""
    for path in images:
        try:
            yield {"path": path, "image": load_image(path)}
        except ValueError as error:
            if not skip:
                sys.exit(f"error: {error}\n(--on_bad_sample skip leaves such images out)")
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            skipped.append(path)


def save_picture(path: Path, picture: Image.Image) -> None:
    """Writes a PNG, all or nothing."""
    with replace_file(path) as temporary:
        picture.save(temporary, format="PNG")


def write_answer(name: str, example: dict, answer, config, arguments: argparse.Namespace) -> None:
    """Writes NAME.json, NAME.png and what else was asked for."""
    image, folder = example["image"], arguments.output_dir
    segments = answer.segments
    if arguments.json:
        segments = [{**segment, "segmentation": rle} for segment, rle in zip(segments, answer.rles, strict=True)]
    header = {"image": str(example["path"]), "height": image.shape[0], "width": image.shape[1], "task": arguments.task}
    write_json(folder / f"{name}.json", header | {"segments": segments})
    save_picture(folder / f"{name}.png", draw_answer(image, answer, config, arguments.style, arguments.legend))
    if arguments.save_masks:
        save_picture(folder / f"{name}_mask.png", Image.fromarray(smallest(answer.segmentation)))


def main() -> None:
    parser, arguments = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    try:
        images = find_images(arguments.inputs)
        names = output_names(images)
        check_outputs(arguments.output_dir, names, arguments)
        model, image_processor = load_model_folder(arguments.model)
        if not hasattr(image_processor, f"post_process_{arguments.task}_segmentation"):
            kind = model.config.model_type
            raise ValueError(f"{arguments.model}: a {kind} model has no {arguments.task} answers; use --task semantic")
        model.to(Accelerator().device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    skipped: list[Path] = []
    coco = CocoFile(model.config.id2label)

    def answer(examples: list[dict], inputs: dict) -> list:
        sizes = [example["image"].shape[:2] for example in examples]
        asked = (arguments.task, arguments.threshold, arguments.json)
        return answer_photographs(model, image_processor, sizes, inputs, *asked)

    examples = readable(images, arguments.on_bad_sample == "skip", skipped)
    with tqdm(total=len(images), desc="segmenting", unit="image") as bar:
        for batch, inputs in batches_of_one_canvas(examples, image_processor, arguments.batch_size):
            for example, said in zip(batch, in_smaller_batches(answer, batch, inputs), strict=True):
                write_answer(names[example["path"]], example, said, model.config, arguments)
                if arguments.json:
                    coco.add(example["path"], said)
            bar.update(len(batch))
        bar.update(len(skipped))
    if arguments.json:
        write_json(arguments.output_dir / "coco.json", coco.content())
    print(
        f"{len(images) - len(skipped)} answers in {arguments.output_dir}"
        + (f", {len(skipped)} images skipped" if skipped else "")
    )
    sys.exit(1 if len(skipped) == len(images) else 0)


if __name__ == "__main__":
    main()
