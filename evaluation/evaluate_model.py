"""One model, evaluated by one recipe's protocol: from the model folder to everything that is written about it."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

from accelerate import Accelerator

from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import kinds_of_answers, readable_examples
from maskformer.evaluation.charts import draw_bars, draw_confusion
from maskformer.evaluation.html_report import curve_urls, example_urls, write_html
from maskformer.evaluation.measure import measure
from maskformer.evaluation.predictions import PredictionFolder
from maskformer.evaluation.progress import Progress, evaluation_key
from maskformer.evaluation.report import results_of, write_report
from maskformer.evaluation.scores import Scores
from maskformer.evaluation.together import together
from maskformer.recipes import Recipe
from maskformer.training.model_folder import load_model_folder
from maskformer.training.pictures import captions_of, draw_examples, draw_validation

logger = logging.getLogger(__name__)

# Settings of an evaluation that a report of it leaves out: those of training, and how fast to be.
UNSAID = ("best_metric", "eval_batch_size")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate, whatever the model: `limit` images, saved every `save_every` of them; `command` is reported."""

    command: str
    limit: int | None = None
    skip_bad: bool = False
    save_predictions: bool = False
    save_every: int = 100


def evaluate_model(
    accelerator: Accelerator, name: str, model_folder: Path, recipe: Recipe, source, output: Path, options: Options
) -> dict:
    """The metrics of the model in `model_folder` on `source`; the main process writes all about them into `output`.

    An evaluation that was interrupted goes on. Raises `ValueError` where model and dataset do not fit or cannot be
    read, and `BadSample` for an unusable example unless they are to be skipped.
    """
    predictions = None
    with together(accelerator):
        model, image_processor = load_model_folder(model_folder)
        check_labels(model, source.labels)
        key = key_of(model_folder, recipe, source, options)
        if options.save_predictions:
            predictions = PredictionFolder(output / f".predictions-{key}", source.labels, recipe.data.reduce_labels)
    model.to(accelerator.device)
    progress = Progress(output, key, options.save_every)
    began = time.monotonic()
    scores = measure(
        model,
        image_processor,
        source,
        recipe.evaluation,
        accelerator,
        options.skip_bad,
        options.limit,
        progress,
        predictions,
    )
    kinds = kinds_of_answers(recipe.evaluation, image_processor, source.labels)
    results = results_of(scores) | {
        "model": name,
        "recipe": recipe.name,
        "command": options.command,
        "protocol": protocol(recipe, image_processor, kinds, options),
        "key": key,
        "seconds": time.monotonic() - began,
        "images_now": len(scores.images) - progress.restored,
    }
    with together(accelerator):
        if accelerator.is_main_process:
            # Numbers first. What an interruption leaves is whole until the last two lines, which take no time.
            write_report(output, results, source.labels)
            history = model_folder.resolve().parent / "history.jsonl"
            draw_pictures(model, image_processor, source, recipe, scores, results, history, output)
            if predictions:
                predictions.finish(output / "predictions")
            progress.clear()
    return results


def check_labels(model, labels: LabelSet) -> None:
    """Raises `ValueError` where the model's labels are others than the dataset's, or in another order.

    A model without names is taken at its number of them. Published models spell some labels in other words ("window",
    "windowpane"): where most agree, and none stands under another number, the difference is a warning.
    """
    if model.config.num_labels != len(labels):
        raise ValueError(f"the model has {model.config.num_labels} labels, the dataset {len(labels)}")
    names = [model.config.id2label[index] for index in range(len(labels))]
    if names == [f"LABEL_{index}" for index in range(len(labels))]:
        return
    for index, name in enumerate(names):
        there = labels.label2id.get(name, index)
        if there != index:
            raise ValueError(
                f"label {index} of the model is {name!r}, which is label {there} of the dataset; the order must be one"
            )
    other = [index for index, name in enumerate(names) if first_word(name) != first_word(labels.names[index])]
    if not other:
        return
    index = other[0]
    example = f"label {index} is {names[index]!r} in the model and {labels.names[index]!r} in the dataset"
    if 2 * len(other) > len(names):
        raise ValueError(
            f"{example}; {len(other)} of {len(names)} differ. Where they mean the same, give the model the dataset's"
            " names (id2label in its config.json)"
        )
    logger.warning("%s, which is taken to mean the same, as for %d of %d labels", example, len(other), len(names))


