"""An evaluation that was interrupted goes on: counts are saved under a key of all that decides the answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from maskformer.data.files import replace_file, sha256
from maskformer.evaluation.scores import Scores

MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors")


def evaluation_key(model_folder: Path, settings: dict) -> str:
    """16 hexadecimal digits that stand for the files of a model and for plain `settings`."""
    files = sorted(path for pattern in MODEL_FILES for path in model_folder.glob(pattern))
    content = {"files": {path.name: sha256(path) for path in files}, "settings": settings}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Progress:
    """What was counted so far, one file a process: `progress-KEY-RANK.pt` in `folder`, saved every `images` images."""

    def __init__(self, folder: Path, key: str, images: int = 100):
        self.folder, self.key, self.images = folder, key, images
        self.unsaved = self.restored = 0

    def path(self, rank: int) -> Path:
        """The file of the process `rank`."""
        return self.folder / f"progress-{self.key}-{rank}.pt"

    def restore(self, accelerator: Accelerator, scores: Scores) -> set[int]:
        """Gives the main process what was counted, by however many processes; returns the images that are done."""
        if accelerator.is_main_process:
            paths = sorted(self.folder.glob(f"progress-{self.key}-*.pt"), key=lambda path: path != self.path(0))
            for path in paths:
                state = torch.load(path, map_location="cpu", weights_only=True)
                # The main process's file comes first. It holds the others' images already if this was interrupted
                # after the next line but one.
                if not state["images"].keys() & scores.images.keys():
                    scores.add_state(state)
            if paths:
                self.save(accelerator, scores)
            for path in paths:
                if path != self.path(0):
                    path.unlink()
        done = [set(scores.images)]
        if accelerator.num_processes > 1:
            done = broadcast_object_list(done)
        self.restored = len(done[0])
        return done[0]

    def save_at_times(self, accelerator: Accelerator, scores: Scores) -> None:
        """Saves after every so many images."""
        self.unsaved += 1
        if self.unsaved >= self.images:
            self.save(accelerator, scores)

    def save(self, accelerator: Accelerator, scores: Scores) -> None:
        """Saves what this process counted, all or nothing."""
        with replace_file(self.path(accelerator.process_index)) as temporary:
            torch.save(scores.state(), temporary)
        self.unsaved = 0

    def clear(self) -> None:
        """Removes the files: the evaluation has ended."""
        for path in self.folder.glob(f"progress-{self.key}-*.pt"):
            path.unlink()
