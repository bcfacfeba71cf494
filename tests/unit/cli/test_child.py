import io
import socket

import pytest
from rich.console import Console

from ramify.cli.child import NotServing, free_port, serving


def test_a_server_that_cannot_start_is_said_with_its_own_words(tmp_path):
    console = Console(file=io.StringIO())
    flags = ["--release", str(tmp_path / "v000009")]
    complaint = pytest.raises(NotServing, match=r"there is no release at .*v000009")
    with complaint, serving(flags, tmp_path / "server.log", console):
        raise AssertionError("it cannot be ready")


def test_a_free_port_can_be_taken():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
