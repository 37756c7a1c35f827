"""Files: what they hold, whether they lie inside their folder, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from maskformer.data.nearest import nearest_path

NO_NAME = re.compile("[\0\ud800-\udfff]")  # the end of a name to the system, and halves of characters


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class DiskFull(OSError):
    """There was no room to write something; the message names it."""


@contextlib.contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Makes a `DiskFull` that names `path` of an error in the block that comes from a full disk."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or not is_of_full_disk(error):
            raise
        there = next(parent for parent in path.parents if parent.exists())
        free = shutil.disk_usage(there).free / 1e6
        text = f"{path}: cannot be written, the disk is full; make room: {free:.1f} MB are free, which is too little"
        raise DiskFull(text) from error


def is_of_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk, or a full quota, is behind `error`; safetensors says so in words, torch in the context."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or f"(os error {errno.ENOSPC})" in str(error) or f"(os error {errno.EDQUOT})" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends without an error.

    Raises `DiskFull`, naming `path`, where there is no room for it.
    """
    temporary = path.with_name(f".{path.name}.new")
    with naming_full_disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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


def inside(folder: Path, name: str, where: str, field: str = "") -> str:
    """The path of `name` in `folder`. Raises `ValueError`, naming `where` and the `field`, if it leads out of it.

    Windows' slashes count on any system, and characters that no name of a file has are refused too, as are links to a
    file elsewhere. The folder itself may be one, and files may be links to `blobs`, as they are in the Hub's cache.
    """
    of_field = f" ({field})" if field else ""
    if NO_NAME.search(name):
        raise ValueError(f"{where}: the file {name!r} holds a character that no name of a file has{of_field}")
    plain = not PurePath(name).anchor and ".." not in PureWindowsPath(name).parts
    if not plain and not (folder / name.replace("\\", "/")).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: the file {name!r} lies outside of {folder}{of_field}")
    target = linked(folder, name)
    if target is not None and not target.is_relative_to(folder.resolve()) and target.parent.name != "blobs":
        raise ValueError(
            f"{where}: the file {name!r} is a link to {target}, outside of {folder}{of_field}; copy it there, or make"
            " the folder itself a link"
        )
    return str(folder / name)


def linked(folder: Path, name: str) -> Path | None:
    """The existing file where links on the way from `folder` to `name` lead; None if there is no link."""
    path = str(folder)
    for part in PurePath(name).parts:
        path = os.path.join(path, part)
        if os.path.islink(path):
            target = (folder / name).resolve()
            return target if target.exists() else None  # a broken one is a missing file
    return None
