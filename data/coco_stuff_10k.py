"""COCO-Stuff 10K v1.0, as its makers distribute it: photographs, MATLAB files of labels, and lists of names.

The maps that the official MaskFormer prepares from them (`annotations_detectron2/`) are read instead where they are.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskformer.data.arrow import map_rows
from maskformer.data.example import BadSample, Example, Source, size_mismatch
from maskformer.data.files import inside
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.official_layout import dataset_root, file_stems, require_folder
from maskformer.data.semantic_folder import FEATURES, label_segments, read_image, read_label_map, semantic_example

PARTS = {"train": "train", "validation": "test"}
LAYOUT = "COCO-Stuff 10K v1.0 is images/*.jpg, annotations/*.mat and imageLists/{train,test}.txt"
HINT = "v1.1 of the dataset counts otherwise: v1.0 is needed"
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such files begin, after 512 bytes that are MATLAB's


def load_coco_stuff_10k(folder: str | Path, split: str) -> Source:
    """The `train` or `validation` (officially: test) split of COCO-Stuff 10K; `folder` is it, or holds it.

    Raises `ValueError` where a folder or list is missing, a list names an image twice or a file elsewhere, and where
    h5py is, which MATLAB's files need.
    """
    root, part = dataset_root(dataset_root(folder, "coco"), "coco_stuff_10k"), PARTS[split]
    labels = load_label_set("coco-stuff-10k-171")
    maps, images = root / "annotations_detectron2" / part, root / "images_detectron2" / part
    prepared = maps.is_dir()
    if not prepared:
        maps = require_folder(root / "annotations", LAYOUT)
    if not prepared or not images.is_dir():
        images = require_folder(root / "images", LAYOUT)
    listed = root / "imageLists" / f"{part}.txt"
    # Copies of the prepared files often lack the lists; where there is one, no image goes missing without a word.
    names = file_stems(maps, ".png", LAYOUT) if prepared and not listed.is_file() else read_names(listed)
    rows = map_rows(named_rows(listed, names, images, maps, ".png" if prepared else ".mat"), FEATURES)
    if not prepared:
        require_h5py(rows[0]["label"])
    return Source(rows, labels, functools.partial(decode, labels, value_table(labels, prepared)))


def value_table(labels: LabelSet, prepared: bool) -> np.ndarray:
    """Segment id of each value, as `label_segments` takes it; int32 (257,).

    MATLAB's files hold 1 where nothing is labelled and label id + 2 elsewhere, the prepared ones 255 and the label id.
    """
    table = np.full(257, -1, dtype=np.int32)
    first, void = (0, 255) if prepared else (2, 1)
    table[first : first + len(labels)] = np.arange(1, len(labels) + 1)
    table[void] = 0
    return table


def read_names(path: Path) -> list[str]:
    """The names in an official list, one a line. Raises `ValueError` where it is missing, or has one of them twice."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; {LAYOUT}")
    names: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name = line.strip()
        if name in names:
            raise ValueError(f"{path}: line {number} is {name!r}, which line {names[name]} is already")
        if name:
            names[name] = number
    if not names:
        raise ValueError(f"{path}: the dataset is empty; the list names no image")
    return list(names)


def named_rows(listed: Path, names: list[str], images: Path, maps: Path, suffix: str) -> Iterator[dict]:
    """Rows of `images`/NAME.jpg with `maps`/NAME`suffix`; `listed` is where the names come from."""
    for name in names:
        image = inside(images, f"{name}.jpg", f"{listed}: {name!r}")
        yield {"image_id": name, "image": image, "label": inside(maps, f"{name}{suffix}", f"{listed}: {name!r}")}


def decode(labels: LabelSet, table: np.ndarray, row: dict) -> Example:
    """Reads the files of one row."""
    path = row["label"]
    image, values = read_image(row["image"]), read_mat(path) if path.endswith(".mat") else read_label_map(path)
    if values.shape != image.shape[:2]:
        raise BadSample(size_mismatch(path, values.shape, row["image"], image.shape[:2]))
    return semantic_example(image, label_segments(labels, table, values, path, HINT), row["image_id"])


def read_mat(path: str) -> np.ndarray:
    """The label map `S` in a MATLAB file, int64 (H, W). Raises `BadSample` where there is none, or is that of v1.1."""
    try:
        values, names = read_hdf5(path) if is_hdf5(path) else read_matlab_5(path)
    except FileNotFoundError:
        raise BadSample(f"{path}: there is no such label map") from None
    except Exception as error:  # the readers of damaged files raise a dozen different kinds
        raise BadSample(f"{path}: not a MATLAB file with a label map 'S' ({error})") from error
    if names not in (None, 172):
        raise BadSample(f"{path}: its list of names has {names}, not the 172 of v1.0; {HINT}")
    if values.ndim != 2 or values.dtype.kind not in "iuf" or (values != np.floor(values)).any():
        raise BadSample(f"{path}: 'S' is {values.dtype} {values.shape}, not a map of whole numbers")
    return values.astype(np.int64)


def read_hdf5(path: str) -> tuple[np.ndarray, int | None]:
    """`S` and the number of `names` in a file of MATLAB 7.3, which are HDF5."""
    import h5py  # only this needs it

    with h5py.File(path) as file:
        return np.array(file["S"]).T, file["names"].size if "names" in file else None  # MATLAB counts columns first


def read_matlab_5(path: str) -> tuple[np.ndarray, int | None]:
    """`S` and the number of `names` in a file of an older MATLAB."""
    from scipy.io import loadmat

    content = loadmat(path)
    return content["S"], content["names"].size if "names" in content else None


def is_hdf5(path: str) -> bool:
    """Whether a MATLAB file is one of version 7.3, or any HDF5."""
    with open(path, "rb") as file:
        start = file.read(512 + len(HDF5))
    return start.startswith(HDF5) or start.endswith(HDF5)


def require_h5py(path: str) -> None:
    """Raises `ValueError` where the file `path`, if it is there, is one that needs h5py, which is not installed."""
    if Path(path).is_file() and is_hdf5(path) and importlib.util.find_spec("h5py") is None:
        raise ValueError(f"{path}: a file of MATLAB 7.3, which only h5py reads; it is missing: pip install h5py")
