"""The Helm chart and what it renders: linted by Helm, held against Kubernetes's schemas and the server's settings."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from front_doors import program
from ramify.api.server import LAST_WORDS
from ramify.service.searches import LET_GO
from ramify.settings import Settings
from ramify.settings.loading import variables
from ramify_trainer.config import LoopConfig

WHY = "NO HELM: install requirements/deploy.lock (make test does)"
helm = pytest.importorskip("helm_python", reason=WHY)
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=WHY)
ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "ramify"
VERSIONS = ("1.28", "1.32", "1.37")
LOOP = {"weights": {"claim": "weights"}, "trainer": {"enabled": True, "claim": "training"}}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "gpus": {"gpus": 2, "replicas": 5, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "releases": {
        "weights": {"claim": "weights"},
        "nodeSelector": {"pool": "gpu"},
        "config": "graders = 4\n",
        "variables": "bucket",
    },
    "open": {
        "front": {"serviceType": "LoadBalancer", "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        "cache": {"storageClass": "fast"},
    },
    "bucket": {"weights": {"size": "80Gi"}, "cache": {"storageClass": "fast"}},
    "loop": {"replicas": 1, **LOOP},
    "fleet": {"replicas": 3, "fleet": "countdown", "front": {"from": [{"podSelector": {}}]}, **LOOP},
}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manifests", ROOT / "scripts" / "manifests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(script().rendered(values)) if found]


def one(kind: str, name: str, values: Mapping[str, Any] = VARIANTS["default"]) -> dict[str, Any]:
    (found,) = (d for d in documents(values) if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def pods(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod specifications, by the name of their one container."""
    specs = [
        d["spec"]["template"]["spec"] for d in documents(values) if d["kind"] in ("StatefulSet", "Deployment")
    ]
    return {spec["containers"][0]["name"]: spec for spec in specs}


def haproxy_configuration(values: Mapping[str, Any]) -> str:
    found: str = one("ConfigMap", "ramify-front", values)["data"]["haproxy.cfg"]
    return found


def lint(chart: Path) -> list[str]:
    report = helm.lint(chart, strict=True)
    return [found["error"] for found in report["messages"] if found["severity"] > 1] + report["errors"]


def test_helm_finds_nothing_and_would(tmp_path: Path) -> None:
    assert lint(CHART) == []
    broken = shutil.copytree(CHART, tmp_path / "ramify")
    (broken / "templates" / "server.yaml").write_text("kind: {{ .Values.replicas | nosuchthing }}\n")
    assert "nosuchthing" in str(lint(broken))


