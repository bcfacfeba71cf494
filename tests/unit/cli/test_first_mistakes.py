"""The first mistakes one makes are answered with what to do."""

import http.server
import socket
import subprocess
import sys
import threading

import pytest

from ramify import __version__


def test_the_version_is_printed(ramify):
    assert ramify("--version").output.strip() == f"ramify {__version__}"


def test_python_m_ramify_is_the_command():
    words = [sys.executable, "-m", "ramify", "--version"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == f"ramify {__version__}"


@pytest.mark.parametrize("command", ["ramify", "ramify-trainer"])
def test_a_command_that_is_installed_without_its_extras_names_them(command):
    """As after `pip install ramify`, which brings the client alone."""
    script = f"import sys; sys.modules['typer'] = None; import {command.replace('-', '_')}.cli"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"the {command} command needs the extra")


def test_without_a_command_there_is_help(ramify):
    assert "search" in ramify().output


@pytest.mark.parametrize(
    "command",
    ["serve", "search", "eval", "tune", "bench", "demo", "trees list", "trees show", "releases list"],
)
def test_every_command_has_help(ramify, command):
    result = ramify(*command.split(), "--help")
    assert result.exit_code == 0, result.output


def test_a_wrong_algorithm_is_answered_with_the_nearest(ramify):
    result = ramify("search", "1 2 to 3", "--local", "--algorithm", "mtcs")
    assert result.exit_code == 2
    assert "did you mean 'mcts'" in result.output


def test_settings_that_are_wrong_are_named_by_what_starts_engines_of_its_own(ramify, monkeypatch):
    monkeypatch.setenv("RAMIFY_PORT", "none")
    commands = [("search", "1 2 to 3", "--local"), ("bench", "--no-scaling", "--searches", "1")]
    for result in [ramify(*command) for command in commands]:
        assert result.exit_code == 2
        assert "error: port" in result.output


def test_no_server_is_answered_with_how_to_start_one(ramify):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        result = ramify("search", "1 2 to 3", "--server", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert result.exit_code == 1
    assert "no server answers" in result.output
    assert "serve" in result.output
    assert "--local" in result.output


def test_another_program_on_the_port_is_asked_about(ramify):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        result = ramify("search", "1 2 to 3", "--server", f"http://127.0.0.1:{other.server_port}")
    assert result.exit_code == 1
    assert "answers 501" in result.output
    assert "is it a Ramify server" in result.output


def test_an_address_that_is_none_is_said_to_be_none(ramify):
    result = ramify("search", "1 2 to 3", "--server", "localhost")
    assert result.exit_code == 2
    assert "not the address of a server: 'localhost'; give one such as http://127.0.0.1:8000" in result.output
    assert "base_url" not in result.output


def test_a_taken_port_is_said_before_anything_starts(ramify):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = ramify("serve", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "cannot listen on 127.0.0.1" in result.output
    assert "another program has it" in result.output
    assert "--port" in result.output


def test_a_taken_admin_port_is_answered_with_its_own_flag(ramify):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = ramify("serve", "--port", 0, "--admin-port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "--admin-port" in result.output


def test_a_release_that_is_not_there_is_said_to_be_missing(ramify, tmp_path):
    result = ramify("serve", "--port", 0, "--admin-port", 0, "--release", tmp_path / "none")
    assert result.exit_code == 2
    assert "there is no release at" in result.output


def test_settings_that_cannot_be_are_named(ramify):
    result = ramify("serve", "--value", "somewhere")
    assert result.exit_code == 2
    assert "value" in result.output


def test_a_release_needs_local(ramify, tmp_path):
    result = ramify("search", "1 2 to 3", "--release", tmp_path)
    assert result.exit_code == 2
    assert "--local" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--methods", "mctss"], "did you mean 'mcts'"),
        (["--set", "search.kapa=1"], "kapa"),
        (["--budgets", "many"], "tokens as 300, seconds as 2s"),
        (["--budgets", "0"], "tokens go from 1"),
        (["--data", "countdown:tst"], "unknown split 'tst'"),
        (["--data", "no/such/file.jsonl"], "no such file"),
        (["--resume"], "--out"),
    ],
)
def test_eval_says_what_is_wrong_before_anything_starts(ramify, arguments, complaint):
    result = ramify("eval", *arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.output


def test_a_log_that_is_not_there_is_answered_with_the_flag(ramify, tmp_path):
    result = ramify("trees", "list", "--log", tmp_path / "none.db")
    assert result.exit_code == 1
    assert "there is no log" in result.output
    assert "--log" in result.output


def test_export_wants_a_form_that_it_knows(ramify, tmp_path):
    result = ramify("trees", "export", tmp_path / "trees.csv")
    assert result.exit_code == 2
    assert "--format" in result.output


def test_no_releases_is_answered_with_the_flag(ramify, tmp_path):
    result = ramify("releases", "list", "--root", tmp_path)
    assert result.exit_code == 1
    assert "--root" in result.output


def test_an_unknown_release_is_answered_with_the_list(ramify, tmp_path):
    result = ramify("releases", "show", "v000009", "--root", tmp_path)
    assert result.exit_code == 1
    assert "releases list" in result.output
