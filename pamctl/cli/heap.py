"""How the C library treats memory that a command frees."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 << 20


def keep_freed_memory(most_bytes: int) -> None:
    """Use freed memory again instead of giving it back to the system and asking for it anew.

    A merge frees the arrays of one module and asks for those of the next, and a page that the system clears
    first costs several times what reading it takes. Elsewhere than on glibc nothing changes.

    Args:
        most_bytes: what may be kept.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, min(most_bytes, 2**31 - 1))
    mallopt(_ARENA_MAX, 1)  # what one thread frees another can use
