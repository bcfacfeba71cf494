"""The fleet file: what it says of each replica, and refusals that name the field and the limit."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fake_process import free_port
from ramify.cli import app
from ramify.cluster.file import read_plan
from ramify.cluster.front import DoorLaunch
from ramify.cluster.server import Launch
from ramify.settings import BadSettings

LOG = "postgresql://ramify@db/ramify"
SMALLEST = f"""
name = "countdown"
[server]
log = "{LOG}"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_a_replica_has_the_files_settings_and_an_address_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{SMALLEST}drain_seconds = 7\nweights = "weights"\n[server.limits]\npage = 5\n[replicas]\nmin = 2'
    monkeypatch.setenv("RAMIFY_LIMITS__PAGE", "9")
    monkeypatch.setenv("RAMIFY_ADMIN__KEY", "an-admin-key-of-the-tests")
    plan = read_plan(written(tmp_path, text))
    assert (plan.file.replicas.min, plan.file.replicas.most) == (2, 2)
    assert (plan.settings.fleet.name, plan.settings.limits.page) == ("countdown", 9)
    launch = Launch.of(plan)
    assert (launch.folder, launch.drain_seconds) == (str(tmp_path), 7)
    monkeypatch.setenv("RAMIFY_LOG_LEVEL", "debug")  # of the node's environment, which is not the fleet's
    found = {
        name: value for name, value in launch.environment("10.0.0.1").items() if name.startswith("RAMIFY_")
    }
    assert found == {
        "RAMIFY_LOG": LOG,
        "RAMIFY_DRAIN_SECONDS": "7",
        "RAMIFY_WEIGHTS": "weights",
        "RAMIFY_LIMITS": '{"page": 5}',
        "RAMIFY_LIMITS__PAGE": "9",
        "RAMIFY_ADMIN__KEY": "an-admin-key-of-the-tests",
        "RAMIFY_FLEET": '{"name": "countdown"}',
        "RAMIFY_HOST": "10.0.0.1",
        "RAMIFY_PORT": "0",
        "RAMIFY_ADMIN__HOST": "10.0.0.1",
        "RAMIFY_ADMIN__PORT": "0",
    }