@pytest.mark.parametrize("name", ["ramify.yaml", "loop.yaml"])
def test_the_manifests_are_what_the_chart_renders(name: str) -> None:
    manifests = script()
    wanted = manifests.HEAD.format(name=name) + manifests.rendered(manifests.MANIFESTS[name])
    assert (ROOT / "deploy" / "kubernetes" / name).read_text() == wanted, "run make manifests"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_is_of_kubernetes_schemas(variant: str, version: str) -> None:
    for document in documents(VARIANTS[variant]):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_check_would_notice() -> None:
    server = one("StatefulSet", "ramify")
    server["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(server, VERSIONS[-1], strict=True)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": 257}, "replicas"),
        ({"replica": 2}, "replica"),
        ({"secret": ""}, "secret"),
        ({"front": {"serviceType": "Public"}}, "serviceType"),
        ({"gpus": -1}, "gpus"),
        (
            {"trainer": {"enabled": True, "claim": "training"}, "weights": {"claim": "weights"}},
            "name a fleet",
        ),
        ({"fleet": "two words"}, "fleet"),
        ({"weights": {"claim": "weights", "size": "80Gi"}}, "not both"),
        ({"replicas": 1, "trainer": {"enabled": True}}, "trainer.claim"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: Mapping[str, Any], told: str) -> None:
    with pytest.raises(helm.HelmError, match=told):
        script().rendered(values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_container_has_more_rights_than_it_needs(variant: str) -> None:
    for name, pod in pods(VARIANTS[variant]).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
        assert container["readinessProbe"], name
        assert container["livenessProbe"], name


def test_gpus_are_limits_of_the_server() -> None:
    (server,) = pods(VARIANTS["gpus"])["server"]["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 2
    (server,) = pods({})["server"]["containers"]
    assert "nvidia.com/gpu" not in server["resources"]["limits"]


def test_every_variable_is_one_of_the_servers_settings_and_kubernetes_adds_none() -> None:
    """For a Service named ramify Kubernetes gives pods RAMIFY_PORT=tcp://…, which the server would read."""
    for pod in pods(VARIANTS["fleet"]).values():
        assert pod["enableServiceLinks"] is False
    (server,) = pods(VARIANTS["fleet"])["server"]["containers"]
    assert {variable["name"] for variable in server["env"]} <= {name for name, _, _ in variables()}


def test_secrets_are_files_but_for_the_address_of_the_log() -> None:
    pod = pods({})["server"]
    (server,) = pod["containers"]
    assert [v["name"] for v in server["env"] if "secretKeyRef" in str(v)] == ["RAMIFY_LOG"]
    (files,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
    assert {item["key"] for item in files["items"]} == {"keys.toml", "admin_key"}
    (mounted,) = (m for m in server["volumeMounts"] if m["name"] == "secrets")
    assert mounted["readOnly"] is True
    named = {v["name"]: v["value"] for v in server["env"] if "value" in v}
    for name in ("RAMIFY_AUTH__KEYS_FILE", "RAMIFY_ADMIN__KEY_FILE"):
        assert Path(named[name]).parent == Path(mounted["mountPath"])


def test_times_fit_the_servers_own() -> None:
    pod, settings = pods({"drainSeconds": 100})["server"], Settings()
    (server,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] >= 100 + LET_GO + 2 * LAST_WORDS
    startup, ready = server["startupProbe"], server["readinessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= settings.engine.start_timeout
    assert ready["timeoutSeconds"] > settings.probe.deadline_seconds
    assert (ready["httpGet"]["path"], server["livenessProbe"]["httpGet"]["path"]) == ("/readyz", "/livez")


def test_the_admin_port_is_the_trainers_alone_and_no_service_offers_it_to_people() -> None:
    allowed = one("NetworkPolicy", "ramify-servers")["spec"]["ingress"]
    admin = [rule for rule in allowed if {"port": "admin"} in rule["ports"]]
    components = [
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in admin
        for peer in rule["from"]
    ]
    assert components == ["trainer"]
    assert all("from" in rule for rule in allowed)
    asks = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in allowed[0]["from"]]
    assert asks == ["front", "trainer", "server"]
    assert [port["name"] for port in one("Service", "ramify")["spec"]["ports"]] == ["http"]
    front = one("NetworkPolicy", "ramify-front", VARIANTS["open"])["spec"]["ingress"]
    assert front[0]["from"][:-1] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]


def test_haproxy_is_configured_as_deploys_file_says_for_any_number_of_servers(tmp_path: Path) -> None:
    shipped = (ROOT / "deploy" / "haproxy.cfg").read_text()
    for number in range(2):
        host = f"ramify-{number}.ramify-servers.ramify.svc.cluster.local:8000"
        shipped = shipped.replace(f"replica-{number}:8000", host)
    assert haproxy_configuration({}) == shipped
    many = haproxy_configuration({"replicas": 17})
    assert "str(replica-10) if { path_reg '^/v1/.*[_-][0-9a-f]{30}0a(/|$)' }" in many
    assert "str(replica-16) if { path_reg '^/v1/.*[_-][0-9a-f]{30}10(/|$)' }" in many
    no_names = re.sub(r"ramify-\d+\.\S+:8000", "127.0.0.1:8000", many)  # HAProxy would look each of them up
    (tmp_path / "haproxy.cfg").write_text(no_names)
    command = [program("haproxy"), "-c", "-f", str(tmp_path / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_trainers_file_is_one_that_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text(one("ConfigMap", "ramify-trainer", VARIANTS["loop"])["data"]["trainer.toml"])
    config, pod = LoopConfig.read(path), pods(VARIANTS["loop"])["trainer"]
    (trainer,) = pod["containers"]
    mounts = {mount["mountPath"] for mount in trainer["volumeMounts"]}
    assert {str(config.weights), str(config.state)} <= mounts
    assert config.server.admin_url == "http://ramify-servers:8001"
    assert config.service.host == "0.0.0.0"
    compose = LoopConfig.read(ROOT / "docker/trainer.toml")
    assert config.learning == compose.learning.model_copy(update={"threads": None})
    assert (config.collect.data, config.collect.search) == (compose.collect.data, compose.collect.search)
    (files,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
    assert {item["key"] for item in files["items"]} == {"trainer_key", "admin_key"}


def test_a_fleet_has_one_name_and_each_server_an_address_of_its_own() -> None:
    (server,) = pods(VARIANTS["fleet"])["server"]["containers"]
    names = [variable["name"] for variable in server["env"]]
    value = {variable["name"]: variable.get("value") for variable in server["env"]}
    assert value["RAMIFY_FLEET__NAME"] == "countdown"
    host = "ramify-$(RAMIFY_REPLICA).ramify-servers.ramify.svc.cluster.local:8000"
    assert value["RAMIFY_FLEET__ADDRESS"] == f"http://{host}"
    assert f" {host.replace('$(RAMIFY_REPLICA)', '2')} " in haproxy_configuration(VARIANTS["fleet"])
    # Kubernetes puts in only what stands above.
    assert names.index("RAMIFY_REPLICA") < names.index("RAMIFY_FLEET__ADDRESS")
    assert "FLEET" not in str(pods({}))


def test_the_trainer_of_a_fleet_searches_through_the_front_door_which_lets_it_in(tmp_path: Path) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text(one("ConfigMap", "ramify-trainer", VARIANTS["fleet"])["data"]["trainer.toml"])
    server = LoopConfig.read(path).server
    assert (server.url, server.admin_url) == ("http://ramify", "http://ramify-servers:8001")
    (rule,) = one("NetworkPolicy", "ramify-front", VARIANTS["fleet"])["spec"]["ingress"]
    assert [peer["podSelector"] for peer in rule["from"]][-1]["matchLabels"].items() >= {
        ("app.kubernetes.io/component", "trainer")
    }


def test_releases_of_a_bucket_have_a_disk_that_the_server_writes() -> None:
    pod = pods(VARIANTS["bucket"])["server"]
    (server,) = pod["containers"]
    (mounted,) = (m for m in server["volumeMounts"] if m["name"] == "weights")
    assert "readOnly" not in mounted
    assert {"name": "RAMIFY_WEIGHTS", "value": mounted["mountPath"]} in server["env"]
    claims = one("StatefulSet", "ramify", VARIANTS["bucket"])["spec"]["volumeClaimTemplates"]
    (claim,) = (claim["spec"] for claim in claims if claim["metadata"]["name"] == "weights")
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("80Gi", "fast")


def test_the_servers_file_is_one_that_it_reads() -> None:
    file = one("ConfigMap", "ramify-server", VARIANTS["releases"])["data"]["server.toml"]
    assert Settings(**tomllib.loads(file)).graders == 4
