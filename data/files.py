"""Files: what they hold, whether they lie inside their folder, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from maskformer.data.nearest import nearest_path


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave an empty file under the new name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, needs: str) -> Any:
    """The content of a JSON file.

    Raises `ValueError`, naming the file, where it is missing (`needs` says what for) or does not parse.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin files with a mark
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; {needs}{nearest_path(path)}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {needs}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def inside(folder: Path, name: str, where: str) -> str:
    """The path of `name` in `folder`. Raises `ValueError`, naming `where`, if it leads out of it.

    Only what the name says counts: files may be links to elsewhere, as they are in the Hub's cache. Plain names are not
    looked up on the disk, since a dataset has a hundred thousand of them.
    """
    path, pure = folder / name, PurePath(name)
    plain = not pure.is_absolute() and ".." not in pure.parts
    if not plain and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: the file {name!r} lies outside of {folder}")
    return str(path)
