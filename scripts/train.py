"""Trains a MaskFormer, evaluates it at intervals and draws what it has learnt.

Launch modes: `python scripts/train.py`, or `accelerate launch scripts/train.py` on any number of CPUs or GPUs.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from maskformer import MaskFormerForUniversalSegmentation, MaskFormerUniversalConfig
from maskformer.convert import load_backbone_weights
from maskformer.data.example import BadSample
from maskformer.data.label_set import check_same_labels
from maskformer.data.loading import TrainingExamples, training_batches
from maskformer.data.sources import load_source
from maskformer.data.streaming import streaming_batches
from maskformer.recipes.command_line import parse_with_recipe, recipe_parser
from maskformer.training.batch_pictures import draw_batches
from maskformer.training.checkpoint import load_metrics, load_state, recover, save_model
from maskformer.training.curves import draw_curves
from maskformer.training.evaluation import evaluate, in_one_line
from maskformer.training.history import append_row
from maskformer.training.optimization import build_optimizer, learning_rate_factor, restore_optimizer, set_learning_rate
from maskformer.training.pictures import draw_validation

EXAMPLE = "accelerate launch scripts/train.py --recipe shapes/demo --output_dir outputs/demo --max_minutes 2"
PRODUCTS = ("last", "best", "recipe.yaml", "history.jsonl", "curves.png", "validation.png", "batch.png")


def parse_arguments():
    """The command line, and the recipe it describes."""
    parser = recipe_parser(__doc__, EXAMPLE)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of everything the run writes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --output_dir")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace the run that is in --output_dir")
    parser.add_argument("--show_batch", action="store_true", help="only draw what the first batches hold: batch.png")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="raise", help="unusable examples")
    folder = parser.parse_known_args()[0].output_dir
    if folder.exists() and not folder.is_dir():
        parser.error(f"--output_dir {folder} is a file; a folder is needed")
    saved = folder / "recipe.yaml"
    arguments, recipe = parse_with_recipe(parser, default=str(saved) if saved.is_file() else "shapes/demo")
    if arguments.show_batch:
        return parser, arguments, recipe
    if arguments.resume:
        recover(folder / "last")
        if not (folder / "last").is_dir():
            parser.error(f"{folder} holds no checkpoint to resume from")
    elif any((folder / product).exists() for product in PRODUCTS) and not arguments.overwrite_output_dir:
        parser.error(f"{folder} holds another run: choose another folder, --resume it or --overwrite_output_dir")
    return parser, arguments, recipe


def check_support(recipe, num_processes: int) -> None:
    """Raises `ValueError` for what a recipe can say but this script cannot do."""
    if recipe.model_type != MaskFormerUniversalConfig.model_type:
        raise ValueError(f"{recipe.name}: training a {recipe.model_type} model is not implemented yet")
    if recipe.training.batch_size % num_processes:
        raise ValueError(
            f"batch_size ({recipe.training.batch_size}) must be a multiple of the {num_processes} processes"
        )


def prepare_folder(folder: Path, recipe, resume: bool) -> None:
    """Clears an earlier run's products, unless it goes on, and saves the resolved recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for product in PRODUCTS:
            path = folder / product
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    recipe.save(folder / "recipe.yaml")


class Clock:
    """How much of a run is done: the larger share of its steps and of its minutes, the same on every process."""

    def __init__(self, training, seconds: float):
        self.training, self.began = training, time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.monotonic() - self.began

    def progress(self, step: int) -> float:
        """0 at the start, 1 or more at the end."""
        done = step / self.training.max_steps
        if self.training.max_minutes is None:
            return done
        shared = [self.seconds / (60 * self.training.max_minutes)]
        return max(done, broadcast_object_list(shared)[0])


