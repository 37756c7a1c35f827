"""The training loop: steps of one or several micro-batches, recorded, saved and evaluated at intervals."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object, send_to_device
from tqdm.auto import tqdm

from maskformer.data.example import BadSample
from maskformer.data.loading import TrainingExamples, training_batches
from maskformer.data.streaming import streaming_batches
from maskformer.evaluation.scores import in_one_line
from maskformer.recipes import Recipe
from maskformer.recipes.arguments import TrainingArguments
from maskformer.training.checkpoint import load_metrics
from maskformer.training.interruption import Interruption, largest
from maskformer.training.meter import Meter
from maskformer.training.optimization import build_optimizer, learning_rate_factor, set_learning_rate
from maskformer.training.recorder import Recorder
from maskformer.training.sharding import restore_optimizer
from maskformer.training.step import NotFinite, train_step


class Clock:
    """How much of a run is done: the larger share of its steps and of its minutes, the same on every process."""

    def __init__(self, training: TrainingArguments, seconds: float):
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


def images_a_batch(training: TrainingArguments, num_processes: int) -> int:
    """Images of a micro-batch of one process; raises `ValueError` where a step's images do not divide so."""
    parts = num_processes * training.accumulation_steps
    if training.batch_size % parts:
        raise ValueError(
            f"batch_size ({training.batch_size}) must be a multiple of {parts}: {num_processes} processes times"
            f" accumulation_steps of {training.accumulation_steps}"
        )
    return training.batch_size // parts


def make_loader(
    accelerator: Accelerator, recipe: Recipe, examples: TrainingExamples, image_processor, start: int = 0
) -> Iterable[dict]:
    """Micro-batches of this process from step `start` on, on its device."""
    training, processes = recipe.training, accelerator.num_processes
    settings = {
        "collate": recipe.build_collator(image_processor),
        "batch_size": images_a_batch(training, processes),
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
        on_bad_sample="skip" if examples.skip else "raise",
    )
    return (send_to_device(batch, accelerator.device) for batch in batches)


def prepare_model(accelerator: Accelerator, model, training: TrainingArguments, state: dict | None):
    """The model as it trains, on its device, and its optimiser, filled from a checkpoint's `state`.

    Raises `ValueError` where other parameters learn than those that the state is of.
    """
    if training.freeze_backbone:
        for name, parameter in model.named_parameters():
            if "backbone" in name.split("."):
                parameter.requires_grad = False
    if training.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if state:
        check_same_parameters(model, state["optimizer"])
    optimizer = build_optimizer(model, training)
    if accelerator.distributed_type != DistributedType.FSDP:  # which shards contiguous weights only
        model = model.to(memory_format=torch.channels_last)  # the faster layout of convolutions
    if training.compile:
        model.model.compile()  # the network; matching runs outside of it
    model, optimizer = accelerator.prepare(model, optimizer)
    if state:
        restore_optimizer(accelerator.unwrap_model(model), optimizer, state["optimizer"])
        if accelerator.scaler is not None and "scaler" in state:
            accelerator.scaler.load_state_dict(state["scaler"])
    model.train()
    return model, optimizer


def check_same_parameters(model, optimizer_state: dict) -> None:
    """Raises `ValueError` where `optimizer_state` is of other parameters than those of `model` that learn."""
    learn = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learnt = {name for group in optimizer_state["param_groups"] for name in group["params"]}
    if learn != learnt:
        raise ValueError(
            f"{len(learn)} parameters are to learn, but {len(learnt)} have learnt in the checkpoint: --resume cannot"
            " change freeze_backbone (--initial_model starts another run from the model)"
        )


def in_steps(loader: Iterable[dict], accumulation: int) -> Iterator[list[dict]]:
    """The micro-batches of each step."""
    batches = iter(loader)
    while step := list(itertools.islice(batches, accumulation)):
        yield step


