"""How much memory this process holds, and giving back what it no longer needs."""

import ctypes
import gc
import os
import sys
from pathlib import Path


def rss() -> int | None:
    """Bytes of memory this process holds, where the system says so (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Have freed memory go to the system; blocks, so call it in a thread.

    glibc keeps what is freed in many places at once, as a swap of models does: without this, 60 swaps of 8 MB models
    were seen to hold 50 MB more than they need.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
