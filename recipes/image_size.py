"""The size at which a recipe learns and answers, from the images it is given."""

from __future__ import annotations

import statistics
from itertools import islice

from maskformer.data.example import BadSample, Source
from maskformer.recipes.recipe import Recipe

LOOKED_AT = 100  # images, spread over the dataset; the first ones of a stream
SIZES = {"size", "crop_size", "shortest_edges", "longest_edge"}  # the settings that it changes
MULTIPLE = 32  # of crops, the backbone's largest stride


def fit_image_size(recipe: Recipe, source: Source) -> tuple[Recipe, str | None]:
    """The recipe with sizes for its images, where these are small, and a line that says so.

    With `fit_image_size` the shortest edge of the test becomes the median shortest edge of the training images where
    that is less; edges of training shrink by the same factor, crops to the next multiple of 32. The setting is off in
    what is returned, so that a saved recipe stays what it is.
    """
    if not recipe.data.fit_image_size:
        return recipe, None
    kept = recipe.override({"fit_image_size": False})
    size = recipe.image_processor.get("size")
    wanted = size.get("shortest_edge") if isinstance(size, dict) else None
    if not wanted or not recipe.image_processor.get("do_resize", True):
        return kept, None
    found = shortest_edges(source)
    if not found or statistics.median(found) >= wanted:
        return kept, None
    edge = int(statistics.median(found))
    factor = edge / wanted
    crop = kept.data.crop_size and [min(side, -(-edge // MULTIPLE) * MULTIPLE) for side in kept.data.crop_size]
    longest = size.get("longest_edge")
    values = {
        "size": {"shortest_edge": edge} | ({"longest_edge": round(longest * factor)} if longest else {}),
        "shortest_edges": [max(1, round(side * factor)) for side in kept.data.shortest_edges],
        "longest_edge": max(edge, round(kept.data.longest_edge * factor)),
        "crop_size": crop,
    }
    line = f"the training images' shortest edge is {edge} pixels in the median, so that is the size of the test"
    line += f", and crops are {crop[0]} x {crop[1]}" if crop else ""
    return kept.override(values), f"{line} (--fit_image_size false keeps the recipe's {wanted})"


def shortest_edges(source: Source) -> list[int]:
    """The shortest edges of some images of `source`, in pixels; those that cannot be read are left out."""
    try:
        step = -(-len(source.rows) // LOOKED_AT)
        rows = (source.rows[index] for index in range(0, len(source.rows), max(step, 1)))
    except (TypeError, AttributeError):  # a stream, which has neither length nor places
        rows = islice(iter(source.rows), LOOKED_AT)
    found = []
    for row in rows:
        try:
            found.append(min(source.decode(row)["image"].shape[:2]))
        except BadSample:
            continue
    return found
