"""Programs that tests start, and end by their process."""

from __future__ import annotations

import subprocess
from typing import Any, Final

END_S: Final = 5.0  # from SIGTERM to SIGKILL


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL when that is not heard; it is gone afterwards. One that has ended is left alone."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
