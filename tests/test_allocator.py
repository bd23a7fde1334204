import platform
import subprocess
import sys

import pytest

from metalearn import keep_large_blocks

SCRIPT = """
import resource, torch
from metalearn import keep_large_blocks
assert {setting}
x = torch.ones(4, 1024, 1024)
warm = x + 1
del warm
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting):
    """Count the page faults of ten tensors of 16 MiB, which have 40,960 pages, in a process of
    their own."""
    command = [sys.executable, "-c", SCRIPT.format(setting=setting)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is set")
def test_large_tensors_stay_without_page_faults():
    # Of 40,960 otherwise; one more block, of 4,096 pages, may be needed once.
    assert page_faults("keep_large_blocks()") < 2 * 4096


def test_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_large_blocks()