def train_step(accelerator, model, optimizer, batch, clip_norm: float) -> dict[str, torch.Tensor]:
    """One step of the optimiser; returns the loss and its terms, not yet read from the device.

    Raises `FloatingPointError` where the gradient is not finite, before it does harm.
    """
    output = model(**batch)
    accelerator.backward(output.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    if accelerator.scaler is None and not torch.isfinite(norm):  # a gradient scaler leaves such steps out by itself
        raise FloatingPointError(f"the gradient is not finite (loss {float(output.loss)})")
    optimizer.step()
    optimizer.zero_grad()
    terms = {name: value.detach() for name, value in output.loss_dict.items()}
    return {"loss": output.loss.detach(), **terms}


class Recorder:
    """Checkpoints, history, pictures and the metrics of one run, written by the main process alone."""

    def __init__(self, accelerator, arguments, recipe, image_processor, validation):
        self.accelerator, self.recipe = accelerator, recipe
        self.folder, self.skip_bad = arguments.output_dir, arguments.on_bad_sample == "skip"
        self.image_processor, self.validation = image_processor, validation
        self.best: dict | None = None  # metrics of the checkpoint `best`

    def row(self, **values) -> None:
        """Adds a row to the history."""
        if self.accelerator.is_main_process:
            append_row(self.folder / "history.jsonl", values)

    def save(self, model, optimizer, step: int, seconds: float) -> None:
        """Writes the checkpoint `last`."""
        if self.accelerator.is_main_process:
            state = {"optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
            save_model(self.folder / "last", self.accelerator.unwrap_model(model), self.image_processor, state)

    def evaluate(self, model, step: int) -> dict:
        """Evaluates on the validation split; the best model so far becomes the checkpoint `best`."""
        model, arguments = self.accelerator.unwrap_model(model), self.recipe.evaluation
        metrics = evaluate(model, self.image_processor, self.validation, arguments, self.accelerator, self.skip_bad)
        metrics.pop("per_label")
        self.row(step=step, **metrics)
        name = arguments.best_metric
        # Written so that a metric that is NaN, as PQ of things where there are none, never keeps an older model.
        if self.best is None or not metrics[name] < self.best[name]:
            self.best = metrics
            if self.accelerator.is_main_process:
                save_model(self.folder / "best", model, self.image_processor, metrics=metrics)
                picture = self.folder / "validation.png"
                draw_validation(model, self.image_processor, self.validation, arguments, picture)
        if self.accelerator.is_main_process:
            draw_curves(self.folder / "history.jsonl", self.folder / "curves.png")
        self.accelerator.wait_for_everyone()
        model.train()
        return metrics


def show_batch(arguments, recipe, examples, image_processor) -> None:
    """Draws the first batches of the training into `batch.png`; nothing else is written."""
    training = recipe.training
    collate = recipe.build_collator(image_processor)
    batches = training_batches(examples, collate, training.batch_size, 8 * training.batch_size, training.seed)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    draw_batches(batches, image_processor, examples.source.labels, arguments.output_dir / "batch.png")
    print(f"the first images of the training, and their masks: {arguments.output_dir / 'batch.png'}")


def make_loader(accelerator, recorder, recipe, examples, start: int):
    """Batches of this process from step `start` on, on its device."""
    training, processes = recipe.training, accelerator.num_processes
    settings = {
        "collate": recipe.build_collator(recorder.image_processor),
        "batch_size": training.batch_size // processes,
        "end": training.max_steps * training.batch_size,
        "start": start * training.batch_size,
        "seed": training.seed,
        "workers": training.dataloader_workers,
    }
    if not recipe.data.streaming:
        return accelerator.prepare(training_batches(examples, **settings))
    # Every process reads its own shards; `prepare` would divide the batches once more.
    batches = streaming_batches(
        examples.source,
        examples.augmentation,
        **settings,
        num_processes=processes,
        process_index=accelerator.process_index,
        on_bad_sample="skip" if recorder.skip_bad else "raise",
    )
    return (send_to_device(batch, accelerator.device) for batch in batches)


def train(accelerator, recorder, recipe, model, examples, state: dict | None) -> None:
    """The loop. What is random in a step depends on the seed, the step and the process alone, so resuming is exact."""
    training = recipe.training
    optimizer = build_optimizer(model, training)
    start = state["step"] if state else 0
    if state:
        restore_optimizer(optimizer, state["optimizer"])
        recorder.best = load_metrics(recorder.folder / "best")
    loader = make_loader(accelerator, recorder, recipe, examples, start)
    model = model.to(memory_format=torch.channels_last)  # the faster layout of convolutions
    model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    clock = Clock(training, state["seconds"] if state else 0.0)
    bar = tqdm(total=training.max_steps, initial=start, desc="training", disable=not accelerator.is_main_process)
    sums, logged, done = {}, start, start
    batches = enumerate(loader, start)
    while done < training.max_steps:
        try:
            step, batch = next(batches, (done, None))
        except BadSample:
            recorder.save(model, optimizer, done, clock.seconds)  # nothing that was learnt is lost
            raise
        progress = clock.progress(step)
        if progress >= 1 or batch is None:
            break
        place = (training.seed * 2**32 + step) * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(place % 2**63)
        rate = set_learning_rate(optimizer, learning_rate_factor(step, progress, training))
        losses = train_step(accelerator, model, optimizer, batch, training.clip_norm)
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
        done = step + 1
        bar.total = max(done, min(training.max_steps, round(step / progress))) if progress else training.max_steps
        bar.update()
        if done - logged >= training.log_steps:
            means = {name: float(value) / (done - logged) for name, value in sums.items()}
            recorder.row(step=done, **means, learning_rate=rate, seconds=round(clock.seconds, 2))
            bar.set_postfix(loss=f"{means['loss']:.3f}", lr=f"{rate:.1e}", done=f"{progress:.0%}")
            sums, logged = {}, done
        if done % training.save_steps == 0:
            recorder.save(model, optimizer, done, clock.seconds)
        if done % training.eval_steps == 0:
            metrics = recorder.evaluate(model, done)
            if accelerator.is_main_process:
                tqdm.write(f"step {done}: {in_one_line(metrics)}")
    bar.close()
    recorder.save(model, optimizer, done, clock.seconds)
    recorder.evaluate(model, done)


def main() -> None:
    parser, arguments, recipe = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    accelerator = Accelerator()
    torch.manual_seed(recipe.training.seed)
    folder = arguments.output_dir
    try:
        check_support(recipe, accelerator.num_processes)
        source, validation = (load_source(recipe.data, split) for split in ("train", "validation"))
        check_same_labels(source.labels, validation.labels, "the training data", "the validation data")
        examples = TrainingExamples(source, recipe.build_augmentation(), recipe.training.seed, arguments.on_bad_sample)
        image_processor = recipe.build_image_processor(source.labels)
        if arguments.show_batch:
            return show_batch(arguments, recipe, examples, image_processor)
        state = load_state(folder / "last") if arguments.resume else None
        if state:
            model = MaskFormerForUniversalSegmentation.from_pretrained(folder / "last")
            known = [model.config.id2label[index] for index in range(model.config.num_labels)]
            check_same_labels(known, source.labels, "the checkpoint", "the training data")
        else:
            model = MaskFormerForUniversalSegmentation(recipe.build_config(source.labels))
            if recipe.training.backbone_weights:
                load_backbone_weights(model, recipe.training.backbone_weights)
    except ValueError as error:
        parser.error(str(error))
    if accelerator.is_main_process:
        prepare_folder(folder, recipe, arguments.resume)
        print(f"{len(source)} training and {len(validation)} validation images; everything goes to {folder}")
    accelerator.wait_for_everyone()
    recorder = Recorder(accelerator, arguments, recipe, image_processor, validation)
    try:
        train(accelerator, recorder, recipe, model, examples, state)
    except BadSample as error:
        # A loader's process puts its traceback before the message.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{BadSample.__module__}.BadSample: ")
        sys.exit(f"error: {message}\n(what was learnt is in {folder / 'last'}; --resume --on_bad_sample skip goes on)")
    except (FloatingPointError, ValueError) as error:
        sys.exit(f"error: {error}")
    if accelerator.is_main_process:
        print(f"model {folder / 'best'}, pictures {folder / 'validation.png'} and {folder / 'curves.png'}")
        print(in_one_line(recorder.best))
    accelerator.end_training()


if __name__ == "__main__":
    main()
