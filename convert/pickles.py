"""A reader of pickled weights that runs nothing: a pickle can only describe arrays, tensors and plain containers.

What a pickle asks to be called is looked up in the table `READERS`; nothing is imported by its name, and numpy's and
torch's own functions are never handed to it. A call becomes a `Record`, and records of arrays become tensors later.
"""

from __future__ import annotations

import io
import math
import pickle
import reprlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch

from maskformer.convert.pickle_checks import Whole, check_instructions

MOST_DIMENSIONS = 64  # of arrays, as numpy has it
EXPANDED = 2**16  # numbers of a tensor that repeats its storage, at most
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first number in files of `torch.save` before version 1.6
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


class Record:
    """Something that a pickle describes: the name of a call, its arguments, and the state that is set afterwards."""

    __slots__ = ("name", "arguments", "state")

    def __init__(self, name: str, arguments: tuple):
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Name:
    """One of the names that a pickle may use; calling it gives a record, or a plain value."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        return PLAIN[self.name](*arguments) if self.name in PLAIN else Record(self.name, arguments)


class PlainDict(dict):
    """A dict; attributes that a pickle sets on it, such as `_metadata` of a state dict, are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def make_dict(content: dict | list | None = None) -> dict:
    """A dict of a mapping, which it is, or of a list of pairs, which is emptied: copies could fill the memory.

    Raises `ValueError` for anything else, and for keys of a list that are no text.
    """
    if isinstance(content, dict):
        return content
    pairs = [] if content is None else content
    if not isinstance(pairs, list) or not all(isinstance(name, str) for name, _ in pairs):
        raise ValueError("a dict is made of something else than names and their values")
    made = PlainDict(pairs)
    pairs.clear()
    return made


def make_bytes(*content: Any) -> bytes:
    """No bytes, which protocol 2 writes as this call. Raises `ValueError` for a number, which would give that many."""
    if content:
        raise ValueError("it asks for bytes that are not in the file")
    return b""


def make_size(numbers: tuple | list) -> tuple[int, ...]:
    """A shape. Raises `ValueError` unless it is a few whole numbers, none of them negative or beyond 64 bits."""
    fine = isinstance(numbers, tuple | list) and len(numbers) <= MOST_DIMENSIONS
    if not fine or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError(f"a shape is at most {MOST_DIMENSIONS} whole numbers, not {reprlib.repr(numbers)}")
    return tuple(numbers)


