"""Pickles that pretend to be weights: they would run something, or take the memory or the time of the process."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import torch

from maskformer.convert.pickles import LEGACY_MAGIC

ONE = b"K\0K\1\x85K\1\x85"  # offset, shape and strides of a tensor of one number


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def text(value: str | bytes) -> bytes:
    """An instruction that gives a text."""
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def weights(value: bytes, before: bytes = b"") -> bytes:
    """A pickle of `{"a": value}`, after other instructions."""
    return b"\x80\x04" + before + b"}" + text("a") + value + b"s."


def calls(canary: str) -> dict[str, bytes]:
    """Every instruction that names something or calls it; each would create the file `canary`."""
    command = text(f"touch {canary}")
    line = f"S'touch {canary}'\n".encode()
    state = b"}" + text("__setstate__") + b"cos\nsystem\nsb" + command + b"b"
    legacy = io.BytesIO()
    torch.save({"a": torch.ones(2), "b": Runs(f"touch {canary}")}, legacy, _use_new_zipfile_serialization=False)
    inner = pickle.dumps(Runs(f"touch {canary}"))
    objects = np.array([Runs(f"touch {canary}")], dtype=object)
    return {
        "reduce": weights(b"cos\nsystem\n" + command + b"\x85R"),
        "reduce of protocol 0 within 2": b"\x80\x02" + b"cposix\nsystem\n(" + line + b"tR.",
        "global by the stack": weights(text("os") + text("system") + b"\x93" + command + b"\x85R"),
        "global with dots": weights(text("torch") + text("serialization.os.system") + b"\x93" + command + b"\x85R"),
        "global of the reader's own": weights(b"cmaskformer.convert.pickles\nio.open\n" + command + b"\x85R"),
        "a name with an end of line": weights(text("os") + text("system\nx") + b"\x93" + command + b"\x85R"),
        "inst": weights(b"(" + line + b"ios\nsystem\n"),
        "obj": weights(b"(cos\nsystem\n" + command + b"o"),
        "newobj": weights(b"csubprocess\nPopen\n" + command + b"\x85\x81"),
        "newobj_ex": weights(b"csubprocess\nPopen\n" + command + b"\x85}\x92"),
        "newobj of what is known": weights(b"ccollections\nOrderedDict\n)\x81" + state),
        "state of a known name": weights(b"ccollections\nOrderedDict\nN}" + text("name") + text("x") + b"s\x86b)R"),
        "state that sets a call": weights(b"ccollections\nOrderedDict\n)R" + state),
        "state of a record": weights(b"ctorch._utils\n_rebuild_tensor\n)R" + state),
        "extension": weights(b"\x82\xf1" + command + b"\x85R"),
        "persistent id": weights(b"cos\nsystem\nQ"),
        "persistent id of a tuple": weights(b"(" + text("module") + b"cos\nsystem\n" + command + b"NK\x01tQ"),
        "persistent id of a line": b"\x80\x02Ptouch\n.",
        "pickle in bytes": weights(b"ctorch._utils\n_rebuild_tensor\n(" + in_bytes(inner) + ONE + b"tR"),
        "pickle in bytes in a call": weights(b"cpickle\nloads\nB" + struct.pack("<I", len(inner)) + inner + b"\x85R"),
        "builtins": weights(b"c__builtin__\neval\n" + text(f"open('{canary}', 'w')") + b"\x85R"),
        "getattr": weights(b"cbuiltins\ngetattr\n" + command + text("join") + b"\x86R"),
        "objects in an array": pickle.dumps({"a": objects}),
        "torch zip": torch_zip(torch.ones(2), Runs(f"touch {canary}")),
        "torch legacy": legacy.getvalue(),
        "gzip": gzip.compress(inner),
        "bz2": bz2.compress(inner),
        "compressed zip": torch_zip(None, Runs(f"touch {canary}"), zipfile.ZIP_DEFLATED),
        "after the weights": pickle.dumps({"model": {}}) + inner,
    }


def in_bytes(storage: bytes) -> bytes:
    """A storage in a pickle that torch.save did not write."""
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(storage)) + storage + b"\x85R"


def torch_zip(tensor, other, compression: int | None = None) -> bytes:
    """What torch.save writes, or a zip like it whose entries are compressed."""
    content = io.BytesIO()
    if compression is None:
        torch.save({"a": tensor, "b": other}, content)
        return content.getvalue()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickle.dumps(other) + bytes(1_000_000))
    return content.getvalue()


def array(shape: bytes, raw: bytes = b"C\x04\0\0\0\0", dtype: bytes = text("f4")) -> bytes:
    """A numpy array whose shape, bytes and type are what these instructions give."""
    kind = b"cnumpy\ndtype\n" + dtype + b"\x85R"
    return b"cnumpy.core.numeric\n_frombuffer\n(" + raw + kind + shape + text("C") + b"tR"


def tensor(shape: bytes, strides: bytes, count: bytes) -> bytes:
    """A tensor of a storage that lies elsewhere."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + count + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + strides + b"tR"


