"""Memory that was freed is used again."""

import platform
import subprocess
import sys

BODIES = """
import resource
from runtime import memory
kept = memory.keep_freed() if {keeps} else False
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    whole = b"".join((b"x" * 700_000, b"y" * 700_000))
    del whole
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def faults(keeps: bool) -> tuple[bool, int]:
    """Whether it could be said, and the pages asked of the kernel for 200 bodies of 1.4 MB."""
    argv = [sys.executable, "-c", BODIES.format(keeps=keeps)]
    kept, count = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return kept == "True", int(count)


def test_large_bodies_ask_the_kernel_for_their_pages_once() -> None:
    is_glibc = platform.libc_ver()[0] == "glibc"
    told, few = faults(keeps=True)
    assert told == is_glibc
    assert not is_glibc or few < 4000 < faults(keeps=False)[1]
