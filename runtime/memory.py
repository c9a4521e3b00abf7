"""What the C library does with memory that was freed.

glibc gives each block of over 128 kB, such as the body of a request with a picture, pages of its own, which the kernel fills
with zeros, and gives them back at once. Of a request with 1 MB that was a good part of its time.
"""

import ctypes

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Of ``mallopt(3)``."""
BLOCK_BYTES = 32 * 1024 * 1024
"""Larger blocks have pages of their own; the most that glibc takes for it."""
KEPT_BYTES = 64 * 1024 * 1024
"""Of freed memory at the end of the heap so much is kept for later."""


def keep_freed() -> bool:
    """Let the C library use freed blocks again instead of giving them back. False: it is another than glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, BLOCK_BYTES) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))
