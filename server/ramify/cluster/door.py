"""The front door: HAProxy before every replica of a fleet, found in the fleet's own rows.

HAProxy does here what it does as deploy/haproxy.cfg configures it; `tests/unit/cluster/test_door.py` holds the two
together. It has a place for each number that a replica may have. `changes` tells it, over its socket, which are taken
and where; it asks each for its health itself, so a replica gets requests once HAProxy has seen it ready, and none a
second after it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from ramify.cluster.file import DoorTable
from ramify.fleet import View
from ramify.fleet.decisions import NUMBERS, live
from ramify.settings import Settings

TEMPLATE = Path(__file__).with_name("haproxy.cfg")
EACH = "server replica-$NUMBER"
"""Begins the lines of the template that are repeated for every number."""
ROOM = 1024
"""Bytes that are added to a head."""
SLACK = 10
"""Seconds that an answer may take beyond what its server allows itself."""
BACKENDS = ("servers", "sessions", "continued", "owner")
"""Those that lead to a replica's public listener."""
STATED = ("servers", "owner", "operators")
"""Those whose servers have a state of their own; the others' follow `servers`."""
ANSWER = 10.0
"""Seconds that HAProxy may take to do as it is told."""


@dataclass(frozen=True, slots=True)
class Place:
    """The addresses of a replica."""

    address: str
    """Address of its public listener, as http://host:port."""
    admin: str | None


def configuration(door: DoorTable, settings: Settings, socket: Path) -> str:
    """Return HAProxy's configuration. settings: the servers'. socket: takes its commands."""
    answer = settings.limits.deadline_seconds + settings.spool.wait_seconds + SLACK
    names = {
        "HEAD_BYTES": settings.connections.head_bytes + ROOM,
        "BODY_BYTES": settings.limits.body_bytes,
        "ANSWER_SECONDS": f"{answer:.0f}s",
        "SOCKET": socket,
        "HOST": f"[{door.host}]" if ":" in door.host else door.host,
        "PORT": door.port,
        "ADMIN_PORT": door.admin_port,
    }
    lines = []
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        if line.strip() == "$SESSION":
            lines += [f"    {rule}" for rule in session_rules(door)]
        elif line.strip().startswith(EACH):
            lines += [line.replace("$NUMBER", f"{number:02x}") for number in range(NUMBERS)]
        elif line.startswith("#") or "regsub" in line or "path_reg" in line:
            lines.append(line)  # their $ is of a regular expression
        else:
            lines.append(Template(line).substitute(names))
    return "\n".join(lines) + "\n"


def session_rules(door: DoorTable) -> list[str]:
    """Return the rules that find what leads requests to one replica: the first header that is there, else a prompt."""
    unless = "unless { var(txn.session) -m found }"
    rules = [f"http-request set-var(txn.session) req.hdr({name}) {unless}" for name in door.session_headers]
    if door.prompt_head:
        head = f"bytes(0,{door.prompt_head})"
        message = "req.body,json_query('$.messages[{}].content')," + head
        rules += [
            "option http-buffer-request",
            f"http-request set-var(txn.session) req.body,json_query('$.prompt'),{head} {unless}",
            f"http-request set-var(txn.second) {message.format(1)}",
            f"http-request set-var(txn.session) {message.format(0)},concat(,txn.second) {unless}",
        ]
    return rules


def places(view: View) -> dict[int, Place]:
    """Return the places of the live replicas, by number; of two with one number, the one started last. Those at an
    address that HAProxy does not take are left out."""
    rows = sorted((row for row in live(view) if _target(row.address)), key=lambda row: row.started_at)
    return {row.number: Place(row.address, row.admin) for row in rows if row.number is not None}


def passed_over(view: View) -> list[str]:
    """Return the addresses of the live replicas that HAProxy cannot be led to."""
    return sorted(row.address for row in live(view) if not _target(row.address))


def changes(before: Mapping[int, Place], after: Mapping[int, Place]) -> list[list[str]]:
    """Return the commands that take HAProxy from one set of replicas to another, those of one replica together."""
    gone = [number for number, place in before.items() if after.get(number) != place]
    come = [number for number, place in after.items() if before.get(number) != place]
    return [list(_closing(number)) for number in gone] + [
        list(_opening(number, after[number])) for number in come
    ]


def _closing(number: int) -> Iterable[str]:
    for backend in STATED:
        yield f"set server {backend}/replica-{number:02x} state maint"


def _opening(number: int, place: Place) -> Iterable[str]:
    for backend in BACKENDS:
        yield f"set server {backend}/replica-{number:02x} addr {_target(place.address)}"
    admin = _target(place.admin or "")
    if admin is not None:
        yield f"set server operators/replica-{number:02x} addr {admin}"
    # Out of maintenance it would count as ready until it has been asked; one that drains gets nothing meanwhile.
    yield f"set server servers/replica-{number:02x} state drain"
    yield f"set server servers/replica-{number:02x} health down"
    for backend in STATED:
        if backend != "operators" or admin is not None:
            yield f"set server {backend}/replica-{number:02x} state ready"


def _target(url: str) -> str | None:
    """Return an address as HAProxy takes it: an IP address and a port; `None` if it is something else."""
    try:
        parts = urlsplit(url)
        return f"{ip_address(parts.hostname or '')} port {parts.port}" if parts.port else None
    except ValueError:
        return None


async def tell(socket: Path, commands: Iterable[str]) -> str:
    """Have HAProxy do as it is told; return what it says to that. Raises `OSError`, `TimeoutError`."""
    async with asyncio.timeout(ANSWER):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(f"{'; '.join(commands)}\n".encode())
            await writer.drain()
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()
