"""One pass over a dataset, which counts what is in it and finds what is wrong with it, file by file."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from maskformer.data.example import BadSample, Example, Source
from maskformer.data.hub import EncodedFile, encoded_bytes
from maskformer.data.label_set import LabelSet
from maskformer.data.semantic_folder import read_label_map

KEPT = 1000  # messages that a report holds; more are only counted
THREADS = 4


@dataclass
class Messages:
    """Messages in their order: all are counted, the first ones kept."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, message: str) -> None:
        """Counts `message`, and keeps it while there is room."""
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append(message)


@dataclass
class Report:
    """What a dataset holds; arrays are int64 (K,), an entry for each label of `labels`.

    `mistakes` are of the dataset as a whole, `problems` of single files, which they make unusable or contradict others;
    `warnings` only look like either. Sizes are (height, width), `things` is the number of things an image, `areas` the
    binary logarithm of a segment's pixels, rounded down.
    Crowds count as segments; pixels where two segments overlap count for both.
    """

    labels: LabelSet
    images_per_label: np.ndarray
    segments_per_label: np.ndarray
    pixels_per_label: np.ndarray
    images: int = 0  # looked at
    usable: int = 0  # of these
    pixels: int = 0  # of the usable images, and of these void:
    void_pixels: int = 0
    sizes: Counter = field(default_factory=Counter)
    things: Counter = field(default_factory=Counter)
    areas: Counter = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)
    problems: Messages = field(default_factory=Messages)
    warnings: Messages = field(default_factory=Messages)

    @property
    def good(self) -> bool:
        """Whether every example can be used, and nothing is wrong with them together."""
        return not self.mistakes and not self.problems.count

    @property
    def segments(self) -> int:
        """Segments of all labels."""
        return int(self.segments_per_label.sum())


@dataclass
class Finding:
    """What is in one example, or `problem`: why it cannot be used."""

    place: str  # its file
    image_id: str
    problem: str | None = None
    warnings: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    void_pixels: int = 0
    segments: list[tuple[int, int]] = field(default_factory=list)  # label id, pixels
    values: np.ndarray | None = None  # that a map holds whose values are not all known


def inspect(
    source: Source, limit: int | None = None, ignore_index: int | None = None, reduce_labels: bool | None = None
) -> Report:
    """Reads every example of `source`, or the first `limit`, and reports on them; a few threads read in parallel.

    `reduce_labels` and `ignore_index` are the settings that label maps are read with, where they are settings: the
    report then says which others would fit. Memory does not grow with the dataset but for a number an image, by which
    an image id that occurs twice is found.
    """
    zeros = [np.zeros(len(source.labels), dtype=np.int64) for _ in range(3)]
    report = Report(source.labels, *zeros)
    seen: set[int] = set()
    unexpected = np.zeros(2**16, dtype=bool)  # values of the maps that could not be read
    rows = itertools.islice(source.rows, limit)
    total = min(limit or len(source), len(source)) if hasattr(source.rows, "__len__") else limit
    findings = map_in_threads(lambda row: examine(source, row), rows)
    for finding in tqdm(findings, total=total, desc="inspecting", unit="image", leave=False):
        add_finding(report, finding)
        identity = hash(finding.image_id)
        if identity in seen:
            report.problems.add(f"{finding.place}: the image id {finding.image_id!r} occurs twice")
        seen.add(identity)
        if finding.values is not None:
            unexpected[finding.values.clip(0, len(unexpected) - 1)] = True
    if reduce_labels is not None:
        report.mistakes += advice(report, np.flatnonzero(unexpected), ignore_index, reduce_labels)
    summarize_labels(report, bool(reduce_labels))
    return report


def map_in_threads(function: Callable, items: Iterable, threads: int = THREADS) -> Iterator:
    """`map(function, items)` by several threads, in order, a few items ahead only."""
    pending: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def examine(source: Source, row: dict) -> Finding:
    """Reads the example of one row."""
    named = (row.get(key) for key in ("panoptic", "label", "image"))
    file = next((value for value in named if isinstance(value, str)), None)
    finding = Finding(file or f"image {row.get('image_id')}", str(row.get("image_id")))
    try:
        example = source.decode(row)
    except BadSample as error:
        finding.problem = str(error)
        finding.values = label_values(row)
        return finding
    finding.image_id = example["image_id"]
    place = finding.place = file or f"image {example['image_id']}"
    finding.problem = contradiction(example, len(source.labels))
    if finding.problem:
        finding.problem = f"{place}: {finding.problem}"
        return finding
    segmentation, infos = example["segmentation"], example["segments_info"]
    finding.size = segmentation.shape[-2:]
    maps = segmentation.reshape(-1, *finding.size)  # (P, H, W)
    finding.void_pixels = int((maps == 0).all(axis=0).sum())
    areas = np.bincount(segmentation.ravel())
    finding.segments = [(info["label_id"], int(areas[info["id"]])) for info in infos]
    if not infos:
        finding.warnings.append(f"{place}: the whole image is void")
    listed = row.get("segments_info")
    if listed is not None and len(listed) > len(infos):
        finding.warnings.append(f"{place}: {len(listed) - len(infos)} of its {len(listed)} segments have no pixel")
    return finding


