"""Puts pictures side by side.

    python docs/side_by_side.py docs/images/nuclei.png a.png b.png

writes them at their own size, or `--height` pixels high.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageOps

GAP = 8  # white pixels between two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--height", type=int, help="of every picture, in pixels; by default its own")
    arguments = parser.parse_args()
    pictures = [Image.open(path).convert("RGB") for path in arguments.pictures]
    if arguments.height is not None:
        pictures = [ImageOps.contain(picture, (10 * picture.width, arguments.height)) for picture in pictures]
    width = sum(picture.width + GAP for picture in pictures) - GAP
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    sheet.save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
