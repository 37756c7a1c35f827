"""Datasets of the Hugging Face Hub, or folders laid out as they are, whatever their columns are called."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pyarrow.parquet as pq
from datasets.splits import SplitDict, SplitInfo

from maskformer.data import panoptic_folder, semantic_folder
from maskformer.data.example import BadSample, Example, Source, compact_ids, size_mismatch
from maskformer.data.hub_labels import hub_label_set
from maskformer.data.label_set import LabelSet

KINDS = ("semantic", "panoptic", "instance")
IDS = ("image_id", "file_name", "id")  # columns that are the image ids unless another is named
# What images may be in parquet files that do not say that they are.
ENCODED = (
    datasets.Value("binary"),
    {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
)
# Here the Hub keeps its own conversions of datasets, with a folder a configuration.
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hub, and what its columns mean.

    `name` is `owner/name` or a local folder; `splits` says what the dataset calls `train` and `validation`.
    `kind` says what the images of `label_column` are: `semantic`, the label of each pixel as a value (`ignore_index`
    and `reduce_labels` as for label maps on disk); `panoptic`, ids of segments, as COCO's, which `segments_column`
    lists as {id, category_id, iscrowd}; `instance`, the label in red, as a value, and the number of the instance in
    green, 0 for none. `id_column` holds image ids, or is an image column, whose file names they are then.
    `numbered` says that those are numbers, as COCO's, which ids give without leading zeros.
    `label_names` is a JSON file of names or the name of a label set, see `hub_labels`.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "validation": "validation"})
    kind: str = "semantic"
    image_column: str = "image"
    label_column: str = "label"
    segments_column: str = "segments_info"
    id_column: str | None = None
    label_names: str | None = None
    ignore_index: int | None = 255
    reduce_labels: bool = False
    numbered: bool = False

    @property
    def columns(self) -> dict[str, str]:
        """What its columns are called here."""
        columns = {self.image_column: "image", self.label_column: "label"}
        return columns | ({self.segments_column: "segments_info"} if self.kind == "panoptic" else {})


# Copies of benchmarks that are laid out as the official files are; of the others none is known to be complete.
COPIES = {
    "ade20k": HubDataset(
        "zhoubolei/scene_parse_150",
        config="scene_parsing",
        revision=CONVERTED,
        label_column="annotation",
        id_column="image",
        label_names="ade20k-150",
        ignore_index=None,
        reduce_labels=True,
    ),
    "coco_panoptic": HubDataset(
        "nielsr/coco-panoptic-val2017",
        splits={"validation": "train"},
        kind="panoptic",
        id_column="image",
        numbered=True,
        label_names="coco-panoptic-133",
    ),
}


class EncodedFile(io.BytesIO):
    """The bytes of a file, which goes by `name` in messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.title = name

    def __str__(self) -> str:
        return self.title


def load_hub(dataset: HubDataset, split: str, streaming: bool = False) -> Source:
    """The `train` or `validation` split of `dataset`; images stay encoded until an example is read.

    With `streaming` rows are an `IterableDataset`, whose length comes from the footers of its parquet files.
    Image ids are those of a column or file names; without either they are made of the images' bytes, which are the same
    however the rows are read.

    Raises `ValueError` where the dataset or the split cannot be reached, a column is missing or no image, the names of
    the labels are not known, an image id occurs twice, or streaming data do not tell their length.
    """
    if dataset.kind not in KINDS:
        raise ValueError(f"label_kind must be one of {', '.join(KINDS)}, not {dataset.kind!r}")
    if split not in dataset.splits:
        raise ValueError(f"the dataset {dataset.name!r} has no {split} split")
    rows = read_split(dataset, dataset.splits[split], streaming)
    labels = hub_label_set(
        dataset.name,
        None if dataset.revision == CONVERTED else dataset.revision,
        dataset.label_names,
        rows,
        is_thing=dataset.kind != "semantic",
        void=None if dataset.reduce_labels else dataset.ignore_index,
    )
    rows = with_our_columns(dataset, rows)
    name_ids = None
    if dataset.id_column == dataset.image_column:
        name_ids = without_leading_zeros if dataset.numbered else str
    read = functools.partial(decode, f"{dataset.name} ({split})", name_ids, decoder(dataset, labels))
    return Source(rows, labels, read)


