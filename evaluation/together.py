"""Processes that go on together, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from accelerate import Accelerator
from accelerate.utils import gather_object

from maskformer.data.example import BadSample


@contextlib.contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """An error of one process in this block is raised by all of them at its end.

    Else the others would wait for it for ever, in what they exchange next; the block itself exchanges nothing. Errors
    other than `ValueError` and `OSError` are not caught by anybody: they end the process, and its launcher the others.
    """
    error = None
    try:
        yield
    except (ValueError, OSError) as own:
        error = own
    if accelerator.num_processes == 1:
        if error:
            raise error
        return
    found = gather_object([error and (isinstance(error, BadSample), str(error))])
    for failure in found:
        if failure:
            bad_sample, text = failure
            raise (BadSample if bad_sample else ValueError)(text) from error