def test_the_servers_settings_may_be_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(f'log = "{LOG}"\n[fleet]\nlease_seconds = 5')
    plan = read_plan(written(tmp_path, 'name = "countdown"\nserver = "server.toml"'))
    assert (plan.settings.log, plan.settings.fleet.name, plan.settings.fleet.lease_seconds) == (
        LOG,
        "countdown",
        5,
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[replicas]\nmin = 0", "replicas.min: Input should be greater than or equal to 1"),
        ("[replicas]\nmin = 201", "replicas.min: Input should be less than or equal to 200"),
        ("[replicas]\nmin = 4\nmax = 3", "replicas: max is 3 and min 4: max must not be below it"),
        ("[replicas]\nmax = 3", "replicas: tokens and a max above min go together"),
        ("[replicas]\ntokens = 100", "replicas: tokens and a max above min go together"),
        ("[replicas]\ncpus = inf", "replicas.cpus: Input should be a finite number"),
        ("[replicas]\ngpu = 1", "replicas.gpu: Extra inputs are not permitted"),
        ('[door]\nhost = "0.0.0.0"', "door.host: without API keys only loopback addresses are served, not 0.0.0.0"),
        ("[door]\nport = 8001", "door: port, admin_port and metrics_port must differ"),
        ('[door]\nsession_headers = ["X Id"]', "door.session_headers.0: String should match pattern"),
        ('[door]\nhost = "a b"', "door.host: String should match pattern"),
        ('[ray]\naddress = "auto"\ncpus = 2', "ray: cpus and gpus are of a cluster on this machine"),
        ("[server.limits]\npag = 5", "server: limits.pag"),
        ("[server.fleet]\nlease_seconds = 0.1", "server: fleet.lease_seconds"),
        ('[server.fleet]\nname = "other"', "server.fleet.name is for the fleet to decide: it is the fleet file's name"),
        ("[server.admin]\nport = 9", "server.admin.port is for the fleet to decide"),
        ("[serve]\nport = 9", "serve: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(BadSettings) as refused:
        read_plan(written(tmp_path, f"{SMALLEST}{more}"))
    assert said in str(refused.value)
    assert "fleet.toml" in str(refused.value)


def test_a_fleet_may_not_be_called_as_anothers_door(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="name: must not end in -door"):
        read_plan(written(tmp_path, SMALLEST.replace('"countdown"', '"countdown-door"')))


def test_with_keys_in_a_file_beside_it_the_door_may_have_any_address(tmp_path: Path) -> None:
    path = written(tmp_path, f'{SMALLEST}[server.auth]\nkeys_file = "keys.toml"\n[door]\nhost = "0.0.0.0"')
    (tmp_path / "keys.toml").write_text('[[keys]]\nname = "alice"\nkey = "alice-alice-alice"')
    plan = read_plan(path)
    assert (plan.keyed, plan.admin_keyed) == (True, False)
    (tmp_path / "keys.toml").write_text("")
    with pytest.raises(BadSettings, match=r"door\.host: without API keys"):
        read_plan(path)


def test_a_door_is_started_anew_only_for_what_it_is_made_of(tmp_path: Path) -> None:
    def made(more: str) -> str:
        return repr(DoorLaunch.of(read_plan(written(tmp_path, f"{SMALLEST}{more}"))))

    same = ("[server.admission]\nsearches = 8", "[replicas]\nmin = 4", "[server.engine]\ncompile = false")
    others = ("[server.limits]\nbody_bytes = 4096", "drain_seconds = 3", "[door]\nmetrics_port = 9")
    assert {made(more) for more in same} == {made("")}
    assert made("") not in {made(more) for more in others}


def test_a_setting_that_the_fleet_decides_is_refused_from_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMIFY_REPLICA", "3")
    with pytest.raises(BadSettings, match=r"server\.replica is for the fleet to decide"):
        read_plan(written(tmp_path, SMALLEST))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("RAMIFY_ADMIN", '{"port": 9}', "server.admin.port is for the fleet to decide"),
        ("RAMIFY_FLEET", '{"name": "other"}', "RAMIFY_FLEET is a table that the fleet has too"),
        ("RAMIFY_LIMITS", '{"page": 9}', "give its fields, as RAMIFY_LIMITS__FIELD"),
    ],
)
def test_a_table_in_a_variable_gets_past_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as refused:
        read_plan(written(tmp_path, f"{SMALLEST}[server.limits]\npage = 5"))
    assert said in str(refused.value)


def test_a_door_is_told_no_key_of_the_servers(tmp_path: Path) -> None:
    keys = '[[server.auth.keys]]\nname = "alice"\nkey = "alice-alice-alice"'
    admin = '[server.admin]\nkey = "an-admin-key-of-all"'
    launch = DoorLaunch.of(read_plan(written(tmp_path, f"{SMALLEST}{keys}\n{admin}")))
    told = pickle.dumps(launch)
    assert b"postgresql://ramify@db/ramify" in told
    assert not any(secret in told for secret in (b"alice", b"admin-key", b"sha256"))


def test_the_command_says_what_is_wrong_with_the_file_and_what_to_install_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = CliRunner().invoke(app, ["fleet", "up", "--config", str(written(tmp_path, 'name = "a b"'))])
    assert wrong.exit_code == 2
    assert "name: String should match pattern" in " ".join(wrong.output.split())
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ramify.cluster.deployment", raising=False)
    bare = CliRunner().invoke(app, ["fleet", "up", "--config", str(written(tmp_path, SMALLEST))])
    assert bare.exit_code == 2
    assert "a fleet on Ray needs the extra fleet" in " ".join(bare.output.split())


def test_a_status_for_programs_asks_the_fleet_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ramify.cluster.deployment", raising=False)
    port = free_port()
    config = str(written(tmp_path, f"{SMALLEST}[door]\nadmin_port = {port}"))
    asked = CliRunner().invoke(app, ["fleet", "status", "--config", config, "--json"])
    assert asked.exit_code != 0
    assert f"127.0.0.1:{port}" in " ".join(asked.output.split())


def test_a_fleet_needs_a_log_on_postgresql(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"server: fleet\.name: replicas share a log on PostgreSQL"):
        read_plan(written(tmp_path, 'name = "a"\n[server]\nlog = "trees.db"'))
