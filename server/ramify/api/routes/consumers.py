"""Readers of the log: a cursor each, moved by compare-and-set on its ETag, and a lease against a second reader."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from ramify.api import wire_trees as wire
from ramify.api.context import CallerDep, ContextDep
from ramify.api.scopes import ScopedRoute, needs
from ramify.service.errors import BadRequest, ServiceError
from ramify.treelog import BadCursor, ConsumerConflict

router = APIRouter(route_class=ScopedRoute, tags=["consumers"])
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match", max_length=40, description="The ETag last seen; absent to register a new consumer."
    ),
]


@router.get("/v1/consumers", response_model=wire.ConsumerList)
@needs("log")
async def consumers(context: ContextDep) -> wire.ConsumerList:
    """Every registered reader, by name. Retention deletes nothing that one of them has still to read."""
    high_water = await context.log.high_water()
    return wire.ConsumerList(data=[wire.consumer_of(c, high_water) for c in await context.log.consumers()])


@router.get("/v1/consumers/{name}", response_model=wire.ConsumerReply)
@needs("log")
async def consumer(name: Name, context: ContextDep, response: Response) -> wire.ConsumerReply:
    """A reader's cursor and lease; the ETag is what PUT wants in `If-Match`."""
    found = await context.log.get_consumer(name)
    if found is None:
        raise ServiceError("not_found", f"no consumer {name!r}; PUT registers it", param="name")
    response.headers["ETag"] = f'"{found.version}"'
    return wire.consumer_of(found, await context.log.high_water())


@router.put("/v1/consumers/{name}", response_model=wire.ConsumerReply)
@needs("log")
async def put(
    name: Name,
    body: wire.ConsumerPut,
    context: ContextDep,
    caller: CallerDep,
    response: Response,
    if_match: IfMatch = None,
) -> wire.ConsumerReply:
    """Register a reader, move its cursor, take, renew or give back its lease. 409 if somebody else was faster or
    holds the lease, which is its owner's and its API key's."""
    try:
        found = await context.log.put_consumer(
            name,
            version=_version(if_match),
            cursor=body.cursor,
            owner=body.owner,
            lease_seconds=body.lease_seconds,
            rewind=body.rewind,
            key_id=caller.key_id,
        )
    except ConsumerConflict as error:
        raise ServiceError(error.code, str(error)) from error
    except BadCursor as error:
        raise BadRequest(str(error), param="cursor") from error
    response.headers["ETag"] = f'"{found.version}"'
    return wire.consumer_of(found, await context.log.high_water())


@router.delete("/v1/consumers/{name}", response_model=wire.ConsumerDeleted)
@needs("log")
async def delete(name: Name, context: ContextDep) -> wire.ConsumerDeleted:
    """Forget a reader that is gone, so that retention waits for it no longer. 409 while it is leased."""
    try:
        known = await context.log.delete_consumer(name)
    except ConsumerConflict as error:
        raise ServiceError(error.code, str(error)) from error
    if not known:
        raise ServiceError("not_found", f"no consumer {name!r}", param="name")
    return wire.ConsumerDeleted(name=name)


def _version(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    tag = re.fullmatch(r'(?:W/)?"?(\d{1,18})"?', if_match.strip())
    if tag is None:
        raise BadRequest('must be an ETag as GET sends it, such as "3"', param="If-Match")
    return int(tag[1])
