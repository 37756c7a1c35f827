"""An evaluation that was interrupted goes on: counts are saved under a key of all that decides the answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from maskformer.data.files import replace_file, sha256
from maskformer.evaluation.predictions import PredictionFolder
from maskformer.evaluation.scores import Scores
from maskformer.evaluation.together import together

MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors")


def evaluation_key(model_folder: Path, settings: dict) -> str:
    """16 hexadecimal digits that stand for the files of a model and for plain `settings`."""
    files = sorted(path for pattern in MODEL_FILES for path in model_folder.glob(pattern))
    content = {"files": {path.name: sha256(path) for path in files}, "settings": settings}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Progress:
    """What was counted so far: `progress-KEY-IMAGE.pt` in `folder`, a file for every `images` images of a process.

    IMAGE is the first of them, so that names never meet, however many processes there are. A file is written once: the
    cost of an evaluation's saves grows with its images, not with their square.
    """

    def __init__(self, folder: Path, key: str, images: int = 100):
        self.folder, self.key, self.images = folder, key, images
        self.restored = 0

    def paths(self) -> list[Path]:
        """The files that are there."""
        return sorted(self.folder.glob(f"progress-{self.key}-*.pt"))

    def restore(
        self, accelerator: Accelerator, scores: Scores, predictions: PredictionFolder | None = None
    ) -> set[int]:
        """Gives the main process what was counted, by however many processes; returns the images that are done.

        Nothing is done where one of `predictions` is missing: they were taken to their place at the end.
        """
        self.unsaved = Scores(scores.labels, scores.kinds)
        with together(accelerator):
            if accelerator.is_main_process:
                found = Scores(scores.labels, scores.kinds)
                for path in self.paths():
                    found.add_state(torch.load(path, map_location="cpu", weights_only=True))
                if predictions and not all(predictions.holds(index, name) for index, (name, _) in found.images.items()):
                    self.clear()
                else:
                    scores.add_state(found.state())
        done = [set(scores.images)]
        if accelerator.num_processes > 1:
            done = broadcast_object_list(done)
        self.restored = len(done[0])
        return done[0]

    def add(self, image: dict) -> None:
        """Takes what `Scores.add` gave of an image, and saves after every so many."""
        self.unsaved.add_state(image)
        if len(self.unsaved.images) == self.images:
            self.save()

    def save(self) -> None:
        """Saves the images that are not saved yet, all or nothing."""
        if not self.unsaved.images:
            return
        with replace_file(self.folder / f"progress-{self.key}-{min(self.unsaved.images)}.pt") as temporary:
            torch.save(self.unsaved.state(), temporary)
        self.unsaved = Scores(self.unsaved.labels, self.unsaved.kinds)

    def clear(self) -> None:
        """Removes the files: the evaluation has ended."""
        for path in self.paths():
            path.unlink()