PLAIN: dict[str, Callable] = {
    "collections.OrderedDict": make_dict,
    "collections.Counter": make_dict,
    "builtins.bytes": make_bytes,
    "_codecs.encode": lambda text, encoding: text,  # how protocol 2 writes bytes; encoded where they are needed
    "torch.Size": make_size,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Admits the names of `PLAIN` and `READERS`, and torch's storages; `references` are the storages by their keys."""

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.references: dict[str, Record] = {}

    def find_class(self, module: str, name: str) -> Name:
        """The stand-in for `module.name`. Raises `ValueError` for anything that weights do not need."""
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.").replace("__builtin__.", "builtins.")
        storage = module in ("torch", "torch.storage") and name in STORAGES
        if not (storage or full in PLAIN or full in READERS or full == "numpy.ndarray"):
            raise ValueError(
                f"refused, because it asks for {module}.{name}; a file of weights needs arrays, tensors and plain"
                " containers only"
            )
        return Name(full)

    def persistent_load(self, reference: Any) -> Record:
        """The record of a storage, `("storage", type, key, device, count[, view])`, whose bytes lie elsewhere."""
        if not isinstance(reference, tuple) or len(reference) < 5:
            raise ValueError("it refers to something outside of the pickle that is no storage of a tensor")
        kind, storage_type, key, _, count, *view = reference
        if kind != "storage" or not isinstance(storage_type, Name) or (view and view[0] is not None):
            raise ValueError("it refers to something outside of the pickle that is no storage of a tensor")
        if type(count) is not int or not isinstance(key, str):
            raise ValueError(f"a storage has a name and a count of numbers, not {reprlib.repr((key, count))}")
        dtype = STORAGES[storage_type.name.rpartition(".")[2]]
        return self.references.setdefault(key, Record("storage", (dtype, key, count)))


def load_pickle(file: IO[bytes]) -> Any:
    """The next pickle in `file`, with records in place of arrays. Python 2's text is read as Latin-1."""
    check_instructions(file)
    return RestrictedUnpickler(file, encoding="latin1").load()


class Storages:
    """The bytes of a file's storages, as flat tensors; read when they are needed, and once.

    `tensors` are those that were made of records, so that a record that is there twice is one tensor.
    """

    def __init__(self, read: Callable[[str], bytes]):
        self.read, self.loaded, self.tensors = read, {}, {}

    def get(self, record: Record) -> torch.Tensor:
        """The storage of `record`, 1-dimensional."""
        if record.name == "torch.storage._load_from_bytes":  # a tensor inside a pickle that `torch.save` did not write
            if record not in self.loaded:
                content, storages = load_legacy(io.BytesIO(*map(as_bytes, record.arguments)))
                if not isinstance(content, Record) or content.name != "storage":
                    raise ValueError("the bytes of a storage hold something else")
                self.loaded[record] = storages.get(content)
            return self.loaded[record]
        dtype, key, count = record.arguments
        if key not in self.loaded:
            raw = self.read(key)
            if len(raw) < count * dtype.itemsize:
                raise ValueError(f"the storage {key!r} is cut short")
            self.loaded[key] = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self.loaded[key]


def as_tensor(value: Any, storages: Storages) -> torch.Tensor:
    """The tensor that `value`, a record of a pickle, describes.

    Raises `ValueError` where it describes none.
    """
    if not isinstance(value, Record) or READERS.get(value.name) is None:
        kind = value.name if isinstance(value, Record) else type(value).__name__
        raise ValueError(f"it holds {kind} where an array or tensor was expected")
    if value not in storages.tensors:
        storages.tensors[value] = READERS[value.name](value, storages)
    return storages.tensors[value]


def as_bytes(raw: Any) -> bytes:
    """Bytes, which Python 2 and protocol 2 have as text. Raises `ValueError` for anything else."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(raw, bytes | bytearray):
        raise ValueError(f"bytes are needed, not {type(raw).__name__}")
    return raw


def read_dtype(record: Record) -> np.dtype:
    """The type of an array. Raises `ValueError` for anything but numbers, above all for Python objects."""
    name = record.arguments[0] if isinstance(record, Record) and record.name == "numpy.dtype" else None
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in "biufc":
        raise ValueError(f"arrays of numbers are read only, not of {reprlib.repr(name)}")
    return dtype.newbyteorder(record.state[1]) if record.state else dtype


def make_array(raw: Any, dtype: np.dtype, shape: tuple, order: str = "C") -> torch.Tensor:
    """The tensor of the bytes `raw`."""
    raw, shape = as_bytes(raw), make_size(shape)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} does not have the bytes it needs")
    array = np.ndarray(shape, dtype, buffer=bytearray(raw), order=order)
    return torch.from_numpy(np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape))


def read_array(record: Record, storages: Storages) -> torch.Tensor:
    """An array whose content is set as state: (version, shape, dtype, whether in Fortran's order, bytes)."""
    _, shape, dtype, fortran, raw = record.state
    return make_array(raw, read_dtype(dtype), shape, "F" if fortran else "C")


def read_buffer(record: Record, storages: Storages) -> torch.Tensor:
    """An array of protocol 5."""
    raw, dtype, shape, order = record.arguments
    return make_array(raw, read_dtype(dtype), shape, order)


def read_scalar(record: Record, storages: Storages) -> torch.Tensor:
    """A number of numpy's, as a tensor without dimensions."""
    dtype, raw = record.arguments
    return make_array(raw, read_dtype(dtype), ())


def read_tensor(record: Record, storages: Storages) -> torch.Tensor:
    """A tensor: (storage, offset, shape, strides, ...)."""
    storage, offset, shape, strides = record.arguments[:4]
    flat, shape = storages.get(storage), make_size(shape)
    if math.prod(shape) > max(len(flat), EXPANDED):
        raise ValueError(f"a tensor of shape {shape} is made of {len(flat)} numbers only, which is out of bounds")
    return flat.as_strided(shape, strides, offset)


def read_parameter(record: Record, storages: Storages) -> torch.Tensor:
    """The tensor inside a parameter."""
    return as_tensor(record.arguments[0], storages)


READERS: dict[str, Callable[[Record, Storages], torch.Tensor] | None] = {
    "numpy.core.multiarray._reconstruct": read_array,
    "numpy.core.numeric._frombuffer": read_buffer,
    "numpy.core.multiarray.scalar": read_scalar,
    "torch._utils._rebuild_tensor": read_tensor,
    "torch._utils._rebuild_tensor_v2": read_tensor,
    "torch._utils._rebuild_parameter": read_parameter,
    # Parts of those, and what stands beside weights in a training checkpoint.
    "builtins.set": None,
    "numpy.dtype": None,
    "torch.storage._load_from_bytes": None,
}


def load_legacy(file: IO[bytes]) -> tuple[Any, Storages]:
    """What `torch.save` wrote before version 1.6: magic number, version, system, content, keys of storages, bytes."""
    if load_pickle(file) != LEGACY_MAGIC:
        raise ValueError("it is no file of torch.save")
    load_pickle(file), load_pickle(file)
    unpickler = RestrictedUnpickler(file, encoding="latin1")
    check_instructions(file)
    content, raw, whole = unpickler.load(), {}, Whole(file)
    for key in load_pickle(file):
        dtype, _, _ = unpickler.references[key].arguments
        size = int.from_bytes(file.read(8), "little") * dtype.itemsize
        raw[key] = whole.read(size)
        if len(raw[key]) < size:
            raise ValueError(f"the storage {key!r} is cut short")
    return content, Storages(raw.__getitem__)