def next_step(
    accelerator: Accelerator, steps: Iterator[list[dict]], meter: Meter, interruption: Interruption
) -> tuple[list[dict] | None, int]:
    """The micro-batches of the next step, None at their end, and the signal that any process was sent, or 0.

    Raises `BadSample` on all processes where one of them met one, so that they can save and stop together.
    """
    batches, bad = None, None
    if not interruption.noted:
        try:
            with meter.waiting():
                batches = next(steps, None)
        except BadSample as error:
            bad = error
        except RuntimeError:
            if not interruption.noted:  # which may have ended the loader's processes too
                raise
    stopped_by, spoilt = largest(accelerator, interruption.noted, int(bad is not None))
    if spoilt:
        errors = gather_object([bad])
        raise next(error for error in errors if error is not None)
    return batches, stopped_by


def take_step(
    accelerator: Accelerator, recorder: Recorder, model, optimizer, batches: list[dict], step: int
) -> dict[str, torch.Tensor]:
    """Trains on the micro-batches of step `step`, with its random numbers; returns losses, as `train_step` does."""
    training = recorder.recipe.training
    place = (training.seed * 2**32 + step) * accelerator.num_processes + accelerator.process_index
    torch.manual_seed(place % 2**63)
    try:
        return train_step(accelerator, model, optimizer, batches, training.clip_norm)
    except NotFinite as error:
        recorder.save_not_finite(error, step)
        raise


def total_steps(training: TrainingArguments, done: int, progress: float) -> int:
    """How many steps the run is going to have, at the speed of the `done` ones, after which `progress` is measured."""
    return max(done, min(training.max_steps, round((done - 1) / progress))) if progress else training.max_steps


def train(
    accelerator: Accelerator,
    recorder: Recorder,
    recipe: Recipe,
    model,
    optimizer: torch.optim.Optimizer,
    examples: TrainingExamples,
    state: dict | None,
) -> int:
    """Trains until the end of the run, or a signal that asks to stop, whose number it returns; otherwise 0.

    What is random in a step depends on the seed, the step and the process alone, so resuming is exact.
    """
    training = recipe.training
    done = state["step"] if state else 0
    recorder.best = load_metrics(recorder.folder / "best")
    loader = make_loader(accelerator, recipe, examples, recorder.image_processor, done)
    steps = in_steps(loader, training.accumulation_steps)
    del loader  # its processes end when the steps are closed, as nothing else holds it
    clock = Clock(training, state["seconds"] if state else 0.0)
    meter = Meter(accelerator, training.batch_size)
    evaluated = None  # the step of the last evaluation
    bar = tqdm(total=training.max_steps, initial=done, desc="training", disable=not accelerator.is_main_process)
    with bar, Interruption() as interruption, contextlib.closing(steps):
        try:
            while done < training.max_steps:
                batches, stopped_by = next_step(accelerator, steps, meter, interruption)
                progress = clock.progress(done)
                if progress >= 1 or stopped_by or batches is None:
                    break
                rate = set_learning_rate(optimizer, learning_rate_factor(done, progress, training))
                meter.add(take_step(accelerator, recorder, model, optimizer, batches, done))
                done += 1
                bar.total = total_steps(training, done, progress)
                bar.update()
                if meter.steps >= training.log_steps:
                    row = meter.read()
                    recorder.row(step=done, **row, learning_rate=rate, seconds=round(clock.seconds, 2))
                    bar.set_postfix_str(meter.in_short(row, rate, progress))
                if done % training.save_steps == 0:
                    with meter.paused():
                        recorder.save(model, optimizer, done, clock.seconds)
                if done % training.eval_steps == 0:
                    if any(largest(accelerator, interruption.noted)):
                        break  # an evaluation may take longer than a scheduler waits
                    with meter.paused():
                        metrics, evaluated = recorder.evaluate(model, done), done
                    if accelerator.is_main_process:
                        tqdm.write(f"step {done}: {in_one_line(metrics)}")
        except BadSample:  # of the training or the validation data, on all processes
            recorder.save(model, optimizer, done, clock.seconds)  # nothing that was learnt is lost
            raise
        recorder.save(model, optimizer, done, clock.seconds)
        (stopped_by,) = largest(accelerator, interruption.noted)
    if not stopped_by and evaluated != done:
        recorder.evaluate(model, done)
    return stopped_by
