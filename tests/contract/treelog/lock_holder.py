"""A process that begins to write to the log at argv[1], tells that it holds the lock, and does nothing more."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from ramify.treelog.store import parse_url, writer_engine
from ramify.treelog.writer import write_transaction


async def main(url: str) -> None:
    async with write_transaction(writer_engine(parse_url(url)), time.time):
        os.write(1, b"held\n")
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
