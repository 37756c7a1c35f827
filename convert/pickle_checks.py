"""What is checked in a pickle's instructions before they are followed: what would end the process, or never end."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from typing import IO

DEPTH = 100  # of tuples in tuples: Python hashes them by recursion, without a limit of its own
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
HASHING = ("SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "BINPERSID")
EXTENSIONS = ("EXT1", "EXT2", "EXT4")
WORK = 10  # objects that are hashed for each instruction, at most
LITTLE = 100_000  # objects that are hashed in no time


def check_instructions(file: IO[bytes]) -> None:
    """Raises `ValueError` where following the next pickle in `file` could take the process with it.

    That is where it numbers more objects than it has, as a number has a table of that size allocated; where it nests
    tuples too deep; where tuples that hold one another several times would be hashed for ages; and where it asks for
    an object by a number of `copyreg`, which no table of names has. The position in `file` stays. Raises
    `pickle.UnpicklingError` for what is cut short or no pickle.
    """
    start, count, largest, extension, tuples = file.tell(), 0, 0, None, Tuples()
    try:
        for opcode, argument in instructions(file):
            count += 1
            extension = argument if opcode.name in EXTENSIONS else extension
            tuples.follow(opcode, argument)
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                largest = max(largest, argument)
    except (ValueError, IndexError) as error:
        raise pickle.UnpicklingError(str(error)) from error
    file.seek(start)
    if extension is not None:
        raise ValueError(f"refused, because it asks for an object by its extension code {extension}, not by a name")
    if largest > count:
        raise ValueError(f"it numbers an object {largest}, and has {count} instructions only")
    if tuples.deepest > DEPTH:
        raise ValueError(f"it nests tuples more than {DEPTH} deep; a file of weights never does")
    if tuples.hashed > WORK * count + LITTLE:
        raise ValueError("its tuples hold one another so often that they could not be told apart in time")


def instructions(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """Each instruction and its argument. Raises `ValueError` where one claims more bytes than the file has."""
    whole = Whole(file)
    for opcode, argument, _ in pickletools.genops(whole):
        if opcode.name == "FRAME" and argument > whole.left():
            raise ValueError("a frame is longer than what is left of the file")
        yield opcode, argument


class Whole:
    """A file that allocates no more than it holds, whatever number of bytes it is asked for."""

    def __init__(self, file: IO[bytes]):
        start = file.tell()
        self.file, self.end = file, file.seek(0, 2)
        self.tell, self.readline = file.tell, file.readline
        file.seek(start)

    def left(self) -> int:
        """The bytes from here to the end."""
        return self.end - self.file.tell()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, or those that are left."""
        return self.file.read(count if count < 1 << 16 else min(count, self.left()))


class Tuples:
    """How deep tuples nest and how many objects they hold, one that is there twice counted twice.

    Known of every object on the stack and of those that are remembered, as (depth, objects); anything but a tuple is
    one object, and a number beyond 64 bits is many, as it takes time too. `hashed` is how many are looked at where
    keys and members of sets are hashed.
    """

    def __init__(self):
        self.stack: list[tuple[int, int] | None] = []  # None is a mark
        self.memory: dict[int, tuple[int, int]] = {}
        self.deepest = self.hashed = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: int | None) -> None:
        """Takes one instruction into account. Raises `IndexError` where the stack lacks what it needs."""
        name, taken = opcode.name, []
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1] or (0, 1)
            return
        if name == "DUP":
            self.stack.append(self.stack[-1])
            return
        below = opcode.stack_before
        if pickletools.markobject in below:
            while (entry := self.stack.pop()) is not None:
                taken.append(entry)
            below = below[: below.index(pickletools.markobject)]
        taken += [self.stack.pop() or (0, 1) for _ in below]
        depth = max((depth for depth, _ in taken), default=0) + (name in TUPLES)
        size = 1 + sum(size for _, size in taken)
        if name in HASHING:
            self.hashed += size
        made = (depth, size if name in TUPLES else 1)
        if isinstance(argument, int):
            made = (depth, 1 + 1000 * (argument.bit_length() >> 6))
        if name in ("GET", "BINGET", "LONG_BINGET"):
            made = self.memory.get(argument, (0, 1))
        self.deepest = max(self.deepest, made[0])
        self.stack += [None if kind is pickletools.markobject else made for kind in opcode.stack_after]
