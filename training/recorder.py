"""What a run leaves behind: checkpoints, history, trackers, pictures, and the best model so far."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from maskformer.data.example import Source
from maskformer.data.files import replace_file
from maskformer.evaluation.html_report import curve_urls, example_urls, write_html
from maskformer.evaluation.measure import measure
from maskformer.evaluation.report import results_of
from maskformer.evaluation.scores import in_one_line
from maskformer.recipes import Recipe
from maskformer.training.batch_pictures import draw_batches
from maskformer.training.checkpoint import discard, remove, replace_folder, save_model
from maskformer.training.curves import draw_curves
from maskformer.training.history import append_row
from maskformer.training.pictures import draw_validation
from maskformer.training.sharding import optimizer_state, whole_model
from maskformer.training.step import NotFinite

CHECKPOINTS = "checkpoint-" + 8 * "[0-9]"
# Patterns of what a run writes; the last ones are what a crash in the middle of replacing a folder leaves.
PRODUCTS = ("last", "best", CHECKPOINTS, "recipe.yaml", "history.jsonl", "curves.png", "validation.png", "batch.png")
PRODUCTS += ("report.html", "not_finite*.pt", "not_finite*.png", "logs", ".last.*", ".best.*", f".{CHECKPOINTS}.*")


class Recorder:
    """Checkpoints, history, pictures and the metrics of one run, written by the main process alone."""

    def __init__(
        self,
        accelerator: Accelerator,
        recipe: Recipe,
        image_processor,
        validation: Source,
        folder: Path,
        skip_bad: bool,
    ):
        self.accelerator, self.recipe, self.folder, self.skip_bad = accelerator, recipe, folder, skip_bad
        self.image_processor, self.validation = image_processor, validation
        self.best: dict | None = None  # metrics of the checkpoint `best`
        self.seconds = 0.0  # of training, as last recorded
        rank = f"-{accelerator.process_index}" * (accelerator.num_processes > 1)  # each has batches of its own
        self.not_finite = folder / f"not_finite{rank}.pt"

    def row(self, step: int, **values) -> None:
        """Adds a row to the history and, but for what is NaN, to the trackers."""
        self.seconds = values.get("seconds", self.seconds)
        if self.accelerator.is_main_process:
            append_row(self.folder / "history.jsonl", {"step": step, **values})
        self.accelerator.log({name: value for name, value in values.items() if value == value}, step=step)

    def save(self, model, optimizer, step: int, seconds: float) -> None:
        """Writes the checkpoint `last`, and keeps it as `checkpoint-STEP` too where several are to be kept.

        All processes save together, and none goes on, or ends, before it is written.
        """
        self.seconds = seconds
        model = self.accelerator.unwrap_model(model)
        state = {"optimizer": optimizer_state(model, optimizer), "step": step, "seconds": seconds}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        whole = whole_model(model)
        if self.accelerator.is_main_process:
            save_model(self.folder / "last", whole, self.image_processor, state)
            keep_checkpoints(self.folder, step, self.recipe.training.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def save_not_finite(self, error: NotFinite, step: int) -> None:
        """Writes this process's batches that gave no finite number: tensors, and what they look like."""
        content = {"step": step, "message": str(error), "batches": send_to_device(error.batches, "cpu")}
        with replace_file(self.not_finite) as temporary:
            torch.save(content, temporary)
        picture = self.not_finite.with_suffix(".png")
        draw_batches(content["batches"], self.image_processor, self.validation.labels, picture)

    def evaluate(self, model, step: int) -> dict:
        """Evaluates on the validation split; the best model so far becomes the checkpoint `best`."""
        training, arguments = self.accelerator.unwrap_model(model), self.recipe.evaluation
        whole = whole_model(training)
        scores = measure(whole, self.image_processor, self.validation, arguments, self.accelerator, self.skip_bad)
        results = results_of(scores)
        metrics = {name: value for name, value in results.items() if name not in ("per_label", "worst", "best")}
        self.row(step, **metrics)
        name = arguments.best_metric if arguments.best_metric in metrics else "mean_iou"  # of per-pixel models
        # Written so that a metric that is NaN, as PQ of things where there are none, never keeps an older model.
        if self.best is None or not metrics[name] < self.best[name]:
            self.best = metrics
            if self.accelerator.is_main_process:
                save_model(self.folder / "best", whole, self.image_processor, metrics=metrics)
                picture = self.folder / "validation.png"
                draw_validation(whole, self.image_processor, self.validation, arguments, picture)
        if self.accelerator.is_main_process:
            draw_curves(self.folder / "history.jsonl", self.folder / "curves.png")
            self.write_report(whole, results, step)
        self.accelerator.wait_for_everyone()
        training.train()
        return metrics

    def write_report(self, model, results: dict, step: int) -> None:
        """Writes `report.html`: the run so far, and `results` of its last evaluation."""
        recipe, source = self.recipe, self.validation
        facts = [f"{step} steps", f"{self.seconds / 60:.1f} minutes", f"best model: {in_one_line(self.best)}"]
        pictures = example_urls(model, self.image_processor, source, recipe.evaluation, results)
        curves = curve_urls(self.folder / "history.jsonl")
        path = self.folder / "report.html"
        write_html(path, recipe.name, facts, results, source.labels, recipe.sections(), curves, pictures)


def products(folder: Path) -> list[Path]:
    """What an earlier run has left in `folder`."""
    return [path for pattern in PRODUCTS for path in folder.glob(pattern)]


def keep_checkpoints(folder: Path, step: int, count: int) -> None:
    """Keeps `last` as `checkpoint-STEP`, and of such folders the newest `count`; with a count of 1 `last` is enough."""
    if count > 1:
        copy_checkpoint(folder / "last", folder / f"checkpoint-{step:08d}")
    kept = sorted(folder.glob(CHECKPOINTS))
    for old in kept[:-count] if count > 1 else kept:
        discard(old)


def go_back(folder: Path, checkpoint: Path, step: int) -> None:
    """Makes `checkpoint`, of step `step`, the `last` of `folder`, and removes those after it and parts of folders."""
    for name, end in itertools.product(("last", "best", CHECKPOINTS), ("new", "gone", "old.gone")):
        for leftover in folder.glob(f".{name}.{end}"):  # of a run that was killed while it wrote or removed one
            remove(leftover)
    for other in folder.glob(CHECKPOINTS):
        if other.name > f"checkpoint-{step:08d}":
            discard(other)
    if checkpoint != folder / "last":
        copy_checkpoint(checkpoint, folder / "last")


def copy_checkpoint(source: Path, target: Path) -> None:
    """Replaces `target` by a copy of `source`, which costs no disk where files can have two names."""
    with replace_folder(target) as new:
        shutil.copytree(source, new, copy_function=link_or_copy, dirs_exist_ok=True)


def link_or_copy(source: str, target: str) -> None:
    """A second name for a file, which costs no disk (checkpoints are replaced, never changed), or else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
