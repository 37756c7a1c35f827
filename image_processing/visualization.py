"""Pictures of segmentations: coloured segments over the image, and grids of pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

MINIMUM_TILE_WIDTH = 256
TALLEST_TILE = 3  # widths: beyond it, one narrow picture would fill the memory
LABEL_BOX = (15, 15, 20, 165)  # dark and translucent: white text reads on every colour, and the segment shows through
POLE_GRID = 256  # distances to the border are measured on at most this many pixels a side: enough to place a label


def draw_segments(
    image: np.ndarray | Image.Image,
    panoptic: Mapping,
    label_names: Mapping[int, str] | Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    alpha: float = 0.5,
    outlines: bool = True,
    labels: bool = True,
    scale: int = 1,
) -> Image.Image:
    """Draws segments over an image and returns an RGB picture of `scale` times its size; void shows the bare image.

    `image` is a PIL image, or uint8 (H, W), (H, W, 1) or (H, W, 3). `panoptic` holds `segmentation`, an integer (H, W)
    numpy array or torch tensor of segment ids, and `segments_info`, one mapping with `id` and `label_id` a segment; the
    id 0 and ids without an entry are void. The first segment of a class has its colour, `colors[label_id]` (RGB, 0 to
    255), and further ones a shade of it, so that instances which touch are told apart. `alpha` is the colour's opacity.
    `labels` writes the class name at the innermost point of each segment that is large enough to hold it.

    Raises `ValueError` if the map and the image differ in size or a `label_id` has no name or colour, and `TypeError`
    for arrays that are no pictures or no maps of ids.
    """
    picture = _rgb(image)
    index = _segment_index(panoptic, picture.shape[:2])
    segments = panoptic["segments_info"]
    shades = _segment_colors(segments, label_names, colors)
    if scale != 1:
        height, width = index.shape
        picture = np.asarray(Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.LANCZOS))
        index = index.repeat(scale, axis=0).repeat(scale, axis=1)  # (H * scale, W * scale)

    drawn = np.rint(picture + np.float32(alpha) * (shades[index] - picture))  # (H, W, 3)
    if outlines:
        border = _borders(index)
        drawn[border] = 0.25 * 255 + 0.75 * shades[index[border]]
    drawn = np.where(index[..., None] > 0, drawn, picture).astype(np.uint8)
    canvas = Image.fromarray(drawn)
    if labels:
        _write_labels(canvas, index, [label_names[segment["label_id"]] for segment in segments])
    return canvas


def draw_semantic(
    image: np.ndarray | Image.Image,
    label_map: np.ndarray,
    label_names: Mapping[int, str] | Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    alpha: float = 0.5,
    outlines: bool = True,
    labels: bool = True,
    scale: int = 1,
) -> Image.Image:
    """Draws an integer (H, W) map of label ids over an image, as `draw_segments` does; ids without a name are void."""
    label_map = _id_map(label_map).astype(np.int64)
    names = label_names if isinstance(label_names, Mapping) else dict(enumerate(label_names))
    present = [label for label in np.unique(label_map).tolist() if label in names]
    segmentation = np.where(np.isin(label_map, present), label_map + 1, 0)  # (H, W)
    segments = [{"id": label + 1, "label_id": label} for label in present]
    panoptic = {"segmentation": segmentation, "segments_info": segments}
    return draw_segments(image, panoptic, names, colors, alpha, outlines, labels, scale)


def side_by_side(
    pictures: Sequence[np.ndarray | Image.Image], titles: Sequence[str], rows: Sequence[str] | None = None
) -> Image.Image:
    """Lays pictures out in a grid of `len(titles)` columns, each column under its title, and returns an RGB picture.

    `pictures` are given row by row, such as image, truth, prediction of one example after another; `rows` may hold one
    caption a row, written at its left edge. Every picture gets the width of the widest, and at least 256 pixels; those
    more than three times as high as wide get that height, between white margins.

    Raises `ValueError` if the pictures do not fill the rows, or the captions are not one a row.
    """
    columns = len(titles)
    if not columns or not len(pictures) or len(pictures) % columns:
        raise ValueError(f"{len(pictures)} pictures do not fill rows of {columns} columns (one column a title)")
    if rows is not None and len(rows) != len(pictures) // columns:
        raise ValueError(f"{len(rows)} row captions were given for {len(pictures) // columns} rows of pictures")

    tiles = [Image.fromarray(_rgb(picture)) for picture in pictures]
    width = max(MINIMUM_TILE_WIDTH, *(tile.width for tile in tiles))
    tiles = [_with_width(tile, width) for tile in tiles]
    heights = [max(tile.height for tile in tiles[i : i + columns]) for i in range(0, len(tiles), columns)]

    font = ImageFont.load_default(size=max(14, width // 20))
    gap = max(6, width // 40)
    band = int(1.8 * font.size)
    margin = gap + (band if rows is not None else 0)
    size = (margin + columns * (width + gap), band + sum(heights) + gap * len(heights))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        center = margin + column * (width + gap) + width // 2
        pen.text((center, band // 2), title, fill=(30, 30, 35), font=font, anchor="mm")
    top = band
    for row, height in enumerate(heights):
        for column, tile in enumerate(tiles[row * columns : (row + 1) * columns]):
            sheet.paste(tile, (margin + column * (width + gap), top))
        if rows is not None:
            caption = Image.new("RGB", (height, band), "white")
            ImageDraw.Draw(caption).text((height // 2, band // 2), rows[row], fill=(30, 30, 35), font=font, anchor="mm")
            sheet.paste(caption.rotate(90, expand=True), (gap // 2, top))
        top += height + gap
    return sheet


def model_colors(config) -> list[list[int]] | None:
    """The RGB colours of a model's labels, None where it has none, or has lost them as its labels were replaced."""
    colors = config.label_colors
    return colors if colors is not None and len(colors) == config.num_labels else None


