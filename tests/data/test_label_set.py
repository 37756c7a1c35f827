"""The label sets of the paper's datasets."""

from __future__ import annotations

import pytest

from maskformer.data.label_set import load_label_set

# Known from the datasets' own definitions: labels, things, the first and the last source id.
SIZES = {
    "ade20k-150": (150, 100, 0, 149),
    "ade20k-full-847": (847, 0, 2978, 3148),
    "cityscapes-19": (19, 8, 7, 33),
    "coco-instance-80": (80, 80, 1, 90),
    "coco-panoptic-133": (133, 80, 1, 200),
    "coco-stuff-10k-171": (171, 80, 1, 182),
    "mapillary-vistas-65": (65, 37, 0, 64),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_ids_both_ways(name):
    labels = load_label_set(name)
    number, things, first, last = SIZES[name]
    assert (len(labels), sum(labels.is_thing)) == (number, things)
    assert (labels.source_ids[0], labels.source_ids[-1]) == (first, last)
    assert len(set(labels.names)) == len(set(labels.source_ids)) == number
    assert [labels.contiguous_ids()[source] for source in labels.source_ids] == list(range(number))
    assert len(labels.stuff_ids) == number - things
    assert all(len(color) == 3 and 0 <= min(color) <= max(color) <= 255 for color in labels.colors)


def test_a_few_labels_are_who_they_should_be():
    ade, coco, city = (load_label_set(name) for name in ("ade20k-150", "coco-panoptic-133", "cityscapes-19"))
    assert ade.label2id["person"] == 12 and ade.is_thing[12] and ade.colors[0] == (120, 120, 120)
    assert coco.names[:2] == ("person", "bicycle") and coco.colors[0] == (220, 20, 60)
    assert coco.contiguous_ids()[200] == 132 and not coco.is_thing[132]
    assert city.names[0] == "road" and city.colors[0] == (128, 64, 128) and city.contiguous_ids()[33] == 18


def test_instances_are_the_things_of_coco_panoptic():
    instances, panoptic = load_label_set("coco-instance-80"), load_label_set("coco-panoptic-133")
    assert instances.names == panoptic.names[:80] and instances.source_ids == panoptic.source_ids[:80]


def test_an_unknown_name_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match="no label set 'ade20k'; there are ade20k-150, "):
        load_label_set("ade20k")