def contradiction(example: Example, num_labels: int) -> str | None:
    """How the parts of `example` contradict each other, or None where they do not."""
    segmentation, infos = example["segmentation"], example["segments_info"]
    if segmentation.shape[-2:] != example["image"].shape[:2]:
        return f"the map has {segmentation.shape[-2:]} pixels, but the image {example['image'].shape[:2]}"
    if segmentation.min(initial=0) < 0:
        return f"the map holds the segment id {segmentation.min()}; ids count from 1, and 0 is void"
    listed = [info["id"] for info in infos]
    if len(set(listed)) < len(listed):
        return "segments_info has an id twice"
    present = set(np.flatnonzero(np.bincount(segmentation.ravel())).tolist()) - {0}
    if present - set(listed):
        return f"the segment ids {sorted(present - set(listed))[:5]} are in the map, but not in segments_info"
    if set(listed) - present:
        return f"the segment ids {sorted(set(listed) - present)[:5]} are in segments_info, but not in the map"
    wrong = [info["label_id"] for info in infos if not 0 <= info["label_id"] < num_labels]
    if wrong:
        return f"the label id {wrong[0]} is outside of the {num_labels} labels, which are 0 to {num_labels - 1}"
    return None


def label_values(row: dict) -> np.ndarray | None:
    """The values in the label map of a row that cannot be used, where it has a map and that can be read."""
    label = row.get("label")
    if not isinstance(label, str | dict):
        return None
    try:
        # A cell of the Hub's, which holds the file, or its path.
        file = EncodedFile(encoded_bytes(label, "label"), "label") if isinstance(label, dict) else label
        return np.unique(read_label_map(file))
    except BadSample:
        return None


def add_finding(report: Report, finding: Finding) -> None:
    """Counts one example."""
    report.images += 1
    for warning in finding.warnings:
        report.warnings.add(warning)
    if finding.problem:
        report.problems.add(finding.problem)
        return
    report.usable += 1
    report.sizes[finding.size] += 1
    report.pixels += finding.size[0] * finding.size[1]
    report.void_pixels += finding.void_pixels
    for label, area in finding.segments:
        report.segments_per_label[label] += 1
        report.pixels_per_label[label] += area
        report.areas[area.bit_length() - 1] += 1
    for label in {label for label, _ in finding.segments}:
        report.images_per_label[label] += 1
    report.things[sum(report.labels.is_thing[label] for label, _ in finding.segments)] += 1


def advice(report: Report, values: np.ndarray, ignore_index: int | None, reduce_labels: bool) -> list[str]:
    """What is wrong with all label maps at once, and the setting that would be right.

    `values` are those of the maps that hold unknown ones, ascending.
    """
    source_ids = [value + int(reduce_labels) for value in report.labels.source_ids]
    low, high = min(source_ids), max(source_ids)
    messages = []
    if ignore_index in source_ids:
        name = report.labels.names[source_ids.index(ignore_index)]
        messages.append(
            f"ignore_index {ignore_index} is the value of the label {name!r} too, all of whose pixels are void; did you"
            " mean --ignore_index null, or 255?"
        )
    known = {*source_ids, ignore_index} | ({0} if reduce_labels else set())
    unknown = [value for value in values.tolist() if value not in known]
    used = [value for value in values.tolist() if value != ignore_index]
    if not unknown:
        return messages
    held = f"label maps hold values of {min(used)} to {max(used)}"
    message = f"{held}, but the {len(source_ids)} labels have {low} to {high}"
    if not reduce_labels and low == 0 and unknown == [high + 1]:
        message += ": did you mean --reduce_labels true?"
    elif len(unknown) == 1:
        message += f": is {unknown[0]} void? Then --ignore_index {unknown[0]} is right"
    else:
        message += ": labels.json must name every value that is not void"
    return [*messages, message]


def summarize_labels(report: Report, reduce_labels: bool) -> None:
    """Warns of labels that never occur, and of images that are all void together."""
    if not report.usable:
        return
    if not report.segments:
        report.mistakes.append(f"all {report.usable} images are void: not one segment is labelled")
        return
    absent = [report.labels.names[label] for label in np.flatnonzero(report.images_per_label == 0)]
    if absent:
        shown = ", ".join(absent[:10]) + (" ..." if len(absent) > 10 else "")
        report.warnings.add(f"{len(absent)} of {len(report.labels)} labels never occur: {shown}")
    last = int(np.argmax(report.labels.source_ids))
    if reduce_labels and not report.images_per_label[last]:
        report.warnings.add(
            f"with reduce_labels the value 0 is void and {report.labels.names[last]!r}, the label of the largest value,"
            " never occurs; if the label maps count from 0, --reduce_labels false is right"
        )
