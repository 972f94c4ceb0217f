"""How the C library gives memory back: large messages come and go, and should not cost fresh pages each time."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_LARGEST_BYTES = 32 << 20  # above any message; the most that it takes
_KEPT_BYTES = 64 << 20
_STEP_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """Let the process keep up to 64 MiB that it has freed, for what it needs next.

    By default the C library gives large buffers back to the system at once, and the next one of the same size is
    zeroed by the kernel page by page: for messages of some hundred kilobytes that is half of what receiving them costs.
    Does nothing where there is no GNU C library.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (
            (_M_MMAP_THRESHOLD, _LARGEST_BYTES),
            (_M_TRIM_THRESHOLD, _KEPT_BYTES),
            (_M_TOP_PAD, _STEP_BYTES),
        ):
            mallopt(parameter, value)
