"""One setting of the C library's allocator, for models with large activations on the CPU."""

import ctypes
import platform

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1


def keep_large_blocks() -> bool:
    """Make glibc's malloc keep large blocks of memory that are freed, for the rest of the process.

    By default it gives them back to the system at once, and every large tensor begins with a page
    fault for each 4 kB of it: up to half of the time that a convolution under `vmap` takes on a
    CPU. The price is that memory, once used, stays with the process. jemalloc and tcmalloc,
    preloaded by LD_PRELOAD, do much the same by themselves.

    Returns:
        Whether the setting was made: False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: 2**26}
    return all(mallopt(what, value) == 1 for what, value in settings.items())
