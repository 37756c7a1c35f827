"""A label set: what the contiguous label ids 0 .. K-1 mean."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "label_sets"


@dataclass(frozen=True)
class LabelSet:
    """K labels, in the order of their contiguous ids.

    `names[i]`, `colors[i]` (RGB, 0 to 255), `is_thing[i]` and `source_ids[i]` (the id that the dataset's own files use)
    describe label id `i`.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    is_thing: tuple[bool, ...]
    source_ids: tuple[int, ...]

    @classmethod
    def from_categories(cls, categories: Sequence[Mapping], where: str = "categories") -> LabelSet:
        """Builds a label set from COCO panoptic `categories` (`id`, `name`, and optionally `isthing`, `color`).

        A colour is [red, green, blue] or "#rrggbb". Raises `ValueError`, naming `where` and the entry, if an id or a
        name is missing, an id or a name occurs twice, or a field is of another kind.
        """
        if not categories:
            raise ValueError(f"{where}: there are no categories; at least one with an 'id' and a 'name' is needed")
        seen: dict[int, int] = {}
        names: set[str] = set()
        for index, category in enumerate(categories):
            if not isinstance(category, Mapping):
                raise ValueError(f"{where}: entry {index} is no mapping with an 'id' and a 'name': {category!r}")
            for field in ("id", "name"):
                if category.get(field) in (None, ""):
                    raise ValueError(f"{where}: entry {index} has no {field!r}: {dict(category)}")
            if type(category["id"]) is not int or abs(category["id"]) >= 2**31:
                raise ValueError(f"{where}: entry {index}: the id {category['id']!r} is no whole number")
            if category["id"] in seen:
                raise ValueError(f"{where}: entries {seen[category['id']]} and {index} share the id {category['id']}")
            if str(category["name"]) in names:
                raise ValueError(f"{where}: entry {index} has the name {category['name']!r} of an earlier one")
            seen[category["id"]] = index
            names.add(str(category["name"]))
        return cls(
            names=tuple(str(category["name"]) for category in categories),
            colors=tuple(
                read_color(category.get("color"), index, f"{where}: entry {index}")
                for index, category in enumerate(categories)
            ),
            is_thing=tuple(
                read_flag(category.get("isthing", 1), "isthing", f"{where}: entry {index}")
                for index, category in enumerate(categories)
            ),
            source_ids=tuple(category["id"] for category in categories),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Contiguous id to name."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name to contiguous id."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def stuff_ids(self) -> list[int]:
        """The contiguous ids that are stuff: regions without instances."""
        return [index for index, thing in enumerate(self.is_thing) if not thing]

    @property
    def categories(self) -> list[dict]:
        """COCO panoptic categories under contiguous ids, as `metrics.PanopticQuality` takes them."""
        return [
            {"id": index, "name": self.names[index], "isthing": int(self.is_thing[index]), "color": self.colors[index]}
            for index in range(len(self))
        ]

    def contiguous_ids(self) -> dict[int, int]:
        """Source id to contiguous id."""
        return {source: index for index, source in enumerate(self.source_ids)}


def load_label_set(name: str) -> LabelSet:
    """The label set `name` of a benchmark, such as `ade20k-150`; `source_ids` are those of its annotation files.

    Names, flags and colours are the official ones. Labels without an official colour get a distinct one, and those of
    which it is not known whether they are things (ADE20K-Full) count as stuff, as all do in semantic segmentation.
    ADE20K's files count from 1, its label set from 0: see `reduce_labels`.
    Raises `ValueError`, with the names that exist, where there is no such label set.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in names:
        raise ValueError(f"there is no label set {name!r}; there are {', '.join(names)}")
    path = FOLDER / f"{name}.json"
    return LabelSet.from_categories(json.loads(path.read_text(encoding="utf-8")), where=str(path))


def read_flag(value: object, name: str, where: str) -> bool:
    """Whether a flag of an annotation file is set; null is not. Raises `ValueError` for anything but 0, 1 and these."""
    if value is not None and (not isinstance(value, int) or value not in (0, 1)):
        raise ValueError(f"{where}: {name} is {value!r}; it must be 0 or 1")
    return bool(value)


def read_color(value: object, index: int, where: str) -> tuple[int, int, int]:
    """The RGB colour of category `index`: a list of three numbers of 0 to 255, "#rrggbb", or a distinct one for none.

    Raises `ValueError` for anything else.
    """
    if value is None or value == "" or value == []:
        return distinct_color(index)
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(c, int) and 0 <= c < 256 for c in value):
        return tuple(int(c) for c in value)
    raise ValueError(f"{where}: the color {value!r} is neither [red, green, blue] of 0 to 255 nor '#rrggbb'")


def distinct_color(index: int) -> tuple[int, int, int]:
    """RGB colour number `index` of an endless sequence of well separated colours (golden-angle hues)."""
    import colorsys

    hue = (index * 0.61803398875) % 1.0
    value = (0.95, 0.75, 0.6)[(index // 7) % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.65, 0.9)[(index // 21) % 2], value)
    return int(255 * red), int(255 * green), int(255 * blue)


def check_same_labels(expected: LabelSet | Sequence[str], given: LabelSet, of: str, where: str) -> None:
    """Raises `ValueError`, naming the first difference, unless `given` has the labels `expected`, in their order.

    `of` and `where` say whose labels the two are.
    """
    names = expected.names if isinstance(expected, LabelSet) else list(expected)
    for index, (one, other) in enumerate(itertools.zip_longest(names, given.names)):
        if one != other:
            raise ValueError(f"label {index} is {one!r} in {of}, but {other!r} in {where}; labels must be the same")
    if isinstance(expected, LabelSet) and list(expected.is_thing) != list(given.is_thing):
        raise ValueError(f"{of} and {where} disagree on which labels are things")
