"""Compose and Docker files, without an engine: lint, schema, and what must not drift."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from ramify.settings import load
from ramify.settings.loading import variables
from ramify_trainer.config import LoopConfig

ROOT = Path(__file__).parents[3]
FLEET = "docker/compose.fleet.yaml"
COMPOSE = ["compose.yaml", "docker/compose.code.yaml", FLEET, "docker/compose.gpu.yaml"]
FRONT_PORT = 8080
DOCKERFILES = ["docker/Dockerfile", "docker/gpu.Dockerfile"]
OURS = ("secrets", "server", "trainer")
HARDENED = (*OURS, "replica", "front", "objects")
NOT_THE_SERVERS = {"RAMIFY_PUBLISH", "RAMIFY_SECRETS", "RAMIFY_SERVER_CONFIG", "RAMIFY_TRAINER_CONFIG"} | {
    "RAMIFY_PROMETHEUS_PUBLISH",
    "RAMIFY_GRAFANA_PUBLISH",
    "RAMIFY_FRONT_PUBLISH",
    "RAMIFY_GPU",
}
"""Variables that compose reads and no program of ours does."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def services(name: str = "compose.yaml") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(read(name))["services"]
    return found


def tool(*command: str) -> subprocess.CompletedProcess[str]:
    """One of the tools beside this Python."""
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def interpolated() -> dict[str, set[str]]:
    """Variables of the compose files, and their defaults."""
    found: dict[str, set[str]] = {}
    for name in COMPOSE:
        for variable, default in re.findall(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}", read(name)):
            found.setdefault(variable, set()).add(default)
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = tool("hadolint", "--no-color", name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_are_of_the_specification(name: str) -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", name)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_would_notice(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(read("compose.yaml").replace("read_only: true", "read_onl: true", 1))
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong))
    assert "read_onl" in done.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_use_nothing_that_older_versions_lack(name: str) -> None:
    assert "name" not in yaml.safe_load(read(name))
    assert not re.search(r"!reset|!override|required:|\binclude:|:\+", read(name))


def test_every_image_has_a_version_or_is_built_here() -> None:
    for name, service in services().items():
        assert "build" in service or re.search(r":\D*\d", service["image"]), name


