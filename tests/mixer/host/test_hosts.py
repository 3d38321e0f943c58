"""Both room hosts against the one contract."""

from __future__ import annotations

import os
import signal

from mixer.host.process import ProcessHost
from tests.contracts.room_host import check_room_host
from tests.fakes.host import MemoryHost


async def test_the_host_in_memory_keeps_the_contract() -> None:
    host = MemoryHost()
    await check_room_host(host, host.kill)


async def test_the_process_host_keeps_the_contract() -> None:
    host = ProcessHost()
    await host.start()
    await check_room_host(host, lambda room: os.kill(host.pids()[room], signal.SIGKILL))
    assert host.pids() == {}
