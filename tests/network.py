"""A network of the tests' own: processes in network namespaces, each on two cables that the test can cut.

The cable `data` leads to what the replicas share, the database and the object store; the cable `front` to their
clients. A cut cable loses packets in silence, as a partition does: nobody is refused, nobody hears of it. It takes
root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import pytest

Cable = Literal["data", "front"]
CABLES: tuple[Cable, ...] = ("data", "front")
FIRST = 10
"""Last byte of the first place's addresses."""


@dataclass(frozen=True)
class Place:
    """A network namespace."""

    name: str
    addresses: dict[Cable, str]
    """Its own, by cable."""
    ends: dict[Cable, str]
    """The interfaces of this machine at which its cables end."""

    def command(self, *words: str) -> list[str]:
        """Return the command that runs `words` in here, in the process that is started."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self, *cables: Cable) -> None:
        for cable in cables:
            _ip("link", "set", self.ends[cable], "down")

    def mend(self) -> None:
        for end in self.ends.values():
            _ip("link", "set", end, "up")


@dataclass(frozen=True)
class Network:
    """This machine's side of it, and the places that it leads to."""

    here: dict[Cable, str]
    """This machine's addresses, by cable."""
    places: tuple[Place, ...]

    @property
    def data(self) -> str:
        """The addresses on the cables `data`, as `address/bits`."""
        return f"{self.here['data'].rpartition('.')[0]}.0/24"


@contextmanager
def a_network(places: int) -> Iterator[Network]:
    """A network that ends with the block. Its addresses are of those that are set apart for tests (RFC 2544)."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("NO NETWORK NAMESPACES: they take root and iproute2")
    own = os.getpid()
    nets: dict[Cable, str] = {"data": f"198.18.{own % 256}", "front": f"198.19.{own % 256}"}
    bridges: dict[Cable, str] = {cable: f"rm{own}{cable[0]}" for cable in CABLES}
    made = [_planned(own, number, nets) for number in range(places)]
    try:
        for cable in CABLES:
            _ip("link", "add", bridges[cable], "type", "bridge")
            _ip("address", "add", f"{nets[cable]}.1/24", "dev", bridges[cable])
            _ip("link", "set", bridges[cable], "up")
        for place in made:
            _make(place, bridges)
        yield Network({cable: f"{nets[cable]}.1" for cable in CABLES}, tuple(made))
    finally:
        for place in made:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", place.name)
        for bridge in bridges.values():
            with suppress(subprocess.CalledProcessError):
                _ip("link", "delete", bridge)


def _planned(own: int, number: int, nets: dict[Cable, str]) -> Place:
    addresses: dict[Cable, str] = {cable: f"{nets[cable]}.{FIRST + number}" for cable in CABLES}
    ends: dict[Cable, str] = {cable: f"rm{own}{cable[0]}{number}" for cable in CABLES}
    return Place(f"ramify-{own}-{number}", addresses, ends)


def _make(place: Place, bridges: dict[Cable, str]) -> None:
    _ip("netns", "add", place.name)
    _ip("-n", place.name, "link", "set", "lo", "up")
    for cable, end in place.ends.items():
        _ip("link", "add", end, "type", "veth", "peer", "name", cable, "netns", place.name)
        _ip("link", "set", end, "master", bridges[cable], "up")
        _ip("-n", place.name, "address", "add", f"{place.addresses[cable]}/24", "dev", cable)
        _ip("-n", place.name, "link", "set", cable, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)
