"""Small trees in the layout of Cityscapes' archives, and folders of instance maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (16, 24)
NAMES = {
    "train": ("aachen_000000_000019", "aachen_000001_000019", "zurich_000121_000019"),
    "val": ("munster_000000_000019",),
}
# Ids of the files, by hand: 24 to 33 are things but for 29 and 30, which are not evaluated.
STUFF, THINGS, VOID = (7, 8, 11, 21, 23), (24, 26, 33), (0, 1, 3, 4, 9, 29, 255)


def write_cityscapes(folder: Path) -> Path:
    """`leftImg8bit/` and `gtFine/` of NAMES: photographs, `labelIds` of 8 bits, `instanceIds` of 16."""
    random = np.random.default_rng(0)
    for split, names in NAMES.items():
        for name in names:
            city = name.split("_")[0]
            images, maps = folder / "leftImg8bit" / split / city, folder / "gtFine" / split / city
            images.mkdir(parents=True, exist_ok=True)
            maps.mkdir(parents=True, exist_ok=True)
            photograph = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(photograph).save(images / f"{name}_leftImg8bit.png")
            ids = random.choice([*STUFF, *THINGS, *VOID], (4, 6)).repeat(4, 0).repeat(4, 1)  # (16, 24)
            numbers = random.integers(0, 3, (8, 8)).repeat(2, 0).repeat(3, 1)  # (16, 24)
            # A third of the things is in groups, which are not told apart, as caravans (29) are.
            alone = np.isin(ids, (*THINGS, 29)) & (random.random(SIZE) > 0.3)
            instances = np.where(alone, ids * 1000 + numbers, np.where(ids == 255, 0, ids))
            Image.fromarray(ids.astype(np.uint8)).save(maps / f"{name}_gtFine_labelIds.png")
            Image.fromarray(instances.astype(np.uint16)).save(maps / f"{name}_gtFine_instanceIds.png")
            Image.fromarray(photograph).save(maps / f"{name}_gtFine_color.png")
            (maps / f"{name}_gtFine_polygons.json").write_text("{}")
    return folder
