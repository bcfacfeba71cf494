"""A process to be killed: appends trees to the log at argv[1] for ever, telling each id once it is
acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys

from ramify.treelog import TreeLog
from treelog_trees import make_tree


async def main(url: str) -> None:
    log = await TreeLog.open(url)

    async def client() -> None:
        while True:
            tree = make_tree(20)
            seq = await log.append(tree)
            os.write(1, f"{seq} {tree.id}\n".encode())

    await asyncio.gather(*(client() for _ in range(16)))


asyncio.run(main(sys.argv[1]))
