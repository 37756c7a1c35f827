"""The sources by name."""

from __future__ import annotations

from collections.abc import Callable

from maskformer.data.ade20k import load_ade20k, load_ade20k_panoptic
from maskformer.data.ade20k_full import load_ade20k_full
from maskformer.data.cityscapes import load_cityscapes, load_cityscapes_panoptic
from maskformer.data.coco_instances import load_coco_instance, load_coco_instances
from maskformer.data.coco_panoptic import load_coco_panoptic
from maskformer.data.coco_stuff_10k import load_coco_stuff_10k
from maskformer.data.example import Example, Source
from maskformer.data.hub import COPIES, HubDataset, load_hub
from maskformer.data.instance_maps import load_instance_maps
from maskformer.data.mapillary_vistas import load_mapillary_vistas
from maskformer.data.pairs import load_pairs
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.prepared import load_prepared
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.shapes import SHAPES_LABELS, load_shapes
from maskformer.recipes.arguments import DataArguments

# The paper's datasets, as their makers distribute them: `load(folder, split)`.
BENCHMARKS: dict[str, Callable[[str, str], Source]] = {
    "ade20k": load_ade20k,
    "ade20k_panoptic": load_ade20k_panoptic,
    "ade20k_full": load_ade20k_full,
    "cityscapes": load_cityscapes,
    "cityscapes_panoptic": load_cityscapes_panoptic,
    "coco_instance": load_coco_instance,
    "coco_panoptic": load_coco_panoptic,
    "coco_stuff_10k": load_coco_stuff_10k,
    "mapillary_vistas": load_mapillary_vistas,
}
SOURCES = (
    "shapes",
    "panoptic_folder",
    "semantic_folder",
    "coco_instances",
    "pairs",
    "instance_maps",
    "hub",
    "prepared",
    *BENCHMARKS,
)


def load_source(arguments: DataArguments, split: str) -> Source:
    """The `train` or `validation` split that `arguments` describe.

    Raises `ValueError` where the source is not known, has no path, or cannot be read.
    """
    if arguments.source not in SOURCES:
        raise ValueError(f"the source {arguments.source!r} is not known; known are {', '.join(SOURCES)}")
    if arguments.source == "shapes":
        count = arguments.train_scenes if split == "train" else arguments.validation_scenes
        return Source(load_shapes(split, count, arguments.scene_size), SHAPES_LABELS, decode_rendered)
    path = arguments.train_path if split == "train" else arguments.validation_path
    if arguments.source == "prepared":
        path = path or arguments.data_path
        if not path:
            raise ValueError("the source 'prepared' needs --data_path: the folder that prepare_dataset.py wrote")
        return load_prepared(path, split, streaming=arguments.streaming and split == "train")
    if arguments.source == "hub":
        return load_hub(hub_dataset(arguments), split, streaming=arguments.streaming and split == "train")
    if arguments.source in COPIES and not (path or arguments.data_path):
        return load_copy(arguments.source, split, streaming=arguments.streaming and split == "train")
    if arguments.streaming:
        raise ValueError(
            f"--streaming reads prepared data and datasets of the Hub, not {arguments.source!r}; see prepare_dataset.py"
        )
    if arguments.source in BENCHMARKS:
        if not (path or arguments.data_path):
            raise ValueError(f"the source {arguments.source!r} needs --data_path: the folder that it was unpacked into")
        return BENCHMARKS[arguments.source](path or arguments.data_path, split)
    if not path:
        raise ValueError(f"the source {arguments.source!r} needs --{split}_path: the folder of its {split} split")
    if arguments.source == "panoptic_folder":
        return load_panoptic_folder(path)
    if arguments.source == "coco_instances":
        return load_coco_instances(path)
    if arguments.source == "instance_maps":
        return load_instance_maps(path)
    if arguments.source == "pairs":
        return load_pairs(path, arguments.ignore_index, arguments.reduce_labels)
    return load_semantic_folder(path, arguments.ignore_index, arguments.reduce_labels)


def hub_dataset(arguments: DataArguments) -> HubDataset:
    """The dataset of the Hub that `arguments` describe; raises `ValueError` where they name none."""
    if not arguments.dataset:
        raise ValueError("the source 'hub' needs --dataset: a name such as OWNER/NAME, or a folder laid out as one")
    if arguments.data_path or arguments.train_path or arguments.validation_path:
        raise ValueError("the source 'hub' is told by --dataset, not by a path; a folder can be the --dataset")
    return HubDataset(
        arguments.dataset,
        config=arguments.dataset_config,
        revision=arguments.dataset_revision,
        splits={"train": arguments.train_split, "validation": arguments.validation_split},
        kind=arguments.label_kind,
        image_column=arguments.image_column,
        label_column=arguments.label_column,
        segments_column=arguments.segments_column,
        id_column=arguments.id_column,
        label_names=arguments.label_names,
        ignore_index=arguments.ignore_index,
        reduce_labels=arguments.reduce_labels,
    )


def load_copy(name: str, split: str, streaming: bool) -> Source:
    """A benchmark from the Hub; raises `ValueError`, saying what else there is, where that does not work."""
    try:
        return load_hub(COPIES[name], split, streaming)
    except ValueError as error:
        raise ValueError(
            f"{error}; without --data_path, the folder that the source {name!r} was unpacked into, it is read from the"
            " Hub"
        ) from error


def decode_rendered(row: Example) -> Example:
    """Generated scenes come decoded."""
    return row