def first_word(name: str) -> str:
    """A label's name up to its synonyms: of "Road, route" it is "road"."""
    return name.split(",")[0].strip().lower()


def key_of(model_folder: Path, recipe: Recipe, source, options: Options) -> str:
    """What stands for all that decides an evaluation's numbers and files; the size of batches does not.

    Of the data it sees what the rows hold, such as annotations and paths: files of rows are called by their content, or
    have another size. Images and label maps that are replaced under their old names go unseen.
    """
    rows = [(Path(file["filename"]).name, Path(file["filename"]).stat().st_size) for file in source.rows.cache_files]
    sections = recipe.sections()
    evaluation = {name: value for name, value in sections["evaluation"].items() if name not in UNSAID}
    settings = {
        "data": sections["data"],
        "evaluation": evaluation,
        "images": len(source),
        "rows": rows,
        "labels": source.labels.names,
    }
    settings |= {"limit": options.limit, "predictions": options.save_predictions}
    return evaluation_key(model_folder, settings)


def protocol(recipe: Recipe, image_processor, kinds, options: Options) -> dict:
    """The settings that a reader needs to measure the same: those of the recipe, and those of the image processor."""
    settings = {"dataset": recipe.data.source, "answers": ", ".join(sorted(kinds))}
    size = image_processor.size
    settings |= {"shortest_edge": size.get("shortest_edge"), "longest_edge": size.get("longest_edge")}
    settings |= {name: getattr(image_processor, name) for name in ("size_divisor", "resize_masks_first")}
    chosen = dataclasses.asdict(recipe.evaluation)
    if not chosen["tta"]:
        chosen = {name: value for name, value in chosen.items() if not name.startswith("tta")}
    if "panoptic" not in kinds:
        chosen = {name: value for name, value in chosen.items() if name not in recipe.evaluation.protocol()}
        chosen.pop("panoptic_method")
    left_out = (*UNSAID, *(() if chosen["sliding_window"] else ("sliding_window", "stride")))
    settings |= {name: value for name, value in chosen.items() if name not in left_out}
    if options.limit:
        settings["limit"] = options.limit
    return settings


def draw_pictures(
    model, image_processor, source, recipe: Recipe, scores: Scores, results: dict, history: Path, output: Path
) -> None:
    """Draws all pictures, and the page that shows some, in place of earlier ones.

    One that fails is missed, with a warning: numbers are worth more.
    """
    arguments = recipe.evaluation
    pictures = {
        "confusion.png": lambda path: draw_confusion(scores.confusion, source.labels, path),
        "bars.png": lambda path: draw_bars(results["per_label"], source.labels, path),
        "validation.png": lambda path: draw_validation(model, image_processor, source, arguments, path),
        "worst.png": lambda path: draw_worst(model, image_processor, source, recipe, results["worst"], path),
        "report.html": lambda path: draw_page(model, image_processor, source, arguments, results, history, path),
    }
    for name, draw in pictures.items():
        path = output / name
        path.unlink(missing_ok=True)
        try:
            draw(path)
        except Exception as error:  # of numpy, PIL, matplotlib, the file system: whatever it is, the numbers stay
            logger.warning("%s could not be drawn: %s", path, error)


def draw_page(model, image_processor, source, arguments, results: dict, history: Path, path: Path) -> None:
    """Writes all about an evaluation as one page, with the curves of the training where its `history` is there."""
    facts = [f"recipe {results['recipe']}", f"{results['seconds']:.0f} s for {results['images_now']} images"]
    settings = {"command": results["command"], "protocol": results["protocol"]}
    pictures = example_urls(model, image_processor, source, arguments, results)
    write_html(path, results["model"], facts, results, source.labels, settings, curve_urls(history), pictures)


def draw_worst(model, image_processor, source, recipe: Recipe, worst: list[dict], path: Path) -> None:
    """Draws the worst images, where there are any."""
    if not worst:
        return
    captions = captions_of([(row["image_id"], row["score"]) for row in worst], worst[0]["metric"])
    examples = readable_examples(source, [row["index"] for row in worst], skip_bad=False)
    draw_examples(model, image_processor, examples, source.labels, recipe.evaluation, path, captions)
