"""The labels of a dataset of the Hub: its columns hold numbers, the names lie somewhere else."""

from __future__ import annotations

from pathlib import Path

import datasets
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from maskformer.data.files import read_json
from maskformer.data.label_set import LabelSet, load_label_set
from maskformer.data.prepared import categories_with_source_ids
from maskformer.data.semantic_folder import label_set_of

FILES = ("labels.json", "id2label.json")  # of a repository, the first that there is
COLUMN = "semantic_class_to_id"  # of datasets for Hugging Face's instance segmentation example: {name: value}


def hub_label_set(
    name: str,
    revision: str | None,
    label_names: str | None,
    rows: datasets.Dataset | datasets.IterableDataset,
    is_thing: bool,
    void: int | None,
) -> LabelSet:
    """The label set of the dataset `name`, a repository of the Hub or a folder, whose rows are `rows`.

    `label_names` is a JSON file, in one of the forms of a semantic folder's `labels.json`, or the name of a label set,
    such as `ade20k-150`. Without it names are those of the dataset's `labels.json`, its `id2label.json` or its column
    `semantic_class_to_id`. Labels are things or not as `is_thing` says, unless the file does. Many name void too, as
    background or unlabeled: the value `void` is no label. Raises `ValueError` where there are no names.
    """
    if label_names and not label_names.endswith(".json"):
        return load_label_set(label_names)
    if label_names:
        labels = label_set_of(read_json(Path(label_names), "it holds the label names"), label_names, is_thing)
    else:
        labels = label_set_of(*labels_of_dataset(name, revision, rows), is_thing)
    categories = [category for category in categories_with_source_ids(labels) if category["id"] != void]
    return LabelSet.from_categories(categories, where=label_names or name)


def labels_of_dataset(name: str, revision: str | None, rows) -> tuple[object, str]:
    """The names that a dataset brings itself, and where they are."""
    for file in FILES:
        path = file_of_dataset(name, revision, file)
        if path:
            return read_json(path, "it holds the label names"), f"{name}/{file}"
    if COLUMN in rows.features:
        names = next(iter(rows.select_columns([COLUMN])), {COLUMN: None})[COLUMN]
        if isinstance(names, dict):
            return {key: value for key, value in names.items() if value is not None}, f"{name}, column {COLUMN!r}"
    raise ValueError(
        f"the dataset {name!r} has no {' or '.join(FILES)}, which would tell the names of its labels; --label_names"
        " FILE.json names them, or --label_names ade20k-150 where they are those of a benchmark"
    )


def file_of_dataset(name: str, revision: str | None, file: str) -> Path | None:
    """The path of a dataset's file on this machine, or None where it has no such file."""
    if Path(name).is_dir():
        return Path(name) / file if (Path(name) / file).is_file() else None
    try:
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=revision))
    except EntryNotFoundError:
        return None
    except Exception as error:  # of a dozen kinds
        raise ValueError(f"{file} of the dataset {name!r} cannot be read: {error}") from error
