"""Threads give way to the process that they are of, wherever that stands itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import os, threading
from mixer.priority import lower
os.nice(int({given}))
def run():
    lower({by})
    print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), os.getpriority(os.PRIO_PROCESS, os.getpid()))
thread = threading.Thread(target=run); thread.start(); thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
@pytest.mark.parametrize("given", [0, 3])
def test_a_thread_is_lower_than_its_process_whatever_that_was_started_with(given: int) -> None:
    """Absolute, a server started with ``nice`` would lift its threads above itself, or not be allowed to."""

    def asked(by: int) -> list[int]:
        script = ASK.format(given=given, by=by)
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
        )
        return [int(nice) for nice in ran.stdout.split()]

    thread, process = asked(1)
    assert thread == min(19, process + 1)
    assert asked(30)[0] == 19, "the lowest that there is"