@pytest.mark.parametrize("name", HARDENED)
def test_our_containers_have_no_more_rights_than_they_need(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_the_sandbox_of_code_gets_namespaces_and_nothing_else() -> None:
    """Without the overlay no container may make one; with it, none has a capability, and root's calls stay refused."""
    for name, service in services("docker/compose.code.yaml").items():
        assert name in ("server", "trainer")
        assert service.keys() == {"security_opt"}
        assert service["security_opt"] == ["seccomp:docker/seccomp-bubblewrap.json", "apparmor:unconfined"]
    (refused,) = json.loads(read("docker/seccomp-bubblewrap.json"))["syscalls"]
    assert refused["action"] == "SCMP_ACT_ERRNO"
    assert not {"clone", "unshare", "mount", "umount2", "pivot_root", "seccomp"} & set(refused["names"])
    assert {"ptrace", "bpf", "keyctl", "kexec_load", "init_module", "reboot"} <= set(refused["names"])
    for name in DOCKERFILES:
        assert "bubblewrap" in read(name)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_image_ends_as_a_user_that_is_not_root(name: str) -> None:
    stages = re.split(r"^FROM ", read(name), flags=re.MULTILINE)[1:]
    final = [stage for stage in stages if "\nCMD " in stage]
    assert len(final) >= 2
    for stage in final:
        assert re.findall(r"^USER (.*)", stage, re.MULTILINE)[-1:] == ["10001:10001"], stage


def test_only_the_public_listener_is_published() -> None:
    published = {name: s["ports"] for name, s in services().items() if "ports" in s}
    assert published.pop("server") == ["${RAMIFY_PUBLISH:-127.0.0.1:8000}:8000"]
    assert published.pop("replica") == []
    assert set(published) == {"prometheus", "grafana", "front"}
    assert all(":-127.0.0.1:" in port for ports in published.values() for port in ports)
    assert "ports" not in read("docker/compose.gpu.yaml")


def test_the_server_only_reads_weights_and_secrets() -> None:
    server, trainer = services()["server"]["volumes"], services()["trainer"]["volumes"]
    assert "weights:/var/lib/ramify/weights:ro" in server
    assert "weights:/var/lib/ramify/weights" in trainer
    for mounts in (server, trainer):
        assert [m for m in mounts if "/run/secrets" in m] == ["${RAMIFY_SECRETS:-secrets}:/run/secrets:ro"]


def test_the_trainer_starts_after_a_ready_server_and_the_server_after_its_secrets() -> None:
    assert services()["trainer"]["depends_on"]["server"] == {"condition": "service_healthy"}
    assert services()["server"]["depends_on"]["secrets"] == {"condition": "service_completed_successfully"}
    for name in ("server", "trainer"):
        assert "/readyz" in services()[name]["healthcheck"]["test"][-1]


def test_without_a_profile_only_our_own_containers_run() -> None:
    assert {name for name, s in services().items() if "profiles" not in s} == set(OURS)
    profiles = {name: s["profiles"] for name, s in services().items() if "profiles" in s}
    assert profiles == {
        "postgres": ["postgres", "fleet"],
        "replica": ["fleet"],
        "front": ["fleet"],
        "objects": ["fleet"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


def test_the_second_server_of_the_fleet_is_the_first_but_for_its_number_and_its_cache() -> None:
    first, second = services()["server"], services()["replica"]
    apart = {"profiles", "environment", "networks", "ports", "volumes"}
    assert {k: v for k, v in first.items() if k not in apart} == {
        k: v for k, v in second.items() if k not in apart
    }
    own = {"RAMIFY_REPLICA": 1, "RAMIFY_FLEET__ADDRESS": "http://replica-1:8000"}
    assert second["environment"] == {**first["environment"], **own}
    assert first["environment"]["RAMIFY_FLEET__ADDRESS"] == "http://replica-0:8000"
    assert not [mount for mount in second["volumes"] if mount.startswith(("log:", "cache:"))]
    asked = set(re.findall(r"server (replica-\d) (replica-\d):8000", read("deploy/haproxy.cfg")))
    aliases = [service["networks"]["default"]["aliases"] for service in (first, second)]
    assert asked == {(alias, alias) for (alias,) in aliases}
    assert [service["environment"]["RAMIFY_REPLICA"] for service in (first, second)] == [0, 1]


def test_the_fleets_settings_make_two_servers_one_on_postgres_and_the_s3_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = services(FLEET)["server"], services(FLEET)["replica"]
    assert first["environment"] == second["environment"]
    weights = {"RAMIFY_WEIGHTS": services()["server"]["environment"]["RAMIFY_WEIGHTS"]}
    for variable, value in {**first["environment"], **weights}.items():
        monkeypatch.setenv(variable, value)
    settings = load(ROOT / "docker/server.toml")
    assert settings.fleet.name == "ramify"
    (log,) = (d for d in re.findall(r"^#RAMIFY_LOG=(postgresql.*)$", read(".env.example"), re.MULTILINE))
    assert settings.log == services(FLEET)["postgres"]["environment"]["RAMIFY_LOG"] == log
    assert urlsplit(settings.objects.trees or "").netloc == "ramify"
    assert f"http://objects{services()['objects']['environment']['VGW_PORT']}" == settings.objects.endpoint
    for server, own in ((first, "weights-0"), (second, "weights-1")):
        assert server["volumes"] == [f"{own}:{settings.weights}"]
        assert {"postgres", "objects"} == set(server["depends_on"])
        assert all("healthcheck" in services()[name] for name in server["depends_on"])


def test_the_fleets_trainer_is_the_other_one_but_for_the_front_door_and_the_store() -> None:
    alone, fleet = (LoopConfig.read(ROOT / f"docker/trainer{kind}.toml") for kind in ("", ".fleet"))
    given = services(FLEET)["server"]["environment"]
    assert fleet.server.url == f"http://front:{FRONT_PORT}"
    assert f":{FRONT_PORT}" in services()["front"]["ports"][0]
    assert fleet.objects.releases == given["RAMIFY_OBJECTS__RELEASES"]
    assert fleet.objects.endpoint == given["RAMIFY_OBJECTS__ENDPOINT"]
    same = {"server": fleet.server.model_copy(update={"url": alone.server.url}), "objects": alone.objects}
    assert fleet.model_copy(update=same) == alone
    assert "${RAMIFY_TRAINER_CONFIG:-./docker/trainer.fleet.toml}" in services(FLEET)["trainer"]["volumes"][0]


def test_the_s3_server_and_those_that_use_it_are_given_one_key_and_a_bucket(tmp_path: Path) -> None:
    key = "it's $HOME of `a` key"  # whatever people may write into a file of their own
    objects = f"export AWS_ACCESS_KEY_ID=ramify AWS_SECRET_ACCESS_KEY={shlex.quote(key)}\n"
    (tmp_path / "objects.env").write_text(objects)
    for name, shown in (
        ("versitygw", "ROOT_SECRET_ACCESS_KEY"),
        ("ramify", "AWS_SECRET_ACCESS_KEY"),
        ("ramify-trainer", "AWS_SECRET_ACCESS_KEY"),
    ):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$1 ${shown}"\n')
        program.chmod(0o755)
    said = {
        "objects": services()["objects"]["entrypoint"],
        "server": services(FLEET)["server"]["command"],
        "trainer": services(FLEET)["trainer"]["command"],
    }
    assert {name: _shell(command, tmp_path) for name, command in said.items()} == {
        "objects": f"posix {key}\n",
        "server": f"serve {key}\n",
        "trainer": f"run {key}\n",
    }
    assert (tmp_path / "objects" / "ramify").is_dir()


def _shell(command: list[str], folder: Path) -> str:
    """Run a container's command with `folder` in place of its folders; return what it wrote."""
    shell, flag, script = command
    script = script.replace("$$", "$").replace("/run/secrets", str(folder))
    script = script.replace(" /objects", f" {folder}/objects")
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(
        [f"/bin/{shell}", flag, script], env=path, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize("log", ["", "sqlite:///trees.db", "postgresql://me@elsewhere/trees"])
def test_postgres_that_the_server_would_not_use_says_what_to_set(log: str) -> None:
    done = _postgres(log, Path("/nowhere"))
    assert done.returncode == 2
    assert "set RAMIFY_LOG=postgresql://ramify@postgres/ramify in .env" in done.stderr


def test_postgres_that_the_server_uses_starts(tmp_path: Path) -> None:
    program = tmp_path / "docker-entrypoint.sh"
    program.write_text('#!/bin/sh\necho "starting $1"\n')
    program.chmod(0o755)
    (log,) = (d for d in re.findall(r"^#RAMIFY_LOG=(postgresql.*)$", read(".env.example"), re.MULTILINE))
    assert _postgres(log, tmp_path).stdout == "starting postgres\n"


def _postgres(log: str, programs: Path) -> subprocess.CompletedProcess[str]:
    """The entry point of the container, where the image's own would lie in `programs`."""
    shell, flag, script = services()["postgres"]["entrypoint"]
    return subprocess.run(
        [f"/bin/{shell}", flag, script.replace("$$", "$")],
        env={"PATH": str(programs), "RAMIFY_LOG": log},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_env_example_names_every_variable_with_its_default_and_no_other() -> None:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", read(".env.example"), re.MULTILINE)
    shown: dict[str, set[str]] = {}
    for variable, value in lines:
        shown.setdefault(variable, set()).add(value)
    assert set(shown) - {"COMPOSE_PROFILES", "COMPOSE_FILE"} == set(interpolated())
    for variable, defaults in interpolated().items():
        if variable != "RAMIFY_SECRETS":  # whose default is a volume, which nobody would write down
            assert defaults - {""} <= shown[variable], variable


def test_env_example_changes_nothing_as_it_stands() -> None:
    assert re.findall(r"^[^#\n].*", read(".env.example"), re.MULTILINE) == []


@pytest.mark.parametrize("name", COMPOSE)
def test_every_setting_that_compose_gives_is_one_of_the_servers(name: str) -> None:
    known = {variable for variable, _, _ in variables()}
    given = set(services(name)["server"].get("environment", {})) - {"PGPASSFILE"}
    assert given <= known
    assert set(interpolated()) <= known | NOT_THE_SERVERS


def test_the_shipped_server_configuration_loads() -> None:
    assert load(ROOT / "docker/server.toml").host == "127.0.0.1"


def test_the_shipped_trainer_configuration_fits_the_containers() -> None:
    config = LoopConfig.read(ROOT / "docker/trainer.toml")
    mounts = services()["trainer"]["volumes"]
    assert f"weights:{config.weights}" in mounts
    assert f"training:{config.state}" in mounts
    assert config.server.url == "http://server:8000"
    assert config.server.admin_url == "http://server:8001"
    assert (config.service.host, config.service.port) == ("0.0.0.0", 8002)


@pytest.mark.parametrize("name", ["trainer.toml", "trainer.fleet.toml"])
def test_the_shipped_trainers_learn_by_the_recipe_of_make_loop(name: str) -> None:
    config = LoopConfig.read(ROOT / "docker" / name)
    demo = LoopConfig.read(ROOT / "trainer/ramify_trainer/configs/loop.toml")
    assert config.learning == demo.learning.model_copy(update={"precision": "fp32"})
    assert config.collect == demo.collect.model_copy(update={"concurrency": config.collect.concurrency})


def test_the_image_takes_torch_as_the_makefile_does() -> None:
    for name in ("TORCH", "TORCH_INDEX"):
        (wanted,) = re.findall(rf"^{name} := (\S+)", read("Makefile"), re.MULTILINE)
        assert f"ARG {name}={wanted}\n" in read("docker/Dockerfile")


def test_everything_that_is_copied_is_let_through_to_the_engine() -> None:
    allowed = re.findall(r"^!(.*)", read(".dockerignore"), re.MULTILINE)
    assert read(".dockerignore").splitlines()[1] == "*"
    for name in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", read(name), re.MULTILINE):
            for source in sources.split():
                assert (ROOT / source).exists()
                assert any(source == a or source.startswith(f"{a}/") for a in allowed), source
