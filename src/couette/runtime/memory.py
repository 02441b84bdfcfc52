"""The processor's memory: what has been freed is kept, for the next map of the same size."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_TRIM, _MAP = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h."""

_LARGEST = 2**31 - 1, 2**25
"""From how many bytes on a block is always mapped by itself: what `mallopt` takes at most, and what
older C libraries do."""

_OTHERS = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
"""Where somebody has said how memory is to be kept."""


@cache
def keep_freed() -> bool:
    """Have the C library keep the memory that is freed, for good; whether it does.

    Each large feature map is otherwise given back to the system when it is freed, and the next one
    is mapped anew, zeroed page by page as it is first touched: with layers that only pass over
    memory, that takes longer than they do. Blocks beyond 2 GiB (32 MiB in older C libraries) still
    are. Nothing is done where another allocator or another setting was asked for (`mallopt(3)`), or
    where the C library is not glibc.
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in _OTHERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not any(mallopt(_MAP, size) for size in _LARGEST):
        return False
    return bool(mallopt(_TRIM, -1))
