"""Who waits when the cores are busy: the loop's thread goes first, since it keeps the 20 ms of the sound.

Linux schedules threads one by one and lets anyone lower their own: no privilege is needed. With nine decoders,
the canvas and the loop on two cores, the loop was kept waiting for 10 to 20 ms several times a second, and now
and then missed a tick; a late picture is shown one frame later, a late sound is a click.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

CANVAS_NICE: Final = 5
DECODE_NICE: Final = 10  # below the canvas: a tick with last frame's picture beats no tick
LOWEST: Final = 19  # nice(2)


def lower(nice: int) -> None:
    """Lower the calling thread's priority by ``nice`` (1 to 19), below that of the process whose thread it is.

    Nothing happens where threads have none.
    """
    if sys.platform == "linux":
        # from where the process is: one that was started with `nice` may not take that back, and others shall wait
        given = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(LOWEST, given + nice))
