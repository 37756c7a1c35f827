"""What a run is going to do, tried on two steps."""

from __future__ import annotations

import time

from accelerate import Accelerator

from maskformer.data.example import Source
from maskformer.data.loading import TrainingExamples
from maskformer.recipes import Recipe
from maskformer.training.loop import in_steps, make_loader, prepare_model
from maskformer.training.meter import peak_memory
from maskformer.training.optimization import learning_rate_factor, set_learning_rate
from maskformer.training.step import train_step

STEPS = 2


def try_plan(
    accelerator: Accelerator, recipe: Recipe, model, image_processor, examples: TrainingExamples, validation: Source
) -> str:
    """Takes two steps, writes nothing, and describes the run with the memory and the time that they took.

    Raises what training raises: `BadSample`, and `NotFinite`.
    """
    training = recipe.training
    steps = in_steps(make_loader(accelerator, recipe, examples, image_processor), training.accumulation_steps)
    wrapped, optimizer = prepare_model(accelerator, model, training, None)
    losses, seconds = [], []
    for step, batches in zip(range(STEPS), steps, strict=False):
        set_learning_rate(optimizer, learning_rate_factor(step, step / training.max_steps, training))
        began = time.monotonic()
        terms = train_step(accelerator, wrapped, optimizer, batches, training.clip_norm)
        losses.append(float(terms["loss"]))
        seconds.append(time.monotonic() - began)
    canvas = "x".join(map(str, batches[0]["pixel_values"].shape[-2:]))
    memory = peak_memory(accelerator.device) / 1e9
    hours = seconds[-1] * training.max_steps / 3600
    images = training.max_steps * training.batch_size
    total = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        f"recipe          {recipe.name}",
        f"model           {type(model).__name__}, {model.config.backbone}, {model.config.num_labels} labels",
        f"weights         {describe_weights(recipe)}",
        f"parameters      {total / 1e6:.1f} million, {learning / 1e6:.1f} million of which learn",
        f"images          {len(examples)} for training, {len(validation)} for validation",
        f"batch           {describe_batch(recipe, accelerator)}; canvas {canvas} in the last one",
        f"run             {training.max_steps:,} steps, {images:,} images, {images / len(examples):.1f} epochs",
        f"learning rate   {describe_rate(recipe)}",
        f"device          {accelerator.device}, precision {accelerator.mixed_precision}",
        f"two steps       losses {', '.join(f'{loss:.3f}' for loss in losses)}; the second took {seconds[-1]:.2f} s",
        f"memory          {memory:.2f} GB at the most",
        f"all steps       {hours:.1f} hours at that speed, without waiting for data and evaluations",
    ]
    if training.max_minutes is not None:
        lines.append(f"but at most     {training.max_minutes} minutes")
    return "\n".join(lines)


def describe_weights(recipe: Recipe) -> str:
    """Where the first weights come from."""
    training = recipe.training
    if training.initial_model:
        return f"the model {training.initial_model}"
    return f"backbone {training.backbone_weights or 'random'}, the others random"


def describe_batch(recipe: Recipe, accelerator: Accelerator) -> str:
    """How the images of a step are divided."""
    training = recipe.training
    processes, micro_batches = accelerator.num_processes, training.accumulation_steps
    text = f"{training.batch_size} images a step"
    if processes * micro_batches > 1:
        images = training.batch_size // (processes * micro_batches)
        text += f" (processes {processes}, micro-batches of each {micro_batches}, images in each {images})"
    return text


def describe_rate(recipe: Recipe) -> str:
    """The schedule in words."""
    training = recipe.training
    decay = f"poly {training.poly_power}"
    if training.decay_steps:
        decay = f"times {training.decay_factor} at {', '.join(f'{step:,}' for step in training.decay_steps)}"
    warmup = f"{training.warmup_steps} steps of warm-up, then " if training.warmup_steps else ""
    return f"{training.learning_rate:g}, backbone times {training.backbone_multiplier:g}; {warmup}{decay}"
