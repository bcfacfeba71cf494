"""A PostgreSQL of the tests' own: a fresh cluster on a Unix socket, fsync on, gone when the session ends.

Import `postgres_server` into a conftest to use it. PostgreSQL refuses to run as root, so a root's cluster
runs as `postgres` or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

SUPERUSER = "ramify"


class PostgresServer:
    """A running cluster."""

    def __init__(self, binaries: Path, folder: Path, user: str | None, address: str, network: str) -> None:
        self._binaries = binaries
        self.folder = folder
        self._user = user
        self._address = address
        self._network = network

    def start(self) -> None:
        self._run("initdb", "-D", self._data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync")
        if self._network:
            with (self.folder / "data" / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {self._network} trust\n")
        self.go_on()

    def go_on(self) -> None:
        """Start the cluster that is there, also after a `stop` or `kill`."""
        sockets = f"-c listen_addresses={self._address} -c unix_socket_directories={self.folder}"
        options = f"{sockets} -c fsync=on"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def kill(self) -> None:
        """kill -9 of all its processes."""
        server = psutil.Process(self.pid)
        everyone = [server, *server.children(recursive=True)]
        for process in everyone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(everyone, timeout=60)
        assert not alive

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def database(self) -> str:
        """The URL of the cluster's one database, emptied: making a new one for each test takes far longer."""
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname = "
        empty = [f"{others} current_database()", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
        commands = [word for statement in empty for word in ("-c", statement)]
        self._run("psql", "-q", "-h", str(self.folder), "-U", SUPERUSER, *commands, "postgres")
        return f"postgresql://{SUPERUSER}@/postgres?host={self.folder}"

    @property
    def pid(self) -> int:
        """Return the process whose children serve the connections."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        # pg_ctl's server inherits stdout, so output goes to a file: a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._binaries / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._user,
                cwd=self.folder,
                timeout=60,
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read().decode(errors='replace')}"


def find_binaries() -> Path | None:
    """The folder that holds `initdb`, newest version first; `PATH` has the say."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]), reverse=True
    )
    return versions[0].parent if versions else None


def _unprivileged() -> str | None:
    """Whom to run as; `None` is ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@contextmanager
def a_postgres(binaries: Path, address: str = "", network: str = "") -> Iterator[PostgresServer]:
    """A running cluster, which ends with the block. address: one that it listens on beside its socket, for the
    addresses of `network`."""
    user = _unprivileged()
    # Not pytest's folder: another user must reach it, and a socket's path is at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ramify-pg-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    server = PostgresServer(binaries, folder, user, address, network)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(
            "NO POSTGRESQL: initdb is neither on PATH nor in /usr/lib/postgresql/*/bin; install postgresql"
        )
    with a_postgres(binaries) as server:
        yield server
