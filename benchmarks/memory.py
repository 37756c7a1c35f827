"""How much memory something takes at most, beyond what is there before it.

On a GPU PyTorch's allocator knows it. On a CPU it does not, so the kernel is asked (Linux only): the high-water mark of
resident memory is reset, and malloc is told to give every large block pages of its own, which return to the kernel when
a tensor is freed. Resident memory is then that of living tensors and of operators' scratch space.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch

M_MMAP_THRESHOLD = -3  # of glibc's mallopt
LARGE_BLOCK = 2**20


def peak_memory(run: Callable[[], object], device: str) -> int | None:
    """Bytes that `run` takes at most; None where they cannot be told."""
    return resident_peak(run) if torch.device(device).type == "cpu" else cuda_peak(run)


def cuda_peak(run) -> int:
    """Bytes that PyTorch's allocator held at most during `run`, beyond those before."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def resident_peak(run) -> int | None:
    """Bytes of resident memory that `run` took at most, beyond those before; None where the kernel does not tell."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        library.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = resident("VmRSS")
        run()
        return resident("VmHWM") - before
    except (OSError, AttributeError, TypeError):  # no Linux, or no glibc
        return None


def resident(field: str) -> int:
    """Bytes, of a `field` of /proc/self/status."""
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
