"""From a photograph to its answer: this package and transformers' MaskFormer, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from maskformer.benchmarks.alternating import Timing, alternate
from maskformer.benchmarks.peers import Pair, our_pair, transformers_pair
from maskformer.recipes import Recipe

OURS, THEIRS = "this package", "transformers"
PARTS = ("whole", "forward")


@dataclass(frozen=True)
class InferenceCost:
    """What one image takes, by way.

    `agreement` is the share of pixels that get the label that this package gives in float32, semantic answers only;
    `multiply_adds` those of the products and convolutions of one forward pass.
    """

    timings: dict[str, Timing]
    forward: dict[str, Timing]
    agreement: dict[str, float]
    multiply_adds: int


def photograph(height: int, width: int) -> Image.Image:
    """Smooth random areas with some noise: pixels for the whole way from image to answer."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.BICUBIC)).astype(int)
    return Image.fromarray((pixels + random.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8))


@torch.no_grad()
def answer(pair: Pair, image: Image.Image, task: str, device: str, labels_of_stuff, dtype=torch.float32):
    """What a user writes: image processor, model, post-processing."""
    inputs = pair.processor(image, return_tensors="pt").to(device)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        outputs = pair.model(**inputs)
    size = [(image.height, image.width)]
    if task == "semantic":
        return pair.processor.post_process_semantic_segmentation(outputs, target_sizes=size)[0]
    return pair.processor.post_process_panoptic_segmentation(
        outputs, threshold=0.8, overlap_mask_area_threshold=0.8, label_ids_to_fuse=labels_of_stuff, target_sizes=size
    )[0]["segmentation"]


def ways(ours: Pair, theirs: Pair | None, fastest: bool) -> dict[str, tuple[Pair, torch.dtype]]:
    """The ways that are compared: model, image processor and precision, by name."""
    found = {OURS: (ours, torch.float32)}
    if theirs is not None:
        found[THEIRS] = (theirs, torch.float32)
    if fastest:
        found["this package, bf16"] = (ours, torch.bfloat16)
        compiled = Pair(torch.compile(ours.model), ours.processor)
        found["this package, bf16, compiled"] = (compiled, torch.bfloat16)
    return found


def measure_inference(
    recipe: Recipe,
    size: tuple[int, int],
    rounds: int,
    device: str = "cpu",
    fastest: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> InferenceCost:
    """Times a recipe's model on one photograph of `size` (height, width), and its forward pass alone."""
    ours = our_pair(recipe, device)
    try:
        theirs = transformers_pair(ours, device)
    except ValueError:
        theirs = None  # transformers has no such model
    task = "semantic" if recipe.evaluation.task == "semantic" else "panoptic"
    stuff = set(ours.processor.label_ids_to_fuse or ())
    image = photograph(*size)
    compared = ways(ours, theirs, fastest)
    whole = {name: partial(answer, pair, image, task, device, stuff, dtype) for name, (pair, dtype) in compared.items()}
    agreement = {}
    if task == "semantic":
        expected = whole[OURS]()
        agreement = {name: float((run() == expected).float().mean()) for name, run in whole.items()}
    forward = {name: forward_pass(*way, image, device) for name, way in compared.items()}
    timings = alternate(
        {(part, name): run for part, runs in zip(PARTS, (whole, forward), strict=True) for name, run in runs.items()},
        rounds,
        device,
        progress,
    )
    split = [{name: timing for (part, name), timing in timings.items() if part == wanted} for wanted in PARTS]
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:  # as the layers are written, for all ways
        ours.model(**ours.processor(image, return_tensors="pt").to(device))
    return InferenceCost(*split, agreement, counter.get_total_flops() // 2)  # a multiply-add counts as two there


def forward_pass(pair: Pair, dtype: torch.dtype, image: Image.Image, device: str) -> Callable[[], object]:
    """The forward pass of the image alone."""
    inputs = pair.processor(image, return_tensors="pt").to(device)

    @torch.no_grad()
    def run():
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return pair.model(**inputs)

    return run
