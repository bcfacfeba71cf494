"""Prometheus and Grafana: every target is a container of ours, every metric on the dashboard one that is served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ramify.service.metrics import Metrics as ServerMetrics
from ramify.settings import Settings
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.config import LoopConfig
from ramify_trainer.learning.config import Figure
from ramify_trainer.loop.rounds import Loop
from ramify_trainer.loop.state import RoundRecord, State
from ramify_trainer.probes import Health
from ramify_trainer.probes import Metrics as TrainerMetrics

DOCKER = Path(__file__).parents[3] / "docker"
DASHBOARD: dict[str, Any] = json.loads((DOCKER / "grafana/dashboards/ramify.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
GAUGES = {
    "searches_running",
    "completions_running",
    "searches_waiting",
    "reserved_tokens",
    "log_queue_depth",
    "log_spooled_searches",
    "log_trees",
    "log_bytes",
    "log_oldest_seconds",
}
"""Metrics of the server that `ramify.api.context` makes as it puts the parts together."""
ENGINE = {
    f"{role}_{what}" for role in ("policy", "value") for what in ("running", "waiting", "kv_usage", "steps")
}


def names(text: bytes) -> set[str]:
    """Names of all samples; an empty family is named by its declaration."""
    found = set()
    for family in text_string_to_metric_families(text.decode()):
        found |= {sample.name for sample in family.samples} | {family.name}
        if family.type == "counter":
            found.add(f"{family.name}_total")
        if family.type == "histogram":
            found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return found


@pytest.fixture
async def served(tmp_path: Path) -> set[str]:
    """Names of every metric of server and trainer."""
    return names(ServerMetrics().text()) | _of_assembly() | names(await _of_trainer(tmp_path))


def _of_assembly() -> set[str]:
    return {f"ramify_{name}" for name in GAUGES} | {f"ramify_engine_{name}" for name in ENGINE}


async def _of_trainer(folder: Path) -> bytes:
    config = LoopConfig(state=folder / "state")
    async with AsyncClient("http://127.0.0.1:1") as client, AsyncAdmin("http://127.0.0.1:1") as admin:
        loop = Loop(config, client, admin, lambda *_: None)
        loop.state = State.begin("loop", "v000001")
        loop.state.current = RoundRecord(
            round=1, training={"policy/kl": 0.1}, gate={"greedy": 0.5, "mean_at_k": 0.4}
        )
        loop.progress.entered("collect")
        return TrainerMetrics(Health(loop, config.service.stall_seconds)).text()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_every_metric_on_the_dashboard_is_served(served: set[str]) -> None:
    shown = {name for query in QUERIES for name in re.findall(r"\bramify_\w+", query)}
    assert len(shown) >= 25
    assert shown - served == set()


@pytest.mark.anyio
async def test_every_figure_of_the_server_and_the_trainer_is_on_the_dashboard_or_left_out_on_purpose(
    served: set[str],
) -> None:
    shown = " ".join(QUERIES)
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in served}
    missing = {name for name in families if name.startswith("ramify_") and name not in shown}
    details = r"ramify_(trainer_)?process_|ramify_(info|reserved_tokens|completions|completions_running)$"
    details += r"|ramify_((grading|feedback)_failures|release_reload_seconds|admission_wait_seconds|engine_\w+_steps)$"
    details += r"|ramify_trainer_(release_info|server_up|lease_held|quarantined_records|phases|cursor|steps)$"
    details += r"|ramify_trainer_(records|verdicts|revisited_trees)$"
    details += r"|ramify_(truncated_answers|pruned_branches|log_(trees|bytes|oldest_seconds|expired_trees))$"
    details += r"|ramify_policy_(tokens|draws|closed)$"
    assert {name for name in missing if not re.match(details, name)} == set()


@pytest.mark.anyio
async def test_every_alert_is_on_a_figure_that_a_round_has(served: set[str]) -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    (rules,) = config["rule_files"]
    mounted = yaml.safe_load((DOCKER.parent / "compose.yaml").read_text())["services"]["prometheus"][
        "volumes"
    ]
    assert f"./docker/{rules}:/etc/prometheus/{rules}:ro" in mounted
    alerts = [
        rule for group in yaml.safe_load((DOCKER / rules).read_text())["groups"] for rule in group["rules"]
    ]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 5
    figures = {name.replace("/", "_") for name in get_args(Figure)}
    for alert in alerts:
        assert set(re.findall(r"\bramify_\w+", alert["expr"])) <= served
        asked = set(re.findall(r'figure="(\w+)"', alert["expr"]))
        assert asked
        assert asked <= figures
        assert {"summary", "action"} == alert["annotations"].keys()


def test_every_panel_asks_the_provisioned_source_and_no_two_overlap() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_lies_where_grafana_looks() -> None:
    (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/ramify.yaml").read_text())[
        "providers"
    ]
    mounts = yaml.safe_load((DOCKER.parent / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./docker/grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_prometheus_reads_the_containers_where_they_answer() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    trainer = LoopConfig.read(DOCKER / "trainer.toml").service.port
    assert targets == {"server": [f"server:{Settings().port}"], "trainer": [f"trainer:{trainer}"]}