def read_split(dataset: HubDataset, split: str, streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
    """The rows of the split that the dataset calls `split`, with its own columns."""
    place = {"data_dir" if dataset.revision == CONVERTED else "name": dataset.config, "revision": dataset.revision}
    try:
        rows = datasets.load_dataset(dataset.name, split=split, streaming=streaming, **place)
        if streaming:
            builder = datasets.load_dataset_builder(dataset.name, **place)
            lengths = shard_lengths((builder.config.data_files or {}).get(split, []))
            info = SplitInfo(split, num_examples=sum(lengths), shard_lengths=lengths)
            rows.info.splits = SplitDict({split: info})
    except Exception as error:  # of a dozen kinds
        reason = " ".join(str(error).split())  # in one line
        raise ValueError(f"the split {split!r} of the dataset {dataset.name!r} cannot be read: {reason}") from error
    if rows.features is None:
        raise ValueError(f"the dataset {dataset.name!r} does not tell its columns; it cannot be streamed")
    if not streaming and not len(rows):
        raise ValueError(f"the split {split!r} of the dataset {dataset.name!r} is empty")
    return rows


def shard_lengths(files: list[str]) -> list[int]:
    """The rows of each of some parquet files, which may be remote: only their footers are read."""
    if not files or not all(str(file).endswith(".parquet") for file in files):
        raise ValueError("only parquet files can be streamed")
    lengths = []
    for file in files:
        with fsspec.open(str(file), "rb") as opened:
            lengths.append(pq.read_metadata(opened).num_rows)
    return lengths


def with_our_columns(dataset: HubDataset, rows):
    """`rows` with the columns `image`, `label`, maybe `segments_info` and `image_id`, and `row`, if they have numbers.

    Images are not decoded. Raises `ValueError` for columns that are missing or hold something else.
    """
    there = f"the columns of {dataset.name!r} are {', '.join(rows.features)}"
    for column in dataset.columns:
        if column not in rows.features:
            setting = f"{dataset.columns[column].removesuffix('_info')}_column"
            raise ValueError(f"there is no column {column!r}; {there}; is it another? --{setting} names it")
    ids = id_column(dataset, rows.features, there)
    columns = dataset.columns | ({ids: "image_id"} if ids else {})
    rows = rows.select_columns(list(columns))
    for column in (dataset.image_column, dataset.label_column):
        feature = rows.features[column]
        if not isinstance(feature, datasets.Image) and feature not in ENCODED:
            raise ValueError(f"the column {column!r} holds no images, but {feature}; {there}")
        # Before columns are renamed: renaming those of a stream would decode and encode the images again.
        rows = rows.cast_column(column, datasets.Image(decode=False))
    rows = rows.rename_columns({old: new for old, new in columns.items() if old != new})
    if isinstance(rows, datasets.Dataset):
        if ids and len(rows.unique("image_id")) < len(rows):
            raise ValueError(f"the column {ids!r} holds image ids, but one of them twice; --id_column names another")
        rows = rows.add_column("row", np.arange(len(rows)))
    return rows


def id_column(dataset: HubDataset, features: datasets.Features, there: str) -> str | None:
    """The column of image ids, or None where these are not in a column of their own."""
    if dataset.id_column == dataset.image_column:
        return None  # file names
    if dataset.id_column and dataset.id_column not in features:
        raise ValueError(f"there is no column {dataset.id_column!r}; {there}; is it another? --id_column names it")
    candidates = [dataset.id_column] if dataset.id_column else [name for name in IDS if name in features]
    candidates = [name for name in candidates if isinstance(features[name], datasets.Value)]
    if dataset.id_column and not candidates:
        raise ValueError(f"the column {dataset.id_column!r} holds no ids, but {features[dataset.id_column]}; {there}")
    return candidates[0] if candidates else None


def decoder(dataset: HubDataset, labels: LabelSet) -> Callable[[dict], Example]:
    """What makes an example of a row whose images are files."""
    if dataset.kind == "panoptic":
        return functools.partial(decode_panoptic, labels)
    table = semantic_folder.value_table(labels, dataset.ignore_index, dataset.reduce_labels)
    if dataset.kind == "instance":
        return functools.partial(decode_instances, labels, table)
    return functools.partial(semantic_folder.decode, labels, table, hint=semantic_folder.HINT)


def without_leading_zeros(stem: str) -> str:
    """The number in a file's name; other names as they are."""
    return str(int(stem)) if stem.isdecimal() else stem


def decode(where: str, name_ids: Callable[[str], str] | None, read: Callable[[dict], Example], row: dict) -> Example:
    """The example in a row of the dataset's split `where`; raises `BadSample`, naming it, where it cannot be used."""
    place = f"{where}, row {row['row']}" if "row" in row else where
    if "image_id" in row:
        place += f", image {row['image_id']!r}"
    content = {name: encoded_bytes(row[name], f"{place}: {name}") for name in ("image", "label")}
    image_id, path = row.get("image_id"), row["image"].get("path")
    if image_id is None and name_ids and path:
        image_id = name_ids(Path(path).stem)
    if image_id is None:
        image_id = hashlib.sha256(content["image"]).hexdigest()[:16]
    if "image_id" not in row:
        place += f", image {image_id!r}"
    files = {name: EncodedFile(value, f"{place}: {name}") for name, value in content.items()}
    return read({**row, **files, "image_id": str(image_id)})


def encoded_bytes(cell: dict | None, where: str) -> bytes:
    """The file in a cell of an image column."""
    cell = cell or {}
    if cell.get("bytes") is not None:
        return cell["bytes"]
    if not cell.get("path"):
        raise BadSample(f"{where}: the cell is empty; an image is needed")
    try:
        with fsspec.open(os.fspath(cell["path"]), "rb") as file:
            return file.read()
    except Exception as error:  # of any file system
        raise BadSample(f"{where}: the file {cell['path']} cannot be read ({error})") from error


def decode_panoptic(labels: LabelSet, row: dict) -> Example:
    """Reads the files of a row with `segments_info`."""
    known, segments = set(labels.source_ids), []
    for segment in row["segments_info"] or []:
        if segment.get("category_id") not in known or segment.get("id") is None:
            raise BadSample(f"{row['label']}: the segment {segment} needs an id and a category_id of the labels")
        segments.append({**segment, "iscrowd": int(segment.get("iscrowd") or 0)})
    if len({segment["id"] for segment in segments}) < len(segments):
        raise BadSample(f"{row['label']}: segments_info has an id twice")
    return panoptic_folder.decode(labels, {**row, "panoptic": row["label"], "segments_info": segments})


def decode_instances(labels: LabelSet, table: np.ndarray, row: dict) -> Example:
    """Reads the files of a row whose label map has values in red and instances in green."""
    image, pixels = semantic_folder.read_image(row["image"]), semantic_folder.read_color_map(row["label"])
    if pixels.shape != image.shape:
        raise BadSample(size_mismatch(row["label"], pixels.shape[:2], row["image"], image.shape[:2]))
    red, green = pixels[..., 0].astype(np.int32), pixels[..., 1].astype(np.int32)
    codes = np.where(green > 0, 256 * green + red, 0)  # (H, W)
    present = np.flatnonzero(np.bincount(codes.ravel(), minlength=1)[1:]) + 1  # (n,)
    of_codes = semantic_folder.label_segments(labels, table, present % 256, row["label"], semantic_folder.HINT)  # (n,)
    void = present[of_codes == 0]
    segments = [
        {"id": int(code), "label_id": int(segment) - 1, "iscrowd": 0}
        for code, segment in zip(present, of_codes, strict=True)
        if segment
    ]
    segmentation, segments = compact_ids(np.where(np.isin(codes, void), 0, codes), segments)
    return Example(image=image, segmentation=segmentation, segments_info=segments, image_id=row["image_id"])
