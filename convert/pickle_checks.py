"""What is checked in a pickle's instructions before they are followed: memory and depth that would end the process."""

from __future__ import annotations

import pickle
import pickletools
from typing import IO

DEPTH = 100  # of tuples in tuples: Python hashes them by recursion, without a limit of its own
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


def check_instructions(file: IO[bytes]) -> None:
    """Raises `ValueError` where the next pickle in `file` numbers more objects than it has or nests tuples too deep.

    A number has a table of that size allocated. The position in `file` stays. Raises `pickle.UnpicklingError` for what
    is cut short or no pickle.
    """
    start, count, largest, depths = file.tell(), 0, 0, Depths()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            count += 1
            depths.follow(opcode, argument)
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                largest = max(largest, argument)
    except (ValueError, IndexError) as error:
        raise pickle.UnpicklingError(str(error)) from error
    file.seek(start)
    if largest > count:
        raise ValueError(f"it numbers an object {largest}, and has {count} instructions only")
    if depths.deepest > DEPTH:
        raise ValueError(f"it nests tuples more than {DEPTH} deep; a file of weights never does")


class Depths:
    """How deep the tuples nest: the depth of every object on the stack, and of those that are remembered."""

    def __init__(self):
        self.stack: list[int | None] = []  # None is a mark
        self.memory: dict[int, int] = {}
        self.deepest = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: int | None) -> None:
        """Takes one instruction into account. Raises `IndexError` where the stack lacks what it needs."""
        name, taken = opcode.name, 0
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1] or 0
            return
        if name == "DUP":
            self.stack.append(self.stack[-1])
            return
        if pickletools.markobject in opcode.stack_before:
            while (depth := self.stack.pop()) is not None:
                taken = max(taken, depth)
        for kind in opcode.stack_before:
            if kind not in (pickletools.markobject, pickletools.stackslice):
                taken = max(taken, self.stack.pop() or 0)
        taken += name in TUPLES
        if name in ("GET", "BINGET", "LONG_BINGET"):
            taken = self.memory.get(argument, 0)
        self.deepest = max(self.deepest, taken)
        self.stack += [None if kind is pickletools.markobject else taken for kind in opcode.stack_after]
