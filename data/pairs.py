"""A list of pairs: a CSV, TSV or JSONL file of images and label maps, and `labels.json` with the names beside it."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from maskformer.data.arrow import map_rows
from maskformer.data.example import Source
from maskformer.data.files import inside
from maskformer.data.semantic_folder import FEATURES, HINT, decode, read_labels, value_table

COLUMNS = ("image", "label")
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def load_pairs(path: str | Path, ignore_index: int | None = 255, reduce_labels: bool = False) -> Source:
    """The semantic dataset that the file `path` lists; rows hold paths, pixels are read when an example is.

    Its columns, or the keys of its JSON lines, are `image` and `label`, paths relative to the file's folder, and maybe
    `image_id`, which is the image's path otherwise. Label maps and settings are as for a `semantic_folder`.

    Raises `ValueError`, naming file and line, where something is missing or does not parse, a path leads out of the
    file's folder, or two lines have one `image_id`.
    """
    path = Path(path)
    if path.suffix.lower() not in (*DELIMITERS, ".jsonl"):
        raise ValueError(f"{path}: a list of pairs is a .csv, .tsv or .jsonl file")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; it lists images and their label maps")
    labels = read_labels(path.parent / "labels.json")
    table = value_table(labels, ignore_index, reduce_labels)
    return Source(map_rows(pairs(path), FEATURES), labels, functools.partial(decode, labels, table, hint=HINT))


def pairs(path: Path) -> Iterator[dict]:
    """One row a line of the file."""
    lines: dict[str, int] = {}  # line of each image id
    for line, entry in read_json_lines(path) if path.suffix.lower() == ".jsonl" else read_table(path):
        where = f"{path}: line {line}"
        for column in COLUMNS:
            if not isinstance(entry.get(column), str) or not entry[column].strip():
                raise ValueError(f"{where}: {column!r} is {entry.get(column)!r}; a path is needed")
        # Backslashes are Windows' slashes.
        image, label = (inside(path.parent, entry[column].replace("\\", "/"), where, column) for column in COLUMNS)
        image_id = entry.get("image_id")
        image_id = os.path.relpath(image, path.parent) if image_id in (None, "") else str(image_id)
        if image_id in lines:
            raise ValueError(f"{where}: line {lines[image_id]} has the image_id {image_id!r} too")
        lines[image_id] = line
        yield {"image_id": image_id, "image": image, "label": label}
    if not lines:
        raise ValueError(f"{path}: the dataset is empty; the file lists no pair")


def read_table(path: Path) -> Iterator[tuple[int, dict]]:
    """Number and cells, by column, of each line of a CSV or TSV file that is not blank."""
    columns, line = None, 0
    # utf-8-sig: spreadsheets begin their files with a byte order mark.
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()], skipinitialspace=True, strict=True)
        try:
            for cells in filter(None, reader):
                line = reader.line_num
                if columns is None:
                    columns = [cell.strip() for cell in cells]
                    if len(set(columns)) < len(columns):
                        raise ValueError(f"{path}: line {line}: two columns have one name: {columns}")
                    for column in COLUMNS:
                        if column not in columns:
                            raise ValueError(f"{path}: line {line}: there is no column {column!r}, but {columns}")
                    continue
                if len(cells) > len(columns):
                    raise ValueError(
                        f"{path}: line {line}: {len(cells)} cells, but {len(columns)} columns; a path that holds"
                        " the delimiter needs quotes"
                    )
                yield line, dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error})") from error
        except csv.Error as error:  # a quote that is never closed takes all that follows: name where it is opened
            raise ValueError(f"{path}: line {line + 1} is not a row of cells ({error})") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    """Number and content of each line of a JSONL file that is not blank."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    entry = json.loads(text)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}: line {line}: not valid JSON ({error})") from error
                if not isinstance(entry, dict):
                    raise ValueError(f'{path}: line {line}: {entry!r} is no mapping, as {{"image": ..., "label": ...}}')
                yield line, entry
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error})") from error
