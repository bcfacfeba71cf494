"""A process to be killed: opens the log at argv[1] and forks a child that lives until stdin ends."""

from __future__ import annotations

import asyncio
import os
import sys

from ramify.treelog import TreeLog


async def main(url: str) -> None:
    log = await TreeLog.open(url)
    if os.fork() == 0:
        os.write(1, b"child is up\n")
        os.read(0, 1)
        os._exit(0)
    await asyncio.Event().wait()
    await log.close()


asyncio.run(main(sys.argv[1]))