def class_color(label: int, colors: Sequence[Sequence[int]] | None = None) -> Sequence[float]:
    """RGB colour, 0 to 255, of a label: that of `colors`, or golden-angle hues: neighbouring ids are far apart."""
    if colors is not None:
        return colors[label]
    hue = (0.02 + label * 0.61803398875) % 1.0
    return tuple(255 * c for c in colorsys.hsv_to_rgb(hue, (0.7, 0.85)[label // 14 % 2], (0.95, 0.72)[label // 7 % 2]))


def on_square(picture: Image.Image, side: int) -> Image.Image:
    """`picture` resized so that its longer edge has `side` pixels, in the middle of a white square of that size."""
    factor = side / max(picture.size)
    size = [max(1, round(edge * factor)) for edge in picture.size]
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """The picture as uint8 (H, W, 3)."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))):
        raise TypeError(
            f"a picture is a PIL image or a uint8 array (H, W), (H, W, 1) or (H, W, 3); got {array.dtype} {array.shape}"
        )
    if array.ndim == 2:
        array = array[..., None]  # (H, W, 1)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _id_map(ids) -> np.ndarray:
    """The map of ids as an integer (H, W) array on the CPU."""
    array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"a segmentation is an integer map of shape (H, W); got {array.dtype} {array.shape}")
    return array


def _segment_index(panoptic: Mapping, size: tuple[int, int]) -> np.ndarray:
    """The segmentation (H, W) as positions in `segments_info`, counted from 1; 0 is void."""
    segmentation = _id_map(panoptic["segmentation"])
    if segmentation.shape != size:
        raise ValueError(f"the segmentation is {segmentation.shape} (height, width) but the image is {size}")
    positions = {segment["id"]: i for i, segment in enumerate(panoptic["segments_info"], start=1) if segment["id"] != 0}
    ids, inverse = np.unique(segmentation, return_inverse=True)
    table = np.array([positions.get(segment_id, 0) for segment_id in ids.tolist()], dtype=np.int32)
    return table[inverse].reshape(size)  # (H, W)


def _segment_colors(
    segments: Sequence[Mapping],
    label_names: Mapping[int, str] | Sequence[str],
    colors: Sequence[Sequence[int]] | None,
) -> np.ndarray:
    """One RGB colour a segment, float32 (S + 1, 3) with an unused row for void; checks that each label has a name."""
    shades = np.zeros((len(segments) + 1, 3), dtype=np.float32)
    seen: dict[int, int] = {}
    for row, segment in enumerate(segments, start=1):
        label = segment["label_id"]
        known = label in label_names if isinstance(label_names, Mapping) else 0 <= label < len(label_names)
        if not known or (colors is not None and not 0 <= label < len(colors)):
            raise ValueError(f"segment {segment['id']} has the label id {label}, which has no name or no colour")
        instance = seen[label] = seen.get(label, -1) + 1
        shades[row] = _shade(class_color(label, colors), instance)
    return shades


def _shade(color: Sequence[float], instance: int) -> tuple[float, float, float]:
    """The colour of a class's instance number `instance`: the class's own for 0, else slightly off in hue and value."""
    if instance == 0:
        return tuple(color)
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    turn = (instance * 0.61803398875 + 0.5) % 1.0 - 0.5  # equally spread over -0.5 .. 0.5, far from its predecessors
    lift = (instance * 0.41421356237 + 0.5) % 1.0 - 0.5
    value = min(max(value + 0.45 * lift, 0.35), 1.0)
    return tuple(255 * c for c in colorsys.hsv_to_rgb((hue + 0.12 * turn) % 1.0, saturation, value))


def _borders(index: np.ndarray) -> np.ndarray:
    """Bool (H, W): the pixels of segments next to another segment or to void; one or two wide, by the map's size."""
    width = 1 if min(index.shape) < 900 else 2
    window = 2 * width + 1
    low = ndimage.minimum_filter(index, window, mode="nearest")
    high = ndimage.maximum_filter(index, window, mode="nearest")
    return (low != high) & (index > 0)


def _write_labels(canvas: Image.Image, index: np.ndarray, names: Sequence[str]) -> None:
    """Writes each segment's name at its innermost point, large segments first; where there is no free room, none."""
    names = [" ".join(name.split()) for name in names]  # PIL measures single lines only
    font = ImageFont.load_default(size=int(np.clip(min(index.shape) / 28, 10, 48)))
    pen = ImageDraw.Draw(canvas, "RGBA")
    pad = max(2, font.size // 5)
    line = font.size + 2 * pad
    taken: list[tuple[int, int, int, int]] = []
    areas = np.bincount(index.ravel(), minlength=len(names) + 1)[1:]
    boxes = ndimage.find_objects(index, max_label=len(names))
    for segment in np.argsort(-areas, kind="stable"):
        width = int(font.getlength(names[segment])) + 2 * pad
        if areas[segment] < 2 * width * line:  # the label would hide what it names
            continue
        row, column, radius = _pole(index, segment + 1, boxes[segment])
        if 2 * radius < font.size:
            continue
        left = min(max(column - width // 2, 0), canvas.width - width)
        for shift in (0, -line, line):
            middle = min(max(row + shift, line // 2), canvas.height - 1 - line // 2)
            box = (left, middle - line // 2, left + width, middle + line // 2)
            inside = left >= 0 and middle >= line // 2 and index[middle, column] == segment + 1
            if inside and not any(_overlap(box, other) for other in taken):
                pen.rounded_rectangle(box, radius=pad, fill=LABEL_BOX)
                pen.text((left + width / 2, middle), names[segment], fill="white", font=font, anchor="mm")
                taken.append(box)
                break


def _pole(index: np.ndarray, segment: int, box: tuple[slice, slice]) -> tuple[int, int, float]:
    """Row and column of a pixel deep inside the segment, and the greatest distance to the segment's border in pixels.

    Of the pixels nearly as deep as the deepest it is the most central: a long segment is named in its middle.
    """
    mask = index[box] == segment
    step = -(-max(mask.shape) // POLE_GRID)
    mask = np.pad(mask[::step, ::step], 1)  # the frame of the picture is a border too
    distance = ndimage.distance_transform_edt(mask)
    deep = np.argwhere(distance >= 0.9 * distance.max())  # (n, 2)
    row, column = deep[((deep - deep.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    radius = step * float(distance.max())
    return box[0].start + step * max(row - 1, 0), box[1].start + step * max(column - 1, 0), radius


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a point."""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _with_width(tile: Image.Image, width: int) -> Image.Image:
    """The picture resized to a width, its aspect ratio kept; a narrow one in the middle of a tile of that width."""
    highest = TALLEST_TILE * width
    factor = min(width / tile.width, highest / tile.height)
    size = tuple(max(1, round(edge * factor)) for edge in tile.size)
    resized = tile if size == tile.size else tile.resize(size, Image.Resampling.LANCZOS)
    if resized.width == width:
        return resized
    framed = Image.new("RGB", (width, resized.height), "white")
    framed.paste(resized, ((width - resized.width) // 2, 0))
    return framed