def huge(number: int) -> bytes:
    """An instruction that gives a whole number of up to 255 bytes."""
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def stored(pickled: bytes, storage: bytes = bytes(4)) -> bytes:
    """A torch zip of this pickle and one storage."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", storage)
    return content.getvalue()


def doubled(start: bytes, pair: bytes, times: int) -> bytes:
    """Objects that hold the one before twice: the last one is memory number `times`."""
    return start + b"q\0" + b"".join(b"0h%ch%c" % (i, i) + pair + b"q%c" % (i + 1) for i in range(times))


def sizes(scale: int = 1) -> dict[str, bytes]:
    """Small files that ask for much memory, for many steps, or for a deep recursion; `scale` makes them larger."""
    lists = b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    steps = 600 * scale
    through_size = b"]q\0ctorch\nSize\nh\0\x85R" + b"q\1]q\0h\1a0ctorch\nSize\nh\0\x85R" * steps
    legacy = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {}))
    nested = bytes(4)
    for _ in range(100 * scale):
        nested = legacy + b"\x80\x02" + in_bytes(nested) + b".\x80\x02]."
    shared = b"B" + struct.pack("<I", 200_000) + bytes(200_000) + b"q\1"
    many = b"".join(text(f"{i}") + array(huge(50_000) + b"\x85", b"h\1") for i in range(200 * scale))
    key_of_laughs = b"\x80\x02" + doubled(b")", b"\x86", 60) + b"0}h\x3cK\x01s."
    wide = b"".join(huge(i * (2**61 - 1)) + b"N" for i in range(1, 2000 * scale))  # of one hash, all of them
    return {
        "bytes by number": weights(b"cbuiltins\nbytes\n" + huge(1 << 40) + b"\x85R"),
        "bytes by number, less": weights(b"cbuiltins\nbytes\nJ\0\0\0\x7f\x85R"),
        "tuple of bytes": weights(b"ctorch\nSize\n" + shared[:-2] + b"\x85R"),
        "set of a list": weights(b"cbuiltins\nset\n](" + b"K\1" * 9 + b"e\x85R"),
        "one buffer for all": b"\x80\x02" + shared + b"0}(" + many + b"u.",
        "array of a huge shape": weights(array(huge(1 << 62) + b"\x85")),
        "array of lists": weights(array(huge(10**9) + b"](K\0e\x86")),
        "array of long numbers": weights(array(b"(" + huge(1 << 2000) * 300 + b"t")),
        "array of a negative shape": weights(array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86")),
        "array of many dimensions": weights(array(b"(" + b"K\1" * 9999 + b"t")),
        "array of a type of laughs": weights(array(b"K\1\x85", dtype=b"h\x3c"), b"]q\0" + lists + b"0"),
        "array of a shape of laughs": weights(array(b"h\x3c"), b"]q\0" + lists + b"0"),
        "array of a subarray": weights(array(b"K\1\x85", dtype=text("(100000,100000)f8"))),
        "tensor of a huge shape": stored(weights(tensor(huge(1 << 40) + b"\x85", b"K\0\x85", b"K\1"))),
        "storage of a huge count": stored(weights(tensor(b"K\1\x85", b"K\1\x85", huge(1 << 60)))),
        "storage of a count of lists": stored(weights(tensor(b"K\1\x85", b"K\1\x85", b"]"))),
        "legacy storage of a huge count": legacy
        + (b"\x80\x02}" + text("a") + tensor(b"K\1\x85", b"K\1\x85", b"K\1") + b"s.")
        + (b"\x80\x02](" + text("0") + b"e." + struct.pack("<Q", 1 << 36) + bytes(4)),
        "storages in storages": weights(b"ctorch._utils\n_rebuild_tensor_v2\n(" + in_bytes(nested) + ONE + b"tR"),
        "tuples of laughs": key_of_laughs,
        "tuples of laughs, often": b"\x80\x02" + doubled(b")", b"\x86", 18) + b"0}(" + b"h\x12N" * 2000 * scale + b"u.",
        "lists of laughs": b"\x80\x02]q\0" + lists + b"0}" + text("a") + b"h\x3cs.",
        "deep through shapes": b"\x80\x02" + through_size + b"0}h\1K\1s.",
        "deep lists": b"\x80\x02" + b"]" * (1500 * scale) + b"a" * (1500 * scale - 1) + b".",
        "deep dicts": b"\x80\x02" + b"}K\0" * (1500 * scale) + b"N" + b"s" * (1500 * scale) + b".",
        "numbers of one hash": b"\x80\x02}(" + wide + b"u.",
        "marks": b"\x80\x02" + b"(" * (3000 * scale) + b".",
        "a huge memory": b"\x80\x02}r\xff\xff\xff\x7f.",
        "a huge frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 36) + b"}.",
        "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 36) + b"}.",
        "a huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 36) + b"}.",
        "a huge number": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"}.",
        "a long number": b"\x80\x02L" + b"9" * (40_000 * scale) + b"L\n.",
    }


def truncated() -> dict[str, bytes]:
    """Weights that end too early, at many places."""
    plain = pickle.dumps({"model": {"a": np.ones(99, np.float32)}})
    zipped = torch_zip(torch.ones(99), 1)
    cuts = {f"{cut} bytes of a pickle": plain[:cut] for cut in range(2, len(plain), 37)}
    return cuts | {f"{cut} bytes of a zip": zipped[:cut] for cut in range(5, len(zipped), 211)}
