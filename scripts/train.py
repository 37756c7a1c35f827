"""Trains a MaskFormer, evaluates it at intervals and draws what it has learnt.

Launch modes: `python scripts/train.py`, or `accelerate launch scripts/train.py` on any number of CPUs or GPUs.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from transformers.utils.logging import disable_progress_bar

from maskformer.data.example import BadSample, LostShard
from maskformer.data.files import DiskFull, replace_file
from maskformer.data.label_set import check_same_labels
from maskformer.data.loading import TrainingExamples, training_batches
from maskformer.data.sources import load_source
from maskformer.evaluation.scores import in_one_line
from maskformer.recipes import load_recipe
from maskformer.recipes.command_line import parse_overrides, recipe_parser
from maskformer.recipes.image_size import SIZES, fit_image_size
from maskformer.training.batch_pictures import draw_batches
from maskformer.training.checkpoint import discard, load_state, recover
from maskformer.training.initial_model import initial_model, resumed_model
from maskformer.training.interruption import letting_go
from maskformer.training.loop import images_a_batch, prepare_model, train
from maskformer.training.plan import try_plan
from maskformer.training.recorder import CHECKPOINTS, Recorder, go_back, products
from maskformer.training.step import NotFinite

EXAMPLE = "accelerate launch scripts/train.py --recipe shapes/demo --output_dir outputs/demo --max_minutes 2"


def parse_arguments():
    """The command line, and the recipe it describes."""
    parser = recipe_parser(__doc__, EXAMPLE)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of everything the run writes")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        help="go on from the last checkpoint of --output_dir (begin where there is none yet), or from the named one;"
        " with the recipe that is saved there, not that of --recipe, and the settings of this command line",
    )
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace the run that is in --output_dir")
    parser.add_argument("--show_batch", action="store_true", help="only draw what the first batches hold: batch.png")
    parser.add_argument("--dry_run", action="store_true", help="only try two steps, and print the plan of the run")
    parser.add_argument("--on_bad_sample", choices=("raise", "skip"), default="raise", help="unusable examples")
    arguments, words = parser.parse_known_args()
    folder = arguments.output_dir
    if folder.exists() and not folder.is_dir():
        parser.error(f"--output_dir {folder} is a file; a folder is needed")
    try:
        arguments.checkpoint = checkpoint_to_resume(folder, arguments.resume) if arguments.resume else None
        recipe = resolved_recipe(arguments, words)
    except ValueError as error:
        parser.error(str(error))
    writes = not (arguments.show_batch or arguments.dry_run)
    if writes and not arguments.resume and products(folder) and not arguments.overwrite_output_dir:
        parser.error(f"{folder} holds another run: choose another folder, --resume it or --overwrite_output_dir")
    return parser, arguments, recipe


def checkpoint_to_resume(folder: Path, name: str) -> Path | None:
    """The checkpoint `name` of `folder`; None for `last` where there is none yet, as in a job that was just queued.

    Raises `ValueError` where there is no such checkpoint.
    """
    recover(folder / name)
    if (folder / name).is_dir():
        return folder / name
    there = sorted(path.name for path in folder.glob(CHECKPOINTS))
    if name != "last" or there:
        holds = f"; it holds {there}" * bool(there)
        raise ValueError(f"{folder} holds no checkpoint {name!r} to resume from{holds}")
    return None


def resolved_recipe(arguments, words: list[str]):
    """The recipe with the settings that the command line gives.

    A run that goes on starts from its own recipe, whatever --recipe names, or what was set when it began would be lost.
    """
    saved = arguments.output_dir / "recipe.yaml"
    start = arguments.recipe or (str(saved) if saved.is_file() else "shapes/demo")
    if arguments.checkpoint and saved.is_file():
        start = str(saved)
    given = parse_overrides(words)
    if SIZES & set(given):
        given = {"fit_image_size": False} | given  # what was given by hand stays
    return load_recipe(start).override(given)


def prepare_folder(arguments, recipe, state: dict | None) -> None:
    """Clears an earlier run's products, or what came after the checkpoint, and saves the resolved recipe."""
    folder = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    if state:
        go_back(folder, arguments.checkpoint, state["step"])
    else:
        for path in products(folder):
            if arguments.resume and "best" in path.name:
                continue  # the best model of this run, which was stopped before it had a checkpoint
            discard(path) if path.is_dir() else path.unlink()
    with replace_file(folder / "recipe.yaml") as temporary:  # half a recipe would be another one
        recipe.save(temporary)


def show_batch(arguments, recipe, examples, image_processor) -> None:
    """Draws the first batches of the training into `batch.png`; nothing else is written."""
    training = recipe.training
    collate = recipe.build_collator(image_processor)
    batches = training_batches(examples, collate, training.batch_size, 8 * training.batch_size, training.seed)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    draw_batches(batches, image_processor, examples.source.labels, arguments.output_dir / "batch.png")
    print(f"the first images of the training, and their masks: {arguments.output_dir / 'batch.png'}")


