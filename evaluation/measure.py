"""All examples of a dataset, answered and counted."""

from __future__ import annotations

import time

from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from maskformer.data.example import Source
from maskformer.evaluation.answers import answers, kinds_of_answers, readable_examples
from maskformer.evaluation.predictions import PredictionFolder
from maskformer.evaluation.progress import Progress
from maskformer.evaluation.scores import Scores
from maskformer.evaluation.together import together
from maskformer.recipes.arguments import EvaluationArguments


def measure(
    model,
    image_processor,
    source: Source,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    skip_bad: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
    predictions: PredictionFolder | None = None,
) -> Scores:
    """The scores of `model` on `source`, or on its first `limit` examples, equal on every process.

    Every process answers its share of the examples; counts, not averages, are summed, so nothing counts twice. With
    `progress` an evaluation goes on where an earlier one stopped; with `predictions` answers are written too.
    Raises `ValueError` if no example could be used, `BadSample` for an unusable one unless `skip_bad`; every process
    raises what one of them met.
    """
    count = min(len(source), limit or len(source))
    kinds = kinds_of_answers(arguments, image_processor, source.labels)
    scores = Scores(source.labels, kinds)
    done = progress.restore(accelerator, scores, predictions) if progress else set()
    left = [index for index in range(count) if index not in done]
    indices = left[accelerator.process_index :: accelerator.num_processes]
    bar = tqdm(
        total=len(indices), desc="evaluating", unit="image", leave=False, disable=not accelerator.is_main_process
    )
    shown = time.monotonic()
    examples = readable_examples(source, indices, skip_bad)
    with together(accelerator):
        for example, answer in answers(model, image_processor, examples, arguments, kinds):
            image = scores.add(example, answer)
            if predictions:
                predictions.write(example, answer)
            if progress:
                progress.add(image)
            if not bar.disable and time.monotonic() - shown > 1:
                bar.set_postfix(scores.running(), refresh=False)
                shown = time.monotonic()
            bar.update()
        if progress:
            progress.save()
    bar.close()
    if accelerator.num_processes > 1:
        scores = of_all_processes(scores)
    if not scores.images:
        raise ValueError("there is no example to evaluate: the dataset is empty, or none of it can be used")
    return scores


def of_all_processes(scores: Scores) -> Scores:
    """The sum of what all processes counted."""
    total = Scores(scores.labels, scores.kinds)
    for state in gather_object([scores.state()]):
        total.add_state(state)
    return total
