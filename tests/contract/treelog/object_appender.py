"""A process that ends itself, as a kill would, at a point between an object and its row: argv[1] is the log, argv[2]
the store, argv[3] the point. It first appends a tree, and writes that one's id.

Points: `before_object`, `after_object` and `after_row` of a second tree; `after_rows_gone`, of its deletion.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from ramify.objects import Folder, ObjectOptions
from ramify.treelog import TreeLog
from ramify.treelog.bodies import MARK
from treelog_trees import make_tree


def end(*_: Any) -> None:
    os.kill(os.getpid(), 9)


async def main(url: str, store: str, point: str) -> None:
    log = await TreeLog.open(url, objects=ObjectOptions(trees=store))
    first, second = make_tree(), make_tree()
    await log.append(first)
    os.write(1, f"{first.id}\n".encode())
    create = Folder.create

    def create_and_end(self: Folder, name: str, data: bytes) -> bool:
        made = create(self, name, data)
        if name != MARK:
            end()
        return made

    if point == "before_object":
        Folder.create = end  # type: ignore[method-assign, assignment]
    elif point == "after_object":
        Folder.create = create_and_end  # type: ignore[method-assign]
    await log.append(second)
    if point == "after_row":
        end()
    Folder.remove = end  # type: ignore[method-assign, assignment]
    await log.delete(second.id)


asyncio.run(main(*sys.argv[1:]))