def make_accelerator(recipe, folder: Path) -> Accelerator:
    """The accelerator, with the recipe's trackers; TensorBoard is left out where it is not installed."""
    trackers = [name for name in recipe.training.report_to if name != "tensorboard" or is_tensorboard_available()]
    return Accelerator(log_with=trackers or None, project_dir=folder)


def start_trackers(accelerator, recipe) -> None:
    """Gives the trackers the recipe's settings, as plain values."""
    sections = recipe.sections()
    settings = {"recipe": recipe.name}
    for section in ("model", "data", "training", "evaluation"):
        settings |= {
            name: value for name, value in sections[section].items() if isinstance(value, bool | int | float | str)
        }
    accelerator.init_trackers("logs", config=settings)


def run(accelerator, recorder, recipe, model, optimizer, examples, state) -> None:
    """Trains, and says how it ended: with the whole run, a signal, a bad sample or numbers that are not finite."""
    folder = recorder.folder
    try:
        with letting_go():
            stopped_by = train(accelerator, recorder, recipe, model, optimizer, examples, state)
    except BadSample as error:
        # A loader's process puts its traceback before the message.
        kind = type(error)
        message = str(error).strip().splitlines()[-1].removeprefix(f"{kind.__module__}.{kind.__name__}: ")
        goes_on = "--resume, once it is back," if kind is LostShard else "--resume --on_bad_sample skip"
        text = f"error: {message}\n(what was learnt is in {folder / 'last'}; {goes_on} goes on)"
        sys.exit(text if accelerator.is_main_process else 1)  # all processes stop for the same one
    except NotFinite as error:
        sys.exit(
            f"error: {error}\n(the batch is in {recorder.not_finite} and {recorder.not_finite.with_suffix('.png')}; a"
            " lower learning rate or a smaller clip_norm may help; --resume goes on from the last checkpoint)"
        )
    except DiskFull as error:
        sys.exit(f"error: {error}\n(--resume goes on from the last checkpoint, if there is one)")
    except ValueError as error:
        sys.exit(f"error: {error}")
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        workers = recipe.training.dataloader_workers
        sys.exit(
            f"error: a loader's process has died, perhaps killed for lack of memory: {str(error).strip()}\n(--resume"
            f" goes on from the last checkpoint; fewer --dataloader_workers than {workers} may help)"
        )
    accelerator.end_training()
    if stopped_by:
        if accelerator.is_main_process:
            name = signal.Signals(stopped_by).name
            print(f"stopped by {name}; what was learnt is in {folder / 'last'}, and --resume goes on", file=sys.stderr)
        sys.exit(128 + stopped_by)  # as shells report the signal
    if accelerator.is_main_process:
        print(f"model {folder / 'best'}, all about it {folder / 'report.html'}")
        print(in_one_line(recorder.best))


def main() -> None:
    parser, arguments, recipe = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    accelerator = make_accelerator(recipe, arguments.output_dir)
    torch.manual_seed(recipe.training.seed)
    folder = arguments.output_dir
    skip_bad = arguments.on_bad_sample == "skip"
    try:
        images_a_batch(recipe.training, accelerator.num_processes)
        source, validation = (load_source(recipe.data, split) for split in ("train", "validation"))
        check_same_labels(source.labels, validation.labels, "the training data", "the validation data")
        recipe, size_of_images = fit_image_size(recipe, source)
        if size_of_images:
            accelerator.print(size_of_images)
        examples = TrainingExamples(source, recipe.build_augmentation(), recipe.training.seed, arguments.on_bad_sample)
        state = load_state(arguments.checkpoint) if arguments.checkpoint else None
        if state:
            model, image_processor = resumed_model(arguments.checkpoint, recipe, source.labels)
        else:
            model, image_processor = initial_model(recipe, source.labels)
        if arguments.show_batch:
            return show_batch(arguments, recipe, examples, image_processor)
        if arguments.dry_run:
            plan = try_plan(accelerator, recipe, model, image_processor, examples, validation)
            return accelerator.print(plan)
        model, optimizer = prepare_model(accelerator, model, recipe.training, state)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if accelerator.is_main_process:
        try:
            prepare_folder(arguments, recipe, state)
        except DiskFull as error:
            parser.error(str(error))
        if state:
            print(f"going on after step {state['step']}, with the settings of {folder / 'recipe.yaml'}")
        print(f"{len(source)} training and {len(validation)} validation images; everything goes to {folder}")
    accelerator.wait_for_everyone()
    start_trackers(accelerator, recipe)
    recorder = Recorder(accelerator, recipe, image_processor, validation, folder, skip_bad)
    run(accelerator, recorder, recipe, model, optimizer, examples, state)


if __name__ == "__main__":
    main()
